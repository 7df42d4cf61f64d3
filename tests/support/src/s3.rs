//! S3 servers: three independent implementations, so that a client is not written to the habits of one.
//!
//! | | versitygw (Go) | rclone serve s3 (Go) | s3s-fs (Rust, in-process) |
//! | --- | --- | --- | --- |
//! | large objects | yes, ETag of parts | yes, ETag is the MD5 of the whole, computed anew after each start | too slow |
//! | a range is answered by | 206 | **200 with a `Content-Range`**, which `object_store` refuses | 206 |
//! | the marker `dir/` is | kept, and may hold no data | listed as the object `dir` | kept and not listed |
//! | the key `a//b` is | taken for `a/b` | refused | taken for `a/b` |
//! | a file put into the data directory | has no ETag | is not seen for minutes | is an object with an ETag |
//! | signature with a wrong secret | 403 | 403 | 403 |
//!
//! None can hold both `a` and `a/b`, all being directories of files underneath (rclone lists a broken `a` after such an
//! attempt); and no key can have a component `.` or `..`, which URL parsers remove. Everything else that a key may hold
//! arrives exactly: spaces, `+`, `%`, `#`, `?`, `&`, quotes, and all of Unicode.
//!
//! Objects are put by plain signed requests: a key is sent as it is given, where `object_store`'s `Path` would drop
//! `a//b`'s second slash and the last one of the "directory marker" `a/`. Large ones too: an ETag has to be the server's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

use crate::background::Background;
use crate::launch::{launch, nonce};
use crate::model::{Files, Pattern};
use crate::process::Process;
use crate::tools;

mod client;
mod in_process;

use client::Client;

/// The region that all servers claim to be in.
pub const REGION: &str = "us-east-1";
/// Size of the parts that large objects are put in, in bytes; larger objects have an ETag of the form `"…-<parts>"`.
pub const PART_SIZE: u64 = 16 << 20;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Kind {
    /// `versitygw posix`: strict, fast, good for large objects.
    Versitygw,
    /// `rclone serve s3`: loose with the protocol, as servers in the field are.
    Rclone,
    /// The `s3s-fs` crate in this process: always there, for small objects.
    S3sFs,
}

impl S3Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Versitygw, Self::Rclone, Self::S3sFs];

    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Versitygw => "versitygw",
            Self::Rclone => "rclone",
            Self::S3sFs => "s3s-fs",
        }
    }
}

/// A running S3 server, with path-style addressing and one pair of keys that is new with each start.
#[derive(Debug)]
pub struct S3Server {
    kind: S3Kind,
    client: Client,
    address: SocketAddr,
    running: Running,
    data: PathBuf,
    // After `running`, so that the server is gone before its files are.
    _directory: TempDir,
}

#[derive(Debug)]
enum Running {
    Program(Process),
    Task(#[expect(dead_code, reason = "held to keep the server alive")] Background),
}

impl S3Server {
    /// Starts a server that has no buckets; `None`, reported as a skip, when its program is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(kind: S3Kind) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a temporary directory is writable");
        let (access_key, secret_key) = (format!("AK{}", nonce()), format!("SK{}", nonce()));
        let client = |address| Client::new(address, &access_key, &secret_key);
        if kind == S3Kind::S3sFs {
            let (address, task) = in_process::start(&data, &access_key, &secret_key).await;
            let (client, running) = (client(address), Running::Task(task));
            return Some(Self { kind, client, address, running, data, _directory: directory });
        }
        let program = tools::require(kind.name())?;
        let command = |address: SocketAddr| {
            let mut command = Command::new(&program);
            if kind == S3Kind::Versitygw {
                command.args(["--access", &access_key, "--secret", &secret_key, "--region", REGION]);
                command.args(["--port", &address.to_string(), "--quiet", "--keep-alive", "posix"]).arg(&data);
            } else {
                command.args(["serve", "s3", "--auth-key", &format!("{access_key},{secret_key}")]);
                command.args(["--addr", &address.to_string(), "--config", "", "--max-header-bytes", "65536"]);
                command.arg("--cache-dir").arg(directory.path().join("cache")).arg(&data);
            }
            command
        };
        // Signed: only the server that was given these keys says yes.
        let ready = async |address| client(address).answers().await;
        let (address, process) = launch(kind.name(), &directory.path().join("log"), command, ready).await;
        let (client, running) = (client(address), Running::Program(process));
        Some(Self { kind, client, address, running, data, _directory: directory })
    }

    /// Which server it is.
    pub fn kind(&self) -> S3Kind {
        self.kind
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The access key that it accepts.
    pub fn access_key(&self) -> &str {
        self.client.access_key()
    }

    /// The secret key that goes with it.
    pub fn secret_key(&self) -> &str {
        self.client.secret_key()
    }

    /// Where it keeps its objects: `<bucket>/<key>`.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Its process, unless it runs in this one.
    pub fn process(&self) -> Option<&Process> {
        match &self.running {
            Running::Program(process) => Some(process),
            Running::Task(_) => None,
        }
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// As all that follow, with the server's answer when it refuses.
    pub async fn create_bucket(&self, bucket: &str) {
        self.client.create_bucket(bucket).await.unwrap();
    }

    /// Puts an object under exactly this key.
    pub async fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        self.client.put(bucket, key, bytes.into()).await.unwrap();
    }

    /// As [`Self::put`]; gives the server's words when it refuses.
    ///
    /// # Errors
    /// The server's answer, as text.
    pub async fn try_put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> Result<(), String> {
        self.client.put(bucket, key, bytes.into()).await
    }

    /// Puts a model's files below `prefix`, which ends in a slash or is empty.
    pub async fn put_model(&self, bucket: &str, prefix: &str, files: &Files) {
        let puts = files.iter().map(|(path, bytes)| {
            let (key, bytes) = (format!("{prefix}{path}"), Bytes::copy_from_slice(bytes));
            async move { self.client.put(bucket, &key, bytes).await }
        });
        // rclone fails (500) when two requests make the same directory at once.
        let at_once = if self.kind == S3Kind::Rclone { 1 } else { 8 };
        stream::iter(puts).buffer_unordered(at_once).try_collect::<Vec<()>>().await.unwrap();
    }

    /// Puts the first `size` bytes of a pattern, in parts of [`PART_SIZE`] when it is larger than one.
    pub async fn put_pattern(&self, bucket: &str, key: &str, pattern: Pattern, size: u64) {
        self.client.put_pattern(bucket, key, pattern, size).await.unwrap();
    }

    /// Deletes an object.
    pub async fn delete(&self, bucket: &str, key: &str) {
        self.client.delete(bucket, key).await.unwrap();
    }

    /// An object's bytes, if there is one.
    pub async fn get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.client.get(bucket, key).await.unwrap()
    }

    /// An object's ETag as the server writes it, quotes included.
    pub async fn etag(&self, bucket: &str, key: &str) -> Option<String> {
        self.client.etag(bucket, key).await.unwrap()
    }

    /// All keys of a bucket that begin with `prefix`, as the server lists them.
    pub async fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        self.client.keys(bucket, prefix).await.unwrap()
    }
}
