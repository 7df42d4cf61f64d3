//! A small HTTP/1.1 server for probes and scrapes: GET and HEAD of a few pages that are made from memory.
//!
//! Its port is open to whoever reaches the node, so everything is bounded: the bytes of a request's head, the time that a
//! connection may last, and the number of connections. When there are too many, the oldest goes: whoever holds
//! connections open, on purpose or not, does not keep kubelet's probe out, which is answered within milliseconds.
//!
//! Knows nothing of the pages.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections at the same time. Kubelet and Prometheus have one each.
const CONNECTIONS: usize = 32;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// Largest head of a request, in bytes; hyper's smallest.
const HEAD: usize = 8192;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How long a connection may last. Each serves one request.
const LIFETIME: Duration = Duration::from_secs(15);
/// How long to wait before accepting again after the system has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen: `ADDRESS:PORT`, or `:PORT` for all addresses of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    address: Option<IpAddr>,
    port: u16,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = text.strip_prefix(':').and_then(|port| port.parse().ok());
        match (all, text.parse::<SocketAddr>()) {
            (Some(port), _) => Ok(Self { address: None, port }),
            (None, Ok(address)) => Ok(Self { address: Some(address.ip()), port: address.port() }),
            (None, Err(_)) => {
                Err("is not an address to listen on such as :9808, 127.0.0.1:9808 or [::1]:9808".to_owned())
            }
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, ":{}", self.port),
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
        }
    }
}

/// Nobody can be served there.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: is the port in use, or the address not one of this machine?")]
pub struct ListenError {
    address: ListenAddress,
    #[source]
    source: io::Error,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its text.
    pub text: String,
}

impl Page {
    /// Plain text, ended by a line break.
    pub fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self { status, content_type: "text/plain; charset=utf-8", text }
    }
}

/// What there is to be read.
#[tonic::async_trait]
pub trait Pages: Send + Sync + 'static {
    /// The page at `path`, if there is one.
    async fn page(&self, path: &str) -> Option<Page>;
}

/// A port on which clients can connect already, and wait.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// Starts to listen. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address is in use, or is none of this machine's.
    pub fn bind(address: ListenAddress) -> Result<Self, ListenError> {
        let result = match address.address {
            Some(ip) => listen(SocketAddr::new(ip, address.port)),
            None => listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port)).or_else(|error| {
                if without_ipv6(&error) {
                    listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port))
                } else {
                    Err(error)
                }
            }),
        };
        result.map(|listener| Self { listener }).map_err(|source| ListenError { address, source })
    }

    /// The address, with the port that the system chose if it was given as 0.
    ///
    /// # Errors
    /// The system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `pages` until it is dropped.
    pub async fn serve(self, pages: Arc<dyn Pages>) {
        let mut open = VecDeque::new();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                // Usually too many open files. That passes.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            open.retain(|connection: &Connection| !connection.0.is_finished());
            if open.len() >= CONNECTIONS {
                open.pop_front();
            }
            open.push_back(Connection(tokio::spawn(converse(stream, Arc::clone(&pages)))));
        }
    }
}

/// A connection, closed when dropped.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // IPv4 as well, whatever the system's default (net.ipv6.bindv6only) is.
        set_ipv6_v6only(&socket, false)?;
    }
    // Connections of a process that has just ended don't keep the next one from listening.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the machine has no IPv6: not built in, or switched off.
fn without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

async fn converse(stream: TcpStream, pages: Arc<dyn Pages>) {
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&request, &*pages).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).keep_alive(false).max_buf_size(HEAD).max_headers(HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // What clients do wrong, and that they go away, concerns nobody here.
    let _ = tokio::time::timeout(LIFETIME, connection).await;
}

async fn answer(request: &Request<Incoming>, pages: &dyn Pages) -> Response<Full<Bytes>> {
    let page = if matches!(*request.method(), Method::GET | Method::HEAD) {
        let page = pages.page(request.uri().path()).await;
        page.unwrap_or_else(|| Page::plain(StatusCode::NOT_FOUND, "there is no such page"))
    } else {
        Page::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are possible")
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in [":9808", "127.0.0.1:9808", "[::1]:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "9808", ":", ":99999", "localhost:1", "127.0.0.1", "::1:1x", "[::1]"] {
            assert!(text.parse::<ListenAddress>().unwrap_err().contains(":9808"), "{text}");
        }
    }

    #[tokio::test]
    async fn without_an_address_both_families_are_served() {
        let server = HttpServer::bind(":0".parse().unwrap()).unwrap();
        let port = server.local_address().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            if address.is_ipv4() || listen(SocketAddr::new(address, 0)).is_ok() {
                TcpStream::connect((address, port)).await.unwrap();
            }
        }
        let taken = HttpServer::bind(format!("127.0.0.1:{port}").parse().unwrap());
        assert!(taken.is_err_and(|error| error.to_string().contains(&format!("127.0.0.1:{port}"))));
    }

    #[test]
    fn a_machine_without_ipv6_is_told_from_a_port_in_use() {
        let because = |code| without_ipv6(&io::Error::from_raw_os_error(code));
        assert!(because(libc::EAFNOSUPPORT) && because(libc::EADDRNOTAVAIL));
        assert!(!because(libc::EADDRINUSE) && !because(libc::EACCES));
    }
}
