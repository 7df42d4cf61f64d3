//! The proxy counts and does to connections what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use modelmount_test_support::{Proxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

/// A server that answers each byte with `factor` bytes.
async fn multiplier(factor: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(byte) = socket.read_u8().await {
                    if socket.write_all(&vec![byte; factor]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_and_connections_are_counted() {
    let proxy = Proxy::start(multiplier(1000).await).await;
    for _ in 0..2 {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"xyz").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 3000);
    }
    assert_eq!((proxy.sent(), proxy.received(), proxy.connections()), (6, 6000, 2));
    eventually("both connections to be closed", SOON, || proxy.open_connections() == 0).await;
}

#[tokio::test]
async fn the_limit_is_for_all_connections_and_can_be_lifted() {
    let proxy = Proxy::start(multiplier(50_000).await).await;
    proxy.throttle(100_000);
    let start = Instant::now();
    let fetch = async || {
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut vec![0; 50_000]).await.unwrap();
    };
    tokio::join!(fetch(), fetch());
    let took = start.elapsed();
    assert!((0.8..3.0).contains(&took.as_secs_f64()), "100 kB at 100 kB/s took {took:?}");
    proxy.throttle(1_000);
    let slow = fetch();
    let lifted = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.throttle(None);
    };
    tokio::time::timeout(SOON, async { tokio::join!(slow, lifted) }).await.expect("50 s without the lift");
}

#[tokio::test]
async fn cut_connections_are_reset_and_new_ones_work() {
    let proxy = Proxy::start(multiplier(1).await).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_u8(1).await.unwrap();
    client.read_u8().await.unwrap();
    proxy.cut().await;
    assert_eq!(proxy.open_connections(), 0);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_u8(2).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 2);
    let address = proxy.address();
    drop(proxy);
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually("the port to be closed", SOON, || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn refused_clients_are_told_and_open_connections_go_on() {
    let proxy = Proxy::start(multiplier(1).await).await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    old.write_u8(1).await.unwrap();
    old.read_u8().await.unwrap();
    for _ in 0..3 {
        proxy.refuse(true).await;
        proxy.refuse(true).await;
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        old.write_u8(7).await.unwrap();
        assert_eq!(old.read_u8().await.unwrap(), 7);
        proxy.refuse(false).await;
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        new.write_u8(8).await.unwrap();
        assert_eq!(new.read_u8().await.unwrap(), 8);
    }
}

#[tokio::test]
async fn a_stall_is_silence_and_ends() {
    let proxy = Proxy::start(multiplier(1).await).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.stall(true);
    client.write_u8(1).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!((proxy.sent(), proxy.open_connections()), (0, 1));
    proxy.stall(false);
    assert_eq!(client.read_u8().await.unwrap(), 1);
    proxy.stall(true);
    proxy.cut().await;
    assert_eq!(client.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dead_upstream_is_a_reset() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(nowhere).await;
    // The reset may be there before the client has looked at its new connection.
    let reset = async { TcpStream::connect(proxy.address()).await?.read_u8().await };
    assert_eq!(reset.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
