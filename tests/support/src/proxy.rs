//! A TCP proxy in front of any server: what the network does to a connection, on demand.
//!
//! It knows nothing of what it carries, so that it works for TLS too. Clients use its address as the endpoint; an S3
//! signature covers the `Host` that the client sent, so that it stays valid.
//!
//! The kernel's buffers lie between the proxy and both ends: some hundred kilobytes per connection may have been counted
//! and not yet have been read by the client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::background::{Background, runtime};

/// What is forwarded at once, at most.
const PIECE: usize = 64 << 10;
/// The kernel's send buffer towards clients: small enough that counts and throttling are near what clients see.
const SEND_BUFFER: u32 = 256 << 10;

/// A running proxy. Everything may be changed while connections are open. When dropped, they are reset.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::sync::Mutex<Option<Background>>,
    // Bound and never listening: keeps the port ours while connections are refused.
    _reservation: TcpSocket,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    sent: AtomicU64,
    received: AtomicU64,
    connections: AtomicU64,
    /// For each open connection, how many cuts there had been before it.
    open: watch::Sender<Vec<u64>>,
    control: watch::Sender<Control>,
    next_send: Mutex<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Control {
    bytes_per_second: Option<u64>,
    stalled: bool,
    /// How often connections were cut.
    cuts: u64,
}

impl Proxy {
    /// Starts a proxy on a free loopback port in front of `upstream`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(upstream: SocketAddr) -> Self {
        let reservation = reusable_socket((Ipv4Addr::LOCALHOST, 0).into()).expect("there are free ports");
        let address = reservation.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream,
            sent: AtomicU64::default(),
            received: AtomicU64::default(),
            connections: AtomicU64::default(),
            open: watch::Sender::default(),
            control: watch::Sender::default(),
            next_send: Mutex::new(Instant::now()),
        });
        let proxy = Self { address, shared, listening: tokio::sync::Mutex::default(), _reservation: reservation };
        proxy.refuse(false).await;
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for a plain HTTP upstream, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes forwarded from clients to the server.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Bytes forwarded from the server to clients, heads of responses included.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.borrow().len() as u64
    }

    /// Limits all connections together, both directions; `None` lifts the limit.
    ///
    /// # Panics
    /// For zero bytes per second: that is [`Self::stall`].
    pub fn throttle(&self, bytes_per_second: impl Into<Option<u64>>) {
        let bytes_per_second = bytes_per_second.into();
        assert!(bytes_per_second != Some(0), "nothing per second is a stall");
        // What was planned at the old rate is forgotten.
        *self.shared.next_send.lock().unwrap() = Instant::now();
        self.shared.control.send_modify(|control| control.bytes_per_second = bytes_per_second);
    }

    /// Stops forwarding, or goes on, without closing anything. New connections are accepted and get nothing.
    pub fn stall(&self, stalled: bool) {
        self.shared.control.send_modify(|control| control.stalled = stalled);
    }

    /// Resets all connections that are open now, and returns when they are; new ones work.
    pub async fn cut(&self) {
        let mut cuts = 0;
        self.shared.control.send_modify(|control| {
            control.cuts += 1;
            cuts = control.cuts;
        });
        // A client may have connected anew by now: those connections are none of this cut's.
        let all_newer = |open: &Vec<u64>| open.iter().all(|born| *born >= cuts);
        self.shared.open.subscribe().wait_for(all_newer).await.ok();
    }

    /// Refuses new connections (`ECONNREFUSED`), or accepts them again. Open ones are left alone. In effect on return.
    ///
    /// # Panics
    /// When the port can't be listened on again.
    pub async fn refuse(&self, refused: bool) {
        let mut listening = self.listening.lock().await;
        match (refused, listening.take()) {
            (true, Some(listener)) => listener.stop().await,
            (false, None) => {
                let (address, shared) = (self.address, Arc::clone(&self.shared));
                let bound = runtime().spawn(async move { reusable_socket(address)?.listen(1024) });
                let listener = bound.await.expect("binding does not panic").expect("the port is reserved");
                *listening = Some(Background::spawn(accept(listener, shared)));
            }
            (_, unchanged) => *listening = unchanged,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Reset, not closed: what a client sees of a machine that goes down.
        self.shared.control.send_modify(|control| control.cuts += 1);
        self.listening.get_mut().take();
    }
}

fn reusable_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it from the listening one.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        // Read before anything else, so that a cut from now on is noticed.
        let control = shared.control.subscribe();
        let born = control.borrow().cuts;
        shared.open.send_modify(|open| open.push(born));
        runtime().spawn(carry(client, born, control, Arc::clone(&shared)));
    }
}

async fn carry(client: TcpStream, born: u64, control: watch::Receiver<Control>, shared: Arc<Shared>) {
    forward(client, born, control, &shared).await;
    shared.open.send_modify(|open| {
        let found = open.iter().position(|other| *other == born);
        open.swap_remove(found.expect("an open connection is listed"));
    });
}

/// Forwards until both directions are done, one fails, or the connection is cut.
async fn forward(mut client: TcpStream, born: u64, control: watch::Receiver<Control>, shared: &Shared) {
    let cut = was_cut(born, control.clone());
    tokio::pin!(cut);
    let connected = tokio::select! {
        connected = TcpStream::connect(shared.upstream) => connected,
        () = &mut cut => Err(io::ErrorKind::ConnectionReset.into()),
    };
    // A socket with zero linger is reset when dropped: a failure must not look like an orderly end.
    let Ok(mut server) = connected else {
        client.set_zero_linger().ok();
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let done = {
        // Borrowed halves: owned ones say an orderly goodbye when dropped.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                copy(from_client, to_server, &shared.sent, control.clone(), shared),
                copy(from_server, to_client, &shared.received, control.clone(), shared),
            )
        };
        tokio::select! {
            done = both => done.is_ok(),
            () = &mut cut => false,
        }
    };
    if !done {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    count: &AtomicU64,
    mut control: watch::Receiver<Control>,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let limit = control.borrow().bytes_per_second;
        let length = limit.map_or(PIECE, |rate| (rate / 50).clamp(1, PIECE as u64) as usize);
        let length = from.read(&mut buffer[..length]).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        pace(length, &mut control, shared).await;
        // Counted first: whoever has bytes finds them counted.
        count.fetch_add(length as u64, Ordering::SeqCst);
        to.write_all(&buffer[..length]).await?;
    }
}

/// Returns when `length` more bytes may be forwarded.
async fn pace(length: usize, control: &mut watch::Receiver<Control>, shared: &Shared) {
    loop {
        let Control { bytes_per_second, stalled, .. } = *control.borrow_and_update();
        if stalled {
            control.changed().await.ok();
            continue;
        }
        let Some(rate) = bytes_per_second else { return };
        let turn = {
            let mut next_send = shared.next_send.lock().unwrap();
            // What was not used in the past is not saved up.
            let turn = (*next_send).max(Instant::now());
            *next_send = turn + Duration::from_secs_f64(length as f64 / rate as f64);
            turn
        };
        tokio::select! {
            () = tokio::time::sleep_until(turn) => return,
            // Another rate, or a stall: plan again.
            _ = control.changed() => {}
        }
    }
}

async fn was_cut(born: u64, mut control: watch::Receiver<Control>) {
    control.wait_for(|control| control.cuts != born).await.ok();
}
