//! A real HDFS: an active and a standby namenode and one datanode in one Java process, by WebHDFS.
//!
//! | | |
//! | --- | --- |
//! | who asks | is believed what he says: delegation tokens count only where Kerberos does |
//! | the user `service` | may act for `alice`, and for nobody else |
//! | by HTTPS | only with the client certificate of [`Hdfs::certificates`] |
//! | a page of a listing | has 3 entries; a block has 1 MiB |
//!
//! It takes some seconds to start, so that all tests of a process that run at the same time share one, each below a
//! directory of its own.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::http::{Certificates, client};
use crate::launch::nonce;
use crate::process::Process;
use crate::tools;
use crate::wait::until;

/// The user that the tests' files belong to.
pub const OWNER: &str = "alice";

/// Generous: it is a minute of computing on a machine that does a lot else.
const READY_WITHIN: Duration = Duration::from_secs(180);

const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A running HDFS.
#[derive(Debug)]
pub struct Hdfs {
    process: Process,
    superuser: String,
    ports: [u16; 4],
    certificates: Certificates,
    // After `process`, so that the server is gone before its files are.
    directory: TempDir,
}

impl Hdfs {
    /// The one that other tests use at the moment, else a new one; `None`, reported as a skip, when it is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Hdfs>> = Mutex::const_new(Weak::new());
        let program = tools::require("hadoop-webhdfs")?;
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        let started = Arc::new(Self::start(&program).await);
        *shared = Arc::downgrade(&started);
        Some(started)
    }

    async fn start(program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let certificates = Certificates::new(directory.path());
        std::fs::write(directory.path().join("ca.pem"), &certificates.ca_pem)
            .expect("a temporary directory is writable");
        // Whoever starts it may do everything.
        let superuser = format!("admin-{}", nonce());
        let mut command = Command::new(program);
        command.arg(directory.path()).env("HADOOP_USER_NAME", &superuser);
        // Or its web servers would leave directories where all programs have theirs.
        let temporary = format!("-XX:-UsePerfData -Djava.io.tmpdir={}", directory.path().display());
        command.env("JDK_JAVA_OPTIONS", temporary);
        let process = Process::start(&command, &directory.path().join("log"));
        let ports = until("HDFS to start", READY_WITHIN, async || {
            assert!(process.is_running(), "HDFS ended instead of serving; its log:\n{}", process.log());
            std::fs::read_to_string(directory.path().join("ports")).ok()
        })
        .await;
        let ports: Vec<u16> = ports.split_whitespace().map(|port| port.parse().expect("ports are numbers")).collect();
        let ports = ports.try_into().expect("it names four ports");
        let hdfs = Self { process, superuser, ports, certificates, directory };
        // Where files are written before they are put in place.
        hdfs.admin(Method::PUT, "/tmp", "op=MKDIRS&permission=777").await;
        hdfs
    }

    /// A directory that belongs to [`OWNER`], whom alone it lets in; without a slash at its end.
    ///
    /// # Panics
    /// As all that follow, with the server's answer when it refuses.
    pub async fn new_directory(&self) -> String {
        let path = format!("/{}", nonce());
        self.admin(Method::PUT, &path, "op=MKDIRS&permission=700").await;
        self.admin(Method::PUT, &path, &format!("op=SETOWNER&owner={OWNER}")).await;
        path
    }

    /// The active namenode: `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The standby namenode: `http://host:port`.
    pub fn standby_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// The active namenode with TLS: `https://host:port`.
    pub fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[2])
    }

    /// The port of the active namenode that does not speak HTTP.
    pub fn rpc_port(&self) -> u16 {
        self.ports[3]
    }

    /// Its certificate authority, and a certificate for its clients.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Puts a file, owned by [`OWNER`], or replaces it in one step.
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
        self.ask(OWNER, Method::PUT, parent, "op=MKDIRS", None).await;
        // Hidden, so that it is no file of a model while it is written.
        let staged = format!("/tmp/{}", nonce());
        let created = self.ask(OWNER, Method::PUT, &staged, "op=CREATE&permission=644", Some(bytes.into())).await;
        assert_eq!(created, StatusCode::CREATED);
        let destination = utf8_percent_encode(path, &ENCODED);
        let query = format!("op=RENAME&destination={destination}&renameoptions=OVERWRITE");
        self.ask(OWNER, Method::PUT, &staged, &query, None).await;
    }

    /// Makes an empty directory.
    pub async fn make_directory(&self, path: &str) {
        self.ask(OWNER, Method::PUT, path, "op=MKDIRS", None).await;
    }

    /// Sets who may do what with a file or directory, for instance `000`.
    pub async fn set_permission(&self, path: &str, permission: &str) {
        self.admin(Method::PUT, path, &format!("op=SETPERMISSION&permission={permission}")).await;
    }

    async fn admin(&self, method: Method, path: &str, query: &str) {
        self.ask(&self.superuser, method, path, query, None).await;
    }

    async fn ask(&self, user: &str, method: Method, path: &str, query: &str, body: Option<Bytes>) -> StatusCode {
        let url = format!("{}/webhdfs/v1{}?user.name={user}&{query}", self.url(), utf8_percent_encode(path, &ENCODED));
        let send = |url: String, body: Bytes| client().request(method.clone(), url).body(body).send();
        let mut answer = send(url, Bytes::new()).await.expect("HDFS answers");
        if let Some(location) = answer.headers().get("location") {
            let location = location.to_str().expect("a location is a URL").to_owned();
            answer = send(location, body.unwrap_or_default()).await.expect("HDFS answers");
        }
        let status = answer.status();
        assert!(status.is_success(), "{method} {path} {query}: {status}: {}", answer.text().await.unwrap_or_default());
        status
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
