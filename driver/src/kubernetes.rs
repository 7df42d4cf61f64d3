//! A thin client of the Kubernetes API, for a process that runs in a pod: GET and JSON Patch, nothing else.
//!
//! It does not watch and does not cache. Nothing that a publish needs comes from here, so that a node goes on mounting
//! while the API server is down, and a hundred nodes that start at once do not ask it a hundred questions.
//!
//! Address, certificate authority and token are those that kubelet gives to every pod. The last two are read for each
//! request, because both are replaced while the process runs. No proxy of the environment is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Method, Request, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod error;

pub use error::{ApiError, ApiErrorKind};

/// Where kubelet puts a pod's credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An API server that takes longer is overloaded: asking again later is better for both sides.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any object has: etcd takes 1.5 MiB by default.
const MAX_BODY: usize = 8 << 20;

/// Where the API server is, and who asks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its address, for instance `https://10.96.0.1:443`. Only that of a test server begins with `http://`.
    pub server: Url,
    /// The directory with `ca.crt` and `token`.
    pub service_account: PathBuf,
}

impl Config {
    /// What kubelet tells every pod.
    ///
    /// # Errors
    /// [`ApiErrorKind::NotConfigured`] outside of a pod.
    pub fn in_cluster() -> Result<Self, ApiError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from_variables(variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
    }

    fn from_variables(host: Option<String>, port: Option<String>) -> Result<Self, ApiError> {
        let (Some(host), Some(port)) = (host, port) else {
            let text = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is not a pod";
            return Err(ApiError::new(ApiErrorKind::NotConfigured, text));
        };
        // An IPv6 address comes without the brackets that a URL wants.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let server = Url::parse(&format!("https://{host}:{port}")).map_err(|error| {
            let text = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT make no address";
            ApiError::with_source(ApiErrorKind::NotConfigured, text, error)
        })?;
        Ok(Self { server, service_account: PathBuf::from(SERVICE_ACCOUNT) })
    }
}

/// One step of a JSON Patch (RFC 6902). Either all steps of a patch are done, or none.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Step {
    /// Go on only if there is this value.
    Test {
        /// JSON Pointer to it.
        path: String,
        /// The value.
        value: Value,
    },
    /// Take something away.
    Remove {
        /// JSON Pointer to it.
        path: String,
    },
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Client {
    config: Config,
    /// The connections, and the certificate authority that they were made with.
    connections: Mutex<Option<(Vec<u8>, reqwest::Client)>>,
}

impl Client {
    /// A client. Does no I/O.
    pub fn new(config: Config) -> Self {
        // A process has one default provider; that another library has installed one already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { config, connections: Mutex::default() }
    }

    /// Reads an object as it is now.
    ///
    /// # Errors
    /// See [`ApiErrorKind`].
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ApiError> {
        self.send(Request::new(Method::GET, self.url(path)?)).await
    }

    /// Reads an object as it was a moment ago, from the API server's own cache, which costs etcd nothing.
    ///
    /// # Errors
    /// See [`ApiErrorKind`].
    pub async fn get_cached<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ApiError> {
        let mut url = self.url(path)?;
        url.set_query(Some("resourceVersion=0"));
        self.send(Request::new(Method::GET, url)).await
    }

    /// Changes an object, and returns it.
    ///
    /// # Errors
    /// See [`ApiErrorKind`]; [`ApiErrorKind::Conflict`] when a [`Step::Test`] failed.
    pub async fn patch<T: DeserializeOwned>(&self, path: &[&str], steps: &[Step]) -> Result<T, ApiError> {
        let body = serde_json::to_vec(steps)
            .map_err(|error| ApiError::with_source(ApiErrorKind::Unexpected, "can't write a patch", error))?;
        let mut request = Request::new(Method::PATCH, self.url(path)?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json-patch+json"));
        *request.body_mut() = Some(body.into());
        self.send(request).await
    }

    fn url(&self, path: &[&str]) -> Result<Url, ApiError> {
        let mut url = self.config.server.clone();
        match url.path_segments_mut() {
            // What has a meaning in a URL is escaped: a name never leads to another object.
            Ok(mut segments) => drop(segments.clear().extend(path)),
            Err(()) => return Err(ApiError::new(ApiErrorKind::NotConfigured, "the API server's address has no path")),
        }
        Ok(url)
    }

    async fn send<T: DeserializeOwned>(&self, mut request: Request) -> Result<T, ApiError> {
        let what = format!("{} {}", request.method(), request.url().path());
        let client = self.connected().map_err(|error| error.within(&what))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, self.authorization().map_err(|error| error.within(&what))?);
        let answer = client.execute(request).await.map_err(|error| ApiError::network(&what, error))?;
        let status = answer.status();
        let body = body(answer, &what).await?;
        if !status.is_success() {
            return Err(ApiError::refusal(&what, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("{what}: the answer is not the object that was asked for");
            ApiError::with_source(ApiErrorKind::Unexpected, text, error)
        })
    }

    /// Connections that trust the authority of this moment.
    fn connected(&self) -> Result<reqwest::Client, ApiError> {
        let authority = match self.config.server.scheme() {
            "http" => Vec::new(),
            _ => self.read("ca.crt")?,
        };
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        match &*connections {
            Some((known, client)) if *known == authority => Ok(client.clone()),
            _ => {
                let client = connect(&authority).map_err(|error| {
                    ApiError::with_source(ApiErrorKind::NotConfigured, "ca.crt can't be used", error)
                })?;
                *connections = Some((authority, client.clone()));
                Ok(client)
            }
        }
    }

    fn authorization(&self) -> Result<HeaderValue, ApiError> {
        let token = self.read("token")?;
        let value = [&b"Bearer "[..], token.trim_ascii()].concat();
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|_| ApiError::new(ApiErrorKind::NotConfigured, "the service account's token is not a token"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Reads one of the service account's files, which lie in memory.
    fn read(&self, name: &str) -> Result<Vec<u8>, ApiError> {
        let path: &Path = &self.config.service_account.join(name);
        fs::read(path).map_err(|error| {
            let text = format!("can't read {}: is automountServiceAccountToken off?", path.display());
            ApiError::with_source(ApiErrorKind::NotConfigured, text, error)
        })
    }
}

fn connect(authority: &[u8]) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("modelmount/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(Certificate::from_pem_bundle(authority)?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .timeout(TIMEOUT)
        .build()
}

async fn body(mut answer: Response, what: &str) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| ApiError::network(what, error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(ApiError::new(
                ApiErrorKind::Unexpected,
                format!("{what}: the answer is larger than any object"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
