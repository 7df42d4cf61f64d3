//! nginx, as a web server that models are fetched from.
//!
//! | path | what is special about it |
//! | --- | --- |
//! | `/…` | nothing: ranges, `ETag` and `Last-Modified` as nginx makes them (modification time and size) |
//! | `/noranges/…` | ranges are not served: always 200 and the whole |
//! | `/novalidator/…` | neither `ETag` nor `Last-Modified` |
//! | `/private/…` | wants basic authentication as [`USER`] with [`PASSWORD`] |
//! | `/slow/…` | each response is limited to [`Options::slow_rate`] |
//! | `/redirect/…` | 302 to the same path without the prefix, at the other port: another origin |
//!
//! All serve the same directory. No directory is listed. A key with two slashes in a row is merged into one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::launch::{free_address, launch, nonce};
use crate::model::Files;
use crate::process::Process;
use crate::tools;

mod tls;

pub use tls::Certificates;

/// Who may read below `/private/`.
pub const USER: &str = "model-reader";
/// That user's password. Without a colon, where nginx ends a password.
pub const PASSWORD: &str = "p4ss +/= w\u{f6}rd";

/// What can be chosen about an nginx.
#[derive(Clone, Debug)]
pub struct Options {
    /// Serve TLS, with a certificate of a CA that was made for this server: see [`Nginx::ca_pem`].
    pub tls: bool,
    /// Bytes per second of each response below `/slow/`.
    pub slow_rate: u64,
    /// Where to listen; by default a free loopback port. For a test that stops a server and starts it again.
    pub address: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self { tls: false, slow_rate: 64 << 10, address: None }
    }
}

/// One request, from nginx's access log: written when the request is finished, whether or not its client stayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The port that it came to.
    pub port: u16,
    /// Its method.
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// The response's status.
    pub status: u16,
    /// Bytes of the response's body that were sent.
    pub bytes: u64,
    /// Its `Range`, empty without one.
    pub range: String,
    /// Its `Authorization`, empty without one.
    pub authorization: String,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
    other: SocketAddr,
    root: PathBuf,
    certificates: Option<Certificates>,
    // After `process`, so that the server is gone before its files are.
    directory: TempDir,
}

impl Nginx {
    /// Serves the directory `root`; `None`, reported as a skip, when nginx is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(root: &Path) -> Option<Self> {
        Self::start_with(root, Options::default()).await
    }

    /// As [`Self::start`], with options.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(root: &Path, options: Options) -> Option<Self> {
        let program = tools::require("nginx")?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let root = root.canonicalize().expect("the root exists");
        let certificates = options.tls.then(|| Certificates::new(directory.path()));
        let token = nonce();
        let config = directory.path().join("nginx.conf");
        fs::write(directory.path().join("htpasswd"), format!("{USER}:{{PLAIN}}{PASSWORD}\n"))
            .expect("a temporary directory is writable");
        let other = Mutex::new(free_address());
        let command = |free: SocketAddr| {
            let address = options.address.unwrap_or(free);
            let second = free_address();
            *other.lock().unwrap() = second;
            let text = configuration(&options, directory.path(), &root, [address, second], &token);
            fs::write(&config, text).expect("a temporary directory is writable");
            let mut command = Command::new(&program);
            command.arg("-p").arg(directory.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
            command
        };
        let scheme = if options.tls { "https" } else { "http" };
        let http = certificates.as_ref().map_or_else(client, |certificates| client_trusting(&certificates.ca_pem));
        let ready = async |free| {
            let address = options.address.unwrap_or(free);
            let response = http.get(format!("{scheme}://{address}/.ready/{token}")).send().await;
            response.is_ok_and(|response| response.status() == 204)
        };
        let (free, process) = launch("nginx", &directory.path().join("log"), command, ready).await;
        let (address, other) = (options.address.unwrap_or(free), *other.lock().unwrap());
        Some(Self { process, address, other, root, certificates, directory })
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.at(self.address)
    }

    /// The URL of the origin that `/redirect/` leads to: the same files, at another port.
    pub fn other_url(&self) -> String {
        self.at(self.other)
    }

    /// The certificate of the CA that signed the server's own, as PEM, when it serves TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.certificates.as_ref().map(|certificates| certificates.ca_pem.as_str())
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The directory that it serves.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a file, or replaces it in one step, with a modification time that no earlier version had: nginx makes its
    /// `ETag` of size and whole seconds, so that two versions of a test's one second would look the same.
    ///
    /// # Panics
    /// When the root is not writable.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let target = self.root.join(path);
        let parent = target.parent().expect("a file has a directory");
        fs::create_dir_all(parent).expect("the root is writable");
        let before = fs::metadata(&target).and_then(|metadata| metadata.modified()).ok();
        let modified = before.map_or_else(SystemTime::now, |before| before + Duration::from_secs(1));
        let staged = self.directory.path().join(nonce());
        fs::write(&staged, bytes).expect("a temporary directory is writable");
        let file = fs::File::options().write(true).open(&staged).expect("it was just written");
        file.set_modified(modified).expect("the owner may set times");
        // The root may be on another file system than the temporary directory.
        if fs::rename(&staged, &target).is_err() {
            fs::copy(&staged, &target).expect("the root is writable");
            let file = fs::File::options().write(true).open(&target).expect("it was just written");
            file.set_modified(modified).expect("the owner may set times");
        }
    }

    /// Puts a model's files below `prefix`, which ends in a slash or is empty.
    pub fn put_model(&self, prefix: &str, files: &Files) {
        for (path, bytes) in files {
            self.put(&format!("{prefix}{path}"), bytes);
        }
    }

    /// All requests that are finished so far, except those for readiness.
    ///
    /// # Panics
    /// When a line of the log can't be read.
    pub fn requests(&self) -> Vec<Logged> {
        let log = fs::read(self.directory.path().join("access.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // The last line may be half written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(parse_log_line).filter(|logged| !logged.target.starts_with("/.ready/")).collect()
    }

    fn at(&self, address: SocketAddr) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }
}

