//! Git's own HTTP server, `git http-backend`, with one repository; and beside it an emulator of Git LFS.
//!
//! | path | what is there |
//! | --- | --- |
//! | `/model.git/…` | the repository, by git itself |
//! | `/model.git/info/lfs/objects/batch` | where objects of Git LFS are: at another origin, with a ticket |
//! | `/moved.git/…` | 302 to the same path of `/model.git/` |
//! | `/away.git/…` | 302 to the same path of the other origin, which is a repository to those who bring no credentials |
//!
//! The emulator is checked by the real client, `git lfs`, in `tests/library/git`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use modelmount::Digest;
use tempfile::TempDir;

use crate::http;
use crate::launch::nonce;
use crate::model::Files;
use crate::script::{Request, Response, ScriptedServer};
use crate::tools;

/// Who may read, when not everybody may.
pub const USER: &str = "model-reader";
/// That user's password.
pub const PASSWORD: &str = "p4ss+/=word";

/// What can be chosen about a server.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only [`USER`] may read.
    pub private: bool,
    /// Clients may leave out objects that they don't want.
    pub filter: bool,
    /// Clients may ask for objects' sizes.
    pub sizes: bool,
    /// How objects are named: `sha1` or `sha256`.
    pub format: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { private: false, filter: true, sizes: false, format: "sha1" }
    }
}

/// A running server.
#[derive(Debug)]
pub struct GitServer {
    git: PathBuf,
    server: ScriptedServer,
    objects: ScriptedServer,
    /// The origin that it is known by.
    elsewhere: Arc<Mutex<String>>,
    status: Arc<AtomicU16>,
    ranges: Arc<AtomicBool>,
    lfs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    directory: TempDir,
}

/// The answer to a request, by what the server has.
struct Site {
    git: PathBuf,
    root: PathBuf,
    options: Options,
    /// What all requests are refused with, unless it is 0.
    status: Arc<AtomicU16>,
    lfs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    ticket: String,
    elsewhere: Arc<Mutex<String>>,
}

impl GitServer {
    /// Starts a server with an empty repository; `None`, reported as a skip, when git is not installed.
    ///
    /// # Panics
    /// When it does not start, and when git fails.
    pub async fn start(options: Options) -> Option<Self> {
        let git = tools::require("git")?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let root = directory.path().join("root");
        fs::create_dir_all(directory.path().join("work")).expect("a temporary directory is writable");
        let (lfs, status, ranges) = (Arc::default(), Arc::new(AtomicU16::new(0)), Arc::new(AtomicBool::new(true)));
        let ticket = nonce();
        let objects = {
            let (lfs, ticket, ranges) = (Arc::clone(&lfs), ticket.clone(), Arc::clone(&ranges));
            let anonymous = Site {
                git: git.clone(),
                root: root.clone(),
                options: Options { private: false, ..options },
                status: Arc::clone(&status),
                lfs: Arc::clone(&lfs),
                ticket: ticket.clone(),
                elsewhere: Arc::default(),
            };
            ScriptedServer::start(move |request| match request.target.strip_prefix("/lfs/") {
                Some(oid) => object(&lfs.lock().unwrap(), oid, &ticket, ranges.load(Ordering::SeqCst), request),
                None => anonymous.answer(request),
            })
            .await
        };
        let elsewhere = Arc::new(Mutex::new(objects.url()));
        let site = Site {
            git: git.clone(),
            root: root.clone(),
            options,
            status: Arc::clone(&status),
            lfs: Arc::clone(&lfs),
            ticket,
            elsewhere: Arc::clone(&elsewhere),
        };
        let server = ScriptedServer::start(move |request| site.answer(request)).await;
        let this = Self { git, server, objects, elsewhere, status, ranges, lfs, directory };
        this.git(&[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            &format!("--object-format={}", options.format),
            ".",
        ]);
        for (name, value) in [
            ("uploadpack.allowFilter", options.filter),
            ("transfer.advertiseObjectInfo", options.sizes),
            ("core.bare", false),
            ("gc.auto", false),
            ("core.fsync", false),
        ] {
            let value = match name {
                "gc.auto" => "0",
                "core.fsync" => "none",
                _ if value => "true",
                _ => "false",
            };
            this.git(&["config", name, value]);
        }
        Some(this)
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// The URL of the other origin, where objects of Git LFS are.
    pub fn other_url(&self) -> String {
        self.objects.url()
    }

    /// Where the other origin listens.
    pub fn other_address(&self) -> std::net::SocketAddr {
        self.objects.address()
    }

    /// Lets the other origin be known by this URL, without a slash at the end.
    ///
    /// # Panics
    /// When a request has panicked.
    pub fn keep_lfs_at(&self, origin: &str) {
        *self.elsewhere.lock().unwrap() = origin.to_owned();
    }

    /// All requests to the server itself.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// All requests to the other origin.
    pub fn other_requests(&self) -> Vec<Request> {
        self.objects.requests()
    }

    /// Answers all requests with this status from now on; 0 for as before.
    pub fn refuse_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Whether objects of Git LFS are served in parts.
    pub fn serve_ranges(&self, ranges: bool) {
        self.ranges.store(ranges, Ordering::SeqCst);
    }

    /// Runs git in the repository, and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let mut command = command(&self.git, self.directory.path());
        fs::create_dir_all(self.repository()).expect("a temporary directory is writable");
        command.current_dir(self.work()).args(arguments);
        if arguments.first() == Some(&"init") {
            command.current_dir(self.repository());
        } else {
            command.env("GIT_DIR", self.repository()).env("GIT_WORK_TREE", self.work());
        }
        run(command)
    }

