//! Container registries: two independent implementations, so that a client is not written to the habits of one.
//!
//! | | docker-registry (distribution 2.8) | crane registry serve (go-containerregistry) |
//! | --- | --- | --- |
//! | who may read | everybody, who has a password, or who has a token: see [`Access`] | everybody |
//! | a blob of another repository | is not found | is found |
//! | parts of a blob | 206 | 206 |
//!
//! Both speak plain HTTP. Content is pushed by plain requests, so that a test can push what no tool would; and by the
//! tools that people use: [`Registry::reference`] is a name for them.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use modelmount::{Credentials, Digest};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http;
use crate::launch::{launch, nonce};
use crate::process::Process;
use crate::tools;

mod token;

pub use token::TokenServer;

/// Who may read and push.
pub const USER: &str = "model-reader";
/// That user's password.
pub const PASSWORD: &str = "p4ss-w0rd";
/// The same, as htpasswd keeps it: bcrypt, of the lowest cost.
const PASSWORD_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuYbXLuitiqwu.TAgyzrrq.at0SvjLxNe";

/// Media type of the manifests that [`Registry::push`] makes.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Which registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryKind {
    /// Debian's `docker-registry`.
    Distribution,
    /// `crane registry serve`.
    Crane,
}

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anonymous,
    /// [`USER`] with [`PASSWORD`], sent with each request.
    Password,
    /// Who has a token; a server beside the registry gives them for the password.
    Token,
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    access: Access,
    tokens: Option<TokenServer>,
    process: Process,
    client: reqwest::Client,
    // After `process`, so that the server is gone before its files are.
    directory: TempDir,
}