/// A client for use beside the code under test: no proxy of the environment, no redirects.
///
/// # Panics
/// When it can't be built.
pub fn client() -> reqwest::Client {
    builder().build().expect("a client can be built")
}

/// As [`client`], and it trusts this CA and no other.
///
/// # Panics
/// When `ca_pem` is no certificate.
pub fn client_trusting(ca_pem: &str) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).expect("a certificate in PEM");
    builder().tls_certs_only([ca]).build().expect("a client can be built")
}

fn builder() -> reqwest::ClientBuilder {
    // reqwest is built without a default of its own. Another test of the process may have installed it already.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
}

fn parse_log_line(line: &str) -> Logged {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[port, method, target, status, bytes, range, authorization] = fields.as_slice() else {
        panic!("nginx logged {line:?}");
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("nginx logged {line:?}"));
    Logged {
        port: number(port) as u16,
        method: method.to_owned(),
        target: target.to_owned(),
        status: number(status) as u16,
        bytes: number(bytes),
        range: range.to_owned(),
        authorization: authorization.to_owned(),
    }
}

fn configuration(options: &Options, directory: &Path, root: &Path, listen: [SocketAddr; 2], token: &str) -> String {
    let (directory, root) = (directory.display(), root.display());
    let (scheme, tls, certificate) = if options.tls {
        let certificate = format!(
            "ssl_certificate \"{directory}/{}\"; ssl_certificate_key \"{directory}/{}\";",
            Certificates::CHAIN_FILE,
            Certificates::KEY_FILE
        );
        ("https", " ssl", certificate)
    } else {
        ("http", "", String::new())
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path \"{directory}/{name}\";\n"))
        .concat();
    let location =
        |path: &str, special: &str| format!("        location /{path}/ {{ alias \"{root}/\"; {special} }}\n");
    let locations = [
        location("noranges", "max_ranges 0;"),
        location("novalidator", "etag off; if_modified_since off; add_header Last-Modified \"\";"),
        location("private", &format!("auth_basic models; auth_basic_user_file \"{directory}/htpasswd\";")),
        location("slow", &format!("limit_rate {};", options.slow_rate)),
    ]
    .concat();
    let [first, second] = listen;
    format!(
        r#"daemon off;
master_process off;
pid "{directory}/nginx.pid";
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
{temporary}
    log_format facts escape=none
        "$server_port\t$request_method\t$request_uri\t$status\t$body_bytes_sent\t$http_range\t$http_authorization";
    access_log "{directory}/access.log" facts;
    types {{ application/json json; }}
    default_type application/octet-stream;
    sendfile on;
    # As it was sent: what nginx makes of a path in its own variables is decoded.
    map $request_uri $redirected {{ "~^/redirect(?<rest>/.*)$" $rest; }}
    server {{
        listen {first}{tls};
        listen {second}{tls};
        {certificate}
        root "{root}";
        location = /.ready/{token} {{ return 204; }}
        location /redirect/ {{ return 302 {scheme}://{second}$redirected; }}
{locations}
    }}
}}
"#
    )
}
