//! Azurite, Microsoft's emulator of Azure Blob Storage, with an account whose name and key are new with each start.
//!
//! It checks signatures as Azure does. Blobs are put by plain signed requests, under exactly the name that is given.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use tempfile::TempDir;

use crate::http::client;
use crate::launch::{launch, nonce};
use crate::process::Process;
use crate::tools;

/// What is not encoded in a blob's URL.
const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// When signatures that are good end.
pub const FAR_FUTURE: &str = "2099-12-31T00:00:00Z";
/// When signatures that are not have ended.
pub const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// An account of Azure's, as a test makes it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) key: Vec<u8>,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { name: format!("acct{}", nonce()), key: format!("a key of 32 bytes: {}", nonce()).into_bytes() }
    }

    pub(crate) fn key_text(&self) -> String {
        BASE64_STANDARD.encode(&self.key)
    }

    pub(crate) fn sign(&self, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()))
    }
}

/// Form-encodes a query.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A running Azurite.
#[derive(Debug)]
pub struct Azurite {
    account: Account,
    address: SocketAddr,
    http: reqwest::Client,
    _process: Process,
    // After the process, so that the server is gone before its files are.
    _directory: TempDir,
}

impl Azurite {
    /// Starts a server without containers; `None`, reported as a skip, when it is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Option<Self> {
        let program = tools::require("azurite-blob")?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (account, http) = (Account::new(), client());
        let command = |address: SocketAddr| {
            let mut command = Command::new(&program);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()]);
            command.args(["--inMemoryPersistence", "--disableTelemetry", "--silent"]);
            command.arg("--skipApiVersionCheck").current_dir(directory.path());
            command.env("AZURITE_ACCOUNTS", format!("{}:{}", account.name, account.key_text()));
            command
        };
        // Signed: only the server that was given this account says yes.
        let ready = async |address| {
            let (account, http) = (account.clone(), http.clone());
            let answer = send(&http, address, &account, Method::GET, "", "comp=list", &[], Bytes::new()).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        let (address, process) = launch("azurite-blob", &directory.path().join("log"), command, ready).await;
        Some(Self { account, address, http, _process: process, _directory: directory })
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of its account.
    pub fn account(&self) -> &str {
        &self.account.name
    }

    /// The account's key.
    pub fn key(&self) -> String {
        self.account.key_text()
    }

    /// The account's URL at another address, for a proxy.
    pub fn endpoint_at(&self, origin: &str) -> String {
        format!("{origin}/{}", self.account.name)
    }

    /// The account's URL, without a slash at the end.
    pub fn endpoint(&self) -> String {
        self.endpoint_at(&format!("http://{}", self.address))
    }

    /// A shared access signature for a container: permissions such as `rl`, and the time when it ends.
    pub fn signature(&self, container: &str, permissions: &str, expiry: &str) -> String {
        let (version, resource) = ("2021-10-04", format!("/blob/{}/{container}", self.account.name));
        // "Create a service SAS": the fields in this order, those that are not used empty.
        let fields =
            [permissions, "", expiry, &resource, "", "", "", version, "c", "", "", "", "", "", "", ""].join("\n");
        let signature = self.account.sign(&fields);
        query(&[("sv", version), ("sr", "c"), ("sp", permissions), ("se", expiry), ("sig", &signature)])
    }

    /// Makes a container.
    ///
    /// # Panics
    /// As all that follow, with the server's answer when it refuses.
    pub async fn create_container(&self, container: &str) {
        self.send_ok(container, "restype=container", &[], Bytes::new()).await;
    }

    /// Makes a container that everybody may list and read.
    pub async fn create_public_container(&self, container: &str) {
        let public = [("x-ms-blob-public-access", "container")];
        self.send_ok(container, "restype=container", &public, Bytes::new()).await;
    }

    /// Puts a blob under exactly this name.
    pub async fn put(&self, container: &str, name: &str, bytes: impl Into<Bytes>) {
        self.put_with(container, name, bytes, &[]).await;
    }

    /// As [`Self::put`], with further headers.
    pub async fn put_with(
        &self,
        container: &str,
        name: &str,
        bytes: impl Into<Bytes>,
        headers: &[(&'static str, &str)],
    ) {
        let headers = [headers, &[("x-ms-blob-type", "BlockBlob")]].concat();
        self.send_ok(&format!("{container}/{name}"), "", &headers, bytes.into()).await;
    }

    async fn send_ok(&self, path: &str, query: &str, headers: &[(&'static str, &str)], body: Bytes) {
        let Self { http, address, account, .. } = self;
        let answer = send(http, *address, account, Method::PUT, path, query, headers, body).await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{path}: {status}: {}", answer.text().await.unwrap_or_default());
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a request")]
async fn send(
    http: &reqwest::Client,
    address: SocketAddr,
    account: &Account,
    method: Method,
    path: &str,
    query: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> Result<reqwest::Response, String> {
    let path = utf8_percent_encode(path, &KEPT);
    let separator = if query.is_empty() { "" } else { "?" };
    let url = format!("http://{address}/{}/{path}{separator}{query}", account.name);
    let mut unsigned = HttpRequest::new(HttpRequestBody::empty());
    *unsigned.method_mut() = method.clone();
    *unsigned.uri_mut() = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let signed = unsigned.headers_mut();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        signed.insert(HeaderName::from_static(name), value);
    }
    signed.insert(CONTENT_LENGTH, body.len().into());
    signed.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let key = AzureAccessKey::try_new(&account.key_text()).map_err(|error| error.to_string())?;
    let credential = AzureCredential::AccessKey(key);
    AzureAuthorizer::new(&credential, &account.name).try_authorize(&mut unsigned).map_err(|error| error.to_string())?;
    let headers = std::mem::take(unsigned.headers_mut());
    let request = http.request(method, url).headers(headers).timeout(Duration::from_secs(120)).body(body);
    request.send().await.map_err(|error| format!("{error:?}"))
}
