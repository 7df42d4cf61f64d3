//! Hosts of the Internet, played by servers on loopback: for clients that take only URIs with the hosts' own names.
//!
//! ```text
//! client  --CONNECT host:443-->  proxy  --TLS, by a certificate of that name-->  its server, which speaks plain HTTP
//! ```
//!
//! Nothing is resolved: a client reaches the servers that the proxy knows, and no other.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::background::{Background, runtime};
use crate::http::Certificates;

/// Longest question to the proxy, in bytes.
const LONGEST_HEAD: usize = 8192;

/// A running proxy.
#[derive(Debug)]
pub struct Hosts {
    address: SocketAddr,
    ca_pem: String,
    _task: Background,
}

impl Hosts {
    /// Starts a proxy for hosts of these names (`*.example.org` for many), each with the address of its server.
    ///
    /// # Panics
    /// When there is no free port, and for what is no name.
    pub async fn start(hosts: &[(&str, SocketAddr)]) -> Self {
        let names: Vec<_> = hosts.iter().map(|(name, _)| *name).collect();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let ca_pem = Certificates::of(directory.path(), &names).ca_pem;
        let [chain, key] = [Certificates::CHAIN_FILE, Certificates::KEY_FILE].map(|file| directory.path().join(file));
        let chain = CertificateDer::pem_file_iter(chain).expect("it was just written");
        let key = PrivateKeyDer::from_pem_file(key).expect("it was just written");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().expect("it is PEM"), key)
            .expect("key and certificate go together");
        let tls = TlsAcceptor::from(Arc::new(config));
        let bound = runtime().spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = bound.await.expect("binding does not panic").expect("there are free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let servers: Arc<[_]> = hosts.iter().map(|(name, server)| ((*name).to_owned(), *server)).collect();
        let task = Background::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (tls, servers) = (tls.clone(), Arc::clone(&servers));
                // What a client breaks off is its own affair.
                runtime().spawn(async move { carry(client, &tls, &servers).await.ok() });
            }
        });
        Self { address, ca_pem, _task: task }
    }

    /// The proxy's URL, as `HTTPS_PROXY` names it.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The certificate of the CA that signed the hosts', as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

async fn carry(mut client: TcpStream, tls: &TlsAcceptor, servers: &[(String, SocketAddr)]) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LONGEST_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Byte by byte: what follows the head is TLS's.
        head.push(client.read_u8().await?);
    }
    let Some(server) = wanted(&head, servers) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut client = tls.accept(client).await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The server of the host that is asked for.
fn wanted(head: &[u8], servers: &[(String, SocketAddr)]) -> Option<SocketAddr> {
    let host = std::str::from_utf8(head).ok()?.strip_prefix("CONNECT ")?.split(':').next()?;
    let is = |name: &str| name.strip_prefix('*').map_or(host == name, |suffix| host.ends_with(suffix));
    servers.iter().find(|(name, _)| is(name)).map(|(_, server)| *server)
}
