//! A client of the plugin's pages that says exactly what it sends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Kubelet's probes wait for a second by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines, in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a metric, by its name and labels as they are written.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let values = self.body.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.map(|value| value.parse().unwrap()).next()
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await.expect("an answer")
}

/// Sends this and reads until the connection ends; `None` when nothing was answered.
pub(crate) async fn send(address: SocketAddr, request: &str) -> Option<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server may have refused before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    };
    let text = tokio::time::timeout(PATIENCE, exchange).await.expect("an end within seconds");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines().map(str::to_lowercase);
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    Some(Answer { status, headers: lines.collect(), body: body.to_owned() })
}
