//! The HTTP client that all network sources share: one pool of connections, one TLS set-up, one policy.
//!
//! Every address is checked against the [`Policy`] after name resolution, at the moment of connecting, so that a name
//! can't be rebound between check and use. Redirects are never followed here: a source that wants to follow one looks
//! at it first, since credentials belong to the host that they were given for.

#[cfg(feature = "s3")]
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
#[cfg(feature = "s3")]
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "s3")]
use crate::manifest::Digest;
use crate::policy::Policy;

#[allow(dead_code, reason = "each source uses some of it")]
pub(crate) mod authorization;
#[allow(dead_code, reason = "as above")]
pub(crate) mod body;
mod ca;
mod cooldown;
mod drip;
#[allow(dead_code, reason = "as above")]
mod follow;

#[cfg_attr(
    not(all(feature = "git", feature = "oci", feature = "huggingface")),
    allow(unused_imports, reason = "as above")
)]
pub(crate) use body::read_all;
pub use ca::CaCertificates;
use cooldown::Cooldowns;
#[cfg_attr(
    not(all(feature = "git", feature = "oci", feature = "huggingface")),
    allow(unused_imports, reason = "as above")
)]
pub(crate) use follow::{Arrival, Question};

/// A server that takes longer than this to accept a connection is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A transfer that brings no byte for so long has stalled: it is cut, and resumed on another connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are dropped before common servers and load balancers drop them (60 s and more).
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Clients that are kept for callers with authorities of their own.
#[cfg(feature = "s3")]
const MOST_TRUSTING: usize = 32;

/// A shared HTTP client; cloning it shares the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    policy: Arc<Policy>,
    /// What servers have asked of whoever has this client: see [`Self::apart`].
    cooldowns: Arc<Cooldowns>,
    #[cfg_attr(not(any(feature = "hdfs", feature = "s3")), allow(dead_code, reason = "for callers who bring others"))]
    authorities: CaCertificates,
    /// Clients that trust a caller's authorities too, by the digest of their PEM text.
    #[cfg(feature = "s3")]
    trusting: Arc<Mutex<BTreeMap<Digest, Self>>>,
}

impl HttpClient {
    /// A client under `policy` that trusts the system's authorities and `authorities`.
    ///
    /// The usual variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` are honoured. A proxy resolves names itself, so
    /// that the policy sees an address only where the URL has one: what names may lead to is then the proxy's affair.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] when a certificate of `authorities` is refused, or the machine trusts none at
    /// all.
    pub fn new(policy: &Policy, authorities: &CaCertificates) -> Result<Self> {
        let (policy, authorities) = (Arc::new(policy.clone()), authorities.clone());
        let client = build(&policy, &authorities, None).map_err(|error| {
            let root = Root(deepest(&error));
            Error::with_source(ErrorKind::FailedPrecondition, "can't set up TLS: check the CA certificates", root)
        })?;
        Ok(Self::of(client, policy, authorities))
    }

    fn of(client: reqwest::Client, policy: Arc<Policy>, authorities: CaCertificates) -> Self {
        Self {
            client,
            policy,
            cooldowns: Arc::default(),
            authorities,
            #[cfg(feature = "s3")]
            trusting: Arc::default(),
        }
    }

    /// The same connections for another caller, who is not concerned by what servers have asked of this one.
    pub(crate) fn apart(&self) -> Self {
        Self { cooldowns: Arc::default(), ..self.clone() }
    }