impl Registry {
    /// Starts a registry that lets everybody in; `None`, reported as a skip, when its program is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(kind: RegistryKind) -> Option<Self> {
        match kind {
            RegistryKind::Distribution => Self::start_with(Access::Anonymous).await,
            RegistryKind::Crane => Self::crane().await,
        }
    }

    /// Starts docker-registry.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(access: Access) -> Option<Self> {
        let program = tools::require("docker-registry")?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let tokens = match access {
            Access::Token => Some(TokenServer::start(directory.path()).await),
            Access::Anonymous | Access::Password => None,
        };
        let nonce = nonce();
        let config = directory.path().join("config.json");
        fs::write(directory.path().join("htpasswd"), format!("{USER}:{PASSWORD_HASH}\n"))
            .expect("a temporary directory is writable");
        let command = |address: SocketAddr| {
            let mut settings = json!({
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": true}},
                "storage": {
                    "filesystem": {"rootdirectory": directory.path().join("data")},
                    "delete": {"enabled": true},
                },
                "http": {"addr": address.to_string(), "headers": {"X-Nonce": [nonce]}},
            });
            if access == Access::Password {
                let path = directory.path().join("htpasswd");
                settings["auth"] = json!({"htpasswd": {"realm": "models", "path": path}});
            }
            if let Some(tokens) = &tokens {
                settings["auth"] = json!({"token": tokens.settings()});
            }
            // YAML is a superset of JSON.
            fs::write(&config, settings.to_string()).expect("a temporary directory is writable");
            let mut command = Command::new(&program);
            command.arg("serve").arg(&config);
            command
        };
        let client = http::client();
        let ready = async |address| {
            let answer = client.get(format!("http://{address}/v2/")).send().await;
            answer.is_ok_and(|answer| answer.headers().get("x-nonce").is_some_and(|sent| sent == nonce.as_str()))
        };
        let (address, process) = launch("docker-registry", &directory.path().join("log"), command, ready).await;
        Some(Self { address, access, tokens, process, client, directory })
    }

    async fn crane() -> Option<Self> {
        let program = tools::require("crane")?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let command = |address: SocketAddr| {
            let mut command = Command::new(&program);
            command.args(["registry", "serve", "--address", &address.to_string()]);
            command
        };
        let client = http::client();
        let log = directory.path().join("log");
        let ready = async |address| {
            // It ends, instead of saying this, when the port is another's.
            let serves = fs::read_to_string(&log).is_ok_and(|log| log.contains("serving on port"));
            serves
                && client.get(format!("http://{address}/v2/")).send().await.is_ok_and(|answer| answer.status() == 200)
        };
        let (address, process) = launch("crane registry serve", &log, command, ready).await;
        Some(Self { address, access: Access::Anonymous, tokens: None, process, client, directory })
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What gives its tokens, with [`Access::Token`].
    ///
    /// # Panics
    /// With another access.
    pub fn tokens(&self) -> &TokenServer {
        self.tokens.as_ref().expect("the registry was started with tokens")
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A directory of the test's own, gone with the registry.
    pub fn scratch(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// `host:port/name`, as tools and URIs write it.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// What lets a reader in.
    pub fn credentials(&self) -> Credentials {
        match self.access {
            Access::Anonymous => Credentials::none(),
            Access::Password | Access::Token => credentials(PASSWORD),
        }
    }

    /// Pushes a blob.
    ///
    /// # Panics
    /// As all that follow, with the registry's answer when it refuses.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("{repository}/blobs/uploads/");
        let answer = self.send(Method::POST, repository, &self.url(&path), None, Vec::new()).await;
        let location = answer.headers()[LOCATION].to_str().expect("a place is text").to_owned();
        let location = answer.url().join(&location).expect("a place is a URL");
        let separator = if location.query().is_some() { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        self.send(Method::PUT, repository, &url, Some("application/octet-stream"), bytes.to_vec()).await;
        digest
    }

    /// Pushes a document under a tag or its digest.
    pub async fn push_manifest(&self, repository: &str, version: &str, document: &Value) -> Digest {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let media_type = document["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let url = self.url(&format!("{repository}/manifests/{version}"));
        self.send(Method::PUT, repository, &url, Some(&media_type), bytes).await;
        digest
    }

    /// Pushes an artifact of these layers, `(media type, annotations, content)`, and returns its manifest's digest.
    pub async fn push(&self, repository: &str, tag: &str, kind: Kind<'_>, layers: &[(&str, Value, &[u8])]) -> Digest {
        let mut descriptors = Vec::new();
        for (media_type, annotations, content) in layers {
            let digest = self.push_blob(repository, content).await.to_string();
            descriptors.push(json!({
                "mediaType": media_type, "digest": digest, "size": content.len(), "annotations": annotations,
            }));
        }
        let config = self.push_blob(repository, b"{}").await.to_string();
        let mut document = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": kind.config, "digest": config, "size": 2},
            "layers": descriptors,
        });
        if let Some(artifact) = kind.artifact {
            document["artifactType"] = json!(artifact);
        }
        self.push_manifest(repository, tag, &document).await
    }

    /// Deletes a blob.
    pub async fn delete_blob(&self, repository: &str, digest: Digest) {
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        self.send(Method::DELETE, repository, &url, None, Vec::new()).await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    async fn send(
        &self,
        method: Method,
        repository: &str,
        url: &str,
        media_type: Option<&str>,
        body: Vec<u8>,
    ) -> reqwest::Response {
        let mut request = self.client.request(method, url).body(body);
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        request = match self.access {
            Access::Anonymous => request,
            Access::Password => request.basic_auth(USER, Some(PASSWORD)),
            Access::Token => {
                let token = self.tokens().token(repository, &["pull", "push", "delete"]);
                request.header(AUTHORIZATION, format!("Bearer {token}"))
            }
        };
        let answer = request.send().await.expect("the registry answers");
        let status = answer.status();
        if !status.is_success() {
            panic!("{url}: {status}: {}", answer.text().await.unwrap_or_default());
        }
        answer
    }
}

/// What an artifact says it is.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// Its `artifactType`.
    pub artifact: Option<&'a str>,
    /// Its config's media type.
    pub config: &'a str,
}

impl Kind<'_> {
    /// What ORAS pushes.
    pub const ORAS: Self =
        Self { artifact: Some("application/vnd.unknown.artifact.v1"), config: "application/vnd.oci.empty.v1+json" };
}

/// A Secret of type kubernetes.io/basic-auth.
pub fn credentials(password: &str) -> Credentials {
    [("username", USER), ("password", password)].into_iter().collect()
}
