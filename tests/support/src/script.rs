//! A scripted HTTP/1.1 server, for what no real server does on demand: wrong lengths, bodies that end too early, answers
//! that never come.
//!
//! Bytes are written by hand instead of through a server library, which would put right what must stay wrong.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::background::{Background, runtime};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// How many requests the server had before this one.
    pub number: usize,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its headers, in order, as they were written.
    pub headers: Vec<(String, String)>,
    /// Its body, if its length was declared.
    pub body: Bytes,
}

impl Request {
    /// A header's value, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The two ends of a `Range: bytes=<first>-<last>`, the last one included.
    pub fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Bytes>,
    delay: Duration,
    pause: Duration,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    KeepAlive,
    Truncate { after: usize, reset: bool },
    Hang { after: usize },
}

impl Response {
    /// A response without a body.
    pub fn new(status: u16) -> Self {
        let (delay, pause) = (Duration::ZERO, Duration::ZERO);
        Self { status, headers: Vec::new(), chunks: Vec::new(), delay, pause, end: End::KeepAlive }
    }

    /// The whole of `content`, or what the request's `Range` asks of it as a 206.
    pub fn content(request: &Request, content: &[u8]) -> Self {
        let Some((first, last)) = request.range() else { return Self::new(200).body(content.to_vec()) };
        let end = content.len().min(last as usize + 1);
        let part = content.get(first as usize..end).unwrap_or_default();
        if part.is_empty() {
            return Self::new(416).header("content-range", format!("bytes */{}", content.len()));
        }
        let last = end - 1;
        let range = format!("bytes {first}-{last}/{}", content.len());
        Self::new(206).header("content-range", range).body(part.to_vec())
    }

    /// Adds a header. `Content-Length` is the body's real length unless given here; with `Transfer-Encoding: chunked`,
    /// each of [`Self::chunks`] becomes a chunk.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.chunks([body.into()])
    }

    /// Sets the body, to be sent in these pieces.
    #[must_use]
    pub fn chunks(mut self, chunks: impl IntoIterator<Item = Bytes>) -> Self {
        self.chunks = chunks.into_iter().collect();
        self
    }

    /// Waits before the first byte of the answer.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits between the pieces of the body.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Closes the connection in good order after so many bytes of the body, whatever length was declared.
    #[must_use]
    pub fn truncate_after(mut self, bytes: usize) -> Self {
        self.end = End::Truncate { after: bytes, reset: false };
        self
    }

    /// Resets the connection after so many bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.end = End::Truncate { after: bytes, reset: true };
        self
    }

    /// Sends so many bytes of the body, then nothing, and keeps the connection open.
    #[must_use]
    pub fn hang_after(mut self, bytes: usize) -> Self {
        self.end = End::Hang { after: bytes };
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = find(&self.headers, "content-length").is_some();
        if !has_length && !self.is_chunked() && self.has_body() {
            let length: usize = self.chunks.iter().map(Bytes::len).sum();
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head + "\r\n"
    }

    fn is_chunked(&self) -> bool {
        find(&self.headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn has_body(&self) -> bool {
        self.status >= 200 && self.status != 204 && self.status != 304
    }
}

type Script = dyn Fn(&Request) -> Response + Send + Sync;

/// A running scripted server. When dropped, its connections are closed.
#[derive(Debug)]
pub struct ScriptedServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _task: Background,
}

impl ScriptedServer {
    /// Starts a server that answers every request with what `script` makes of it.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let bound = runtime().spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = bound.await.expect("binding does not panic").expect("there are free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::default());
        let (script, record): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&requests));
        let task = Background::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                // A connection's failure is its client's to notice.
                connections.spawn(async move { converse(socket, &*script, &record).await.unwrap_or_default() });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, requests, _task: task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in the order in which they came.
    ///
    /// # Panics
    /// When a script has panicked.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn converse(socket: TcpStream, script: &Script, record: &Mutex<Vec<Request>>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = BufReader::new(socket);
    while let Some(mut request) = read_request(&mut stream).await? {
        {
            let mut record = record.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            request.number = record.len();
            record.push(request.clone());
        }
        let response = script(&request);
        tokio::time::sleep(response.delay).await;
        stream.write_all(response.head().as_bytes()).await?;
        let room = match response.end {
            End::KeepAlive => usize::MAX,
            End::Truncate { after, .. } | End::Hang { after } => after,
        };
        if request.method != "HEAD" && response.has_body() {
            write_body(&mut stream, &response, room).await?;
        }
        stream.flush().await?;
        match response.end {
            End::KeepAlive => {}
            End::Truncate { reset: false, .. } => return stream.shutdown().await,
            End::Truncate { reset: true, .. } => return stream.get_ref().set_zero_linger(),
            End::Hang { .. } => std::future::pending().await,
        }
    }
    Ok(())
}

async fn write_body(stream: &mut BufReader<TcpStream>, response: &Response, mut room: usize) -> io::Result<()> {
    for (i, chunk) in response.chunks.iter().enumerate() {
        if i > 0 {
            stream.flush().await?;
            tokio::time::sleep(response.pause).await;
        }
        let part = &chunk[..chunk.len().min(room)];
        if response.is_chunked() {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        }
        stream.write_all(part).await?;
        room -= part.len();
        if part.len() < chunk.len() {
            return Ok(());
        }
        if response.is_chunked() {
            stream.write_all(b"\r\n").await?;
        }
    }
    if response.is_chunked() && room > 0 {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// The next request of a connection; `None` at its end.
async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<_> =
        lines.filter_map(|line| line.split_once(':').map(|(name, value)| (name.into(), value.trim().into()))).collect();
    let length = find(&headers, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { number: 0, method, target, headers, body: body.into() }))
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}