    /// The client for callers who trust the authorities in this PEM text too: the same one each time, so that a publish
    /// pays neither for setting up TLS nor for a new handshake.
    ///
    /// # Errors
    /// What is wrong with the text, as a clause.
    #[cfg(feature = "s3")]
    pub(crate) fn trusting(&self, pem: &str) -> std::result::Result<Self, &'static str> {
        let mut trusting = self.trusting.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = Digest::of(pem);
        let own = |client: &Self| Self { cooldowns: Arc::clone(&self.cooldowns), ..client.clone() };
        if let Some(client) = trusting.get(&digest) {
            return Ok(own(client));
        }
        let authorities = self.authorities.clone().and(CaCertificates::from_pem(pem.as_bytes())?);
        let client = build(&self.policy, &authorities, None).map_err(|_| "holds a certificate that is refused")?;
        let client = Self::of(client, Arc::clone(&self.policy), authorities);
        // Whoever brings ever new texts gets no more memory for it.
        if trusting.len() >= MOST_TRUSTING {
            trusting.clear();
        }
        let client = trusting.entry(digest).or_insert(client);
        Ok(own(client))
    }

    /// A client of its own, for a caller who brought TLS settings: it trusts `authorities` too, and shows a client
    /// certificate. Everything else is as before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the certificates are refused.
    #[cfg(feature = "hdfs")]
    pub(crate) fn with_tls(&self, authorities: CaCertificates, identity: Option<reqwest::Identity>) -> Result<Self> {
        let authorities = self.authorities.clone().and(authorities);
        let client = build(&self.policy, &authorities, identity).map_err(|error| {
            let root = Root(deepest(&error));
            Error::with_source(ErrorKind::InvalidArgument, "can't set up TLS: check the Secret's certificates", root)
        })?;
        Ok(Self::of(client, Arc::clone(&self.policy), authorities))
    }

    /// Sends one request and returns the answer's head, whatever its status. Its body ends in an error when it drips.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] when the policy refuses the host's address, else [`ErrorKind::Unavailable`]; also
    /// without asking, while the server asks not to be asked.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response> {
        // A literal address is never given to the resolver.
        let literal = match request.url().host() {
            Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
            Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
            _ => None,
        };
        if let Some(address) = literal {
            self.policy.check_address(request.url().host_str().unwrap_or_default(), address)?;
        }
        self.cooldowns.check(request.url(), Instant::now())?;
        let url = request.url().clone();
        let answer = self.client.execute(request).await.map_err(|error| network_error(&origin_text(&url), error))?;
        self.cooldowns.note(&url, answer.status(), answer.headers(), Instant::now());
        Ok(drip::cut(answer))
    }
}

fn build(
    policy: &Arc<Policy>,
    authorities: &CaCertificates,
    identity: Option<reqwest::Identity>,
) -> reqwest::Result<reqwest::Client> {
    // A process has one default provider; that another library has installed one already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("modelmount/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(CheckedResolver { policy: Arc::clone(policy) })
        // Parallel ranges want a connection each; HTTP/2 would put them all on one.
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .tls_certs_merge(authorities.certificates());
    match identity {
        Some(identity) => builder.identity(identity).build(),
        None => builder.build(),
    }
}

/// `scheme://host:port` of a URL: all of it that may be shown.
pub(crate) fn origin_text(url: &url::Url) -> String {
    url.origin().ascii_serialization()
}

/// What a failed request or a broken body means.
pub(crate) fn network_error(host: &str, error: reqwest::Error) -> Error {
    if let Some(refusal) = cause::<Error>(&error) {
        return Error::new(refusal.kind(), refusal.report());
    }
    let problem = if error.is_timeout() && error.is_connect() {
        format!("{host} does not accept connections")
    } else if error.is_timeout() {
        format!("{host} has sent nothing for {} s", IDLE_TIMEOUT.as_secs())
    } else if error.is_connect() {
        format!("can't connect to {host}")
    } else {
        format!("the connection to {host} broke")
    };
    Error::with_source(ErrorKind::Unavailable, problem, Root(deepest(&error)))
}

/// The first error of this type in a chain.
pub(crate) fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The text at the bottom of a chain: the operating system's or the TLS library's own words.
pub(crate) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    bottom.to_string()
}

/// An error that is only text: the layers between would repeat the URL, query included.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Root(pub(crate) String);

#[derive(Debug)]
struct CheckedResolver {
    policy: Arc<Policy>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| {
                Error::with_source(ErrorKind::Unavailable, format!("the name {host} does not resolve"), error)
            })?;
            let mut refusal = None;
            let mut allowed: Vec<SocketAddr> = Vec::new();
            for address in found {
                match policy.check_address(host, address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refusal = Some(error),
                }
            }
            match refusal {
                // Only addresses that were checked are ever connected to; refused ones are left out.
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
