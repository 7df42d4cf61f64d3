//! Google Cloud Storage: fake-gcs-server, and before it a gate that knows who may read.
//!
//! ```text
//! the code under test  -->  gate (tokens, rights)  -->  fake-gcs-server (objects)
//! ```
//!
//! fake-gcs-server lets everybody do everything. The gate does what Google's front end does: it checks each request's
//! bearer token, which is either a JSON web token that a service account has signed itself, or one that its own token
//! endpoint has issued for a user's refresh token. It also puts right that fake-gcs-server answers 500 to the listing of a
//! bucket that does not exist. Objects are put past it.

use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use crate::http::client;
use crate::launch::{launch, nonce};
use crate::process::Process;
use crate::tools;

mod account;
mod gate;

pub use account::ServiceAccount;
pub use gate::Access;

/// A running server, with an account of its own.
#[derive(Debug)]
pub struct GcsServer {
    gate: gate::Gate,
    upstream: SocketAddr,
    http: reqwest::Client,
    _process: Process,
    // After the process, so that the server is gone before its files are.
    _directory: TempDir,
}

impl GcsServer {
    /// Starts a server without buckets; `None`, reported as a skip, when a program is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Option<Self> {
        let program = tools::require("fake-gcs-server")?;
        let account = ServiceAccount::new()?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        // Only this server has the bucket of this name.
        let own = nonce();
        let seed = directory.path().join("seed");
        std::fs::create_dir_all(seed.join(&own)).expect("a temporary directory is writable");
        let http = client();
        let command = |address: SocketAddr| {
            let mut command = Command::new(&program);
            command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &address.port().to_string()]);
            command.args(["-public-host", &address.to_string(), "-backend", "memory", "-log-level", "warn", "-data"]);
            command.arg(&seed);
            command
        };
        let ready = async |address| {
            let answer = http.get(format!("http://{address}/storage/v1/b/{own}")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        let (upstream, process) = launch("fake-gcs-server", &directory.path().join("log"), command, ready).await;
        let gate = gate::Gate::start(upstream, account).await;
        Some(Self { gate, upstream, http, _process: process, _directory: directory })
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    /// Its URL, without a slash at the end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The account that may read everything.
    pub fn account(&self) -> &ServiceAccount {
        self.gate.account()
    }

    /// The credentials file of a user who may read everything.
    pub fn user(&self) -> String {
        self.gate.user(&format!("{}/token", self.endpoint()))
    }

    /// How many tokens the token endpoint has issued.
    pub fn tokens_issued(&self) -> usize {
        self.gate.tokens_issued()
    }

    /// Changes what readers may do, from the next request on.
    pub fn allow(&self, access: Access) {
        self.gate.allow(access);
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// As all that follow, with the server's answer when it refuses.
    pub async fn create_bucket(&self, bucket: &str) {
        let url = format!("http://{}/storage/v1/b?project=test", self.upstream);
        self.post(url, "application/json", format!("{{\"name\": {bucket:?}}}").into()).await;
    }

    /// Puts an object under exactly this name.
    pub async fn put(&self, bucket: &str, name: &str, bytes: impl Into<Bytes>) {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let url = format!("http://{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", self.upstream);
        self.post(url, "application/octet-stream", bytes.into()).await;
    }

    /// Puts an object that is stored with `Content-Encoding: gzip`.
    pub async fn put_gzip(&self, bucket: &str, name: &str, bytes: &[u8]) {
        let url = format!("http://{}/upload/storage/v1/b/{bucket}/o?uploadType=multipart", self.upstream);
        let mut body = format!(
            "--part\r\nContent-Type: application/json\r\n\r\n{{\"name\": {name:?}, \"contentEncoding\": \"gzip\"}}\r\n\
             --part\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n--part--\r\n");
        self.post(url, "multipart/related; boundary=part", body.into()).await;
    }

    async fn post(&self, url: String, content_type: &str, body: Bytes) {
        let answer = self.http.post(&url).header("content-type", content_type).body(body).send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{url}: {status}: {}", answer.text().await.unwrap_or_default());
    }
}