    /// Runs git anywhere else: a client.
    ///
    /// # Panics
    /// When it fails.
    pub fn client(&self, directory: &Path, arguments: &[&str]) -> String {
        let mut command = command(&self.git, self.directory.path());
        command.current_dir(directory).args(arguments);
        run(command)
    }

    /// The files of the work tree: what is changed here is committed by [`Self::commit`].
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Commits the work tree, and returns the commit.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all", "."]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=another"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Commits a file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.write(path, bytes);
        self.commit();
    }

    /// Commits a model's files below `prefix`, which ends in a slash or is empty.
    pub fn put_model(&self, prefix: &str, files: &Files) {
        files.iter().for_each(|(path, bytes)| self.write(&format!("{prefix}{path}"), bytes));
        self.commit();
    }

    /// Commits a file that is kept by Git LFS.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn put_lfs(&self, path: &str, bytes: &[u8]) {
        let oid = Digest::of(bytes).hex();
        let size = bytes.len();
        self.write(
            path,
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n").as_bytes(),
        );
        self.lfs.lock().unwrap().insert(oid, bytes.to_vec());
        self.commit();
    }

    /// Forgets an object of Git LFS, or puts other bytes in its place.
    ///
    /// # Panics
    /// When a request has panicked.
    pub fn set_object(&self, bytes: &[u8], other: Option<&[u8]>) {
        let (oid, mut lfs) = (Digest::of(bytes).hex(), self.lfs.lock().unwrap());
        match other {
            Some(other) => lfs.insert(oid, other.to_vec()),
            None => lfs.remove(&oid),
        };
    }

    /// Puts a symbolic link into the work tree.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn link(&self, path: &str, target: &str) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().expect("a link has a directory")).expect("the work tree is writable");
        symlink(target, path).expect("a link can be made");
    }

    /// Puts a file into the work tree.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.work().join(path);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the work tree is writable");
        fs::write(path, bytes).expect("the work tree is writable");
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("root").join("model.git")
    }
}

fn command(git: &Path, home: &Path) -> Command {
    let mut command = Command::new(git);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.org");
    }
    command
}

fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("git can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An object of Git LFS, to those who have the ticket.
fn object(lfs: &BTreeMap<String, Vec<u8>>, oid: &str, ticket: &str, ranges: bool, request: &Request) -> Response {
    match lfs.get(oid) {
        _ if request.header("x-ticket") != Some(ticket) => Response::new(403),
        None => Response::new(404),
        Some(bytes) if ranges => Response::content(request, bytes),
        Some(bytes) => Response::new(200).body(bytes.clone()),
    }
}

impl Site {
    fn answer(&self, request: &Request) -> Response {
        match self.status.load(Ordering::SeqCst) {
            0 => {}
            status => return Response::new(status),
        }
        let basic = http::client().get("http://localhost").basic_auth(USER, Some(PASSWORD)).build();
        let expected = basic.expect("a request can be made").headers()["authorization"].clone();
        let given = request.header("authorization").map(str::as_bytes);
        if self.options.private && given != Some(expected.as_bytes()) {
            return Response::new(401).header("www-authenticate", "Basic realm=\"models\"");
        }
        if let Some(rest) = request.target.strip_prefix("/moved.git/") {
            return Response::new(302).header("location", format!("/model.git/{rest}"));
        }
        if let Some(rest) = request.target.strip_prefix("/away.git/") {
            return Response::new(302)
                .header("location", format!("{}/model.git/{rest}", self.elsewhere.lock().unwrap()));
        }
        if request.target == "/model.git/info/lfs/objects/batch" {
            return self.batch(request);
        }
        tokio::task::block_in_place(|| self.backend(request))
    }

    /// The LFS batch API, for one object or many.
    fn batch(&self, request: &Request) -> Response {
        let lfs = self.lfs.lock().unwrap();
        let text = String::from_utf8_lossy(&request.body);
        // As flat as the API's questions are.
        let objects: Vec<String> = text
            .split("\"oid\":")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1))
            .map(|oid| match lfs.get(oid) {
                Some(bytes) => format!(
                    r#"{{"oid":"{oid}","size":{},"authenticated":true,"actions":{{"download":{{"href":"{}/lfs/{oid}","header":{{"X-Ticket":"{}"}},"expires_in":3600}}}}}}"#,
                    bytes.len(),
                    self.elsewhere.lock().unwrap(),
                    self.ticket
                ),
                None => format!(r#"{{"oid":"{oid}","size":0,"error":{{"code":404,"message":"no such object"}}}}"#),
            })
            .collect();
        let body = format!(r#"{{"transfer":"basic","objects":[{}]}}"#, objects.join(","));
        Response::new(200).header("content-type", "application/vnd.git-lfs+json").body(body)
    }

    /// Git's own server, as a web server runs it (RFC 3875).
    fn backend(&self, request: &Request) -> Response {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut command = command(&self.git, &self.root);
        command.arg("http-backend").env("GIT_PROJECT_ROOT", &self.root).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", &request.method).env("PATH_INFO", path).env("QUERY_STRING", query);
        command.env("REMOTE_ADDR", "127.0.0.1").env("CONTENT_LENGTH", request.body.len().to_string());
        for (variable, header) in [
            ("CONTENT_TYPE", "content-type"),
            ("GIT_PROTOCOL", "git-protocol"),
            ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ] {
            if let Some(value) = request.header(header) {
                command.env(variable, value);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("git can be started");
        let mut input = child.stdin.take().expect("its input is a pipe");
        let body = request.body.clone();
        let writer = std::thread::spawn(move || input.write_all(&body).ok());
        let output = child.wait_with_output().expect("git ends").stdout;
        writer.join().expect("writing does not panic");
        let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { return Response::new(500) };
        let head = String::from_utf8_lossy(&output[..end]).into_owned();
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let status = headers.clone().find(|(name, _)| *name == "Status").map_or("200", |(_, status)| status);
        let status = status.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500);
        let response = Response::new(status).body(output[end + 4..].to_vec());
        headers
            .filter(|(name, _)| *name != "Status")
            .fold(response, |response, (name, value)| response.header(name, value))
    }
}
