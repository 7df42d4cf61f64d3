//! The scripted server sends what the script says, right or wrong, and remembers what it was asked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use modelmount_test_support::http::client;
use modelmount_test_support::script::{Response, ScriptedServer};

#[tokio::test]
async fn requests_are_numbered_and_recorded() {
    let server = ScriptedServer::start(|request| match request.number {
        0 => Response::new(503).header("retry-after", "1"),
        _ => Response::content(request, b"0123456789"),
    })
    .await;
    let get = || client().get(format!("{}/a%20b?x=1", server.url()));
    assert_eq!(get().send().await.unwrap().status(), 503);
    assert_eq!(get().send().await.unwrap().bytes().await.unwrap(), "0123456789");
    let part = get().header("Range", "bytes=3-5").bearer_auth("t0ken").body("hello").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap()), (206, Bytes::from("345")));
    assert_eq!(get().header("Range", "bytes=10-12").send().await.unwrap().status(), 416);
    let head = client().head(server.url()).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "10");
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    assert_eq!((&*requests[0].method, &*requests[0].target), ("GET", "/a%20b?x=1"));
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(requests[2].header("AUTHORIZATION"), Some("Bearer t0ken"));
    assert_eq!((requests[2].range(), &*requests[2].body), (Some((3, 5)), &b"hello"[..]));
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = ScriptedServer::start(|_| Response::new(200).body("x")).await;
    let proxy = modelmount_test_support::Proxy::start(server.address()).await;
    let client = client();
    for _ in 0..5 {
        client.get(proxy.url()).send().await.unwrap().bytes().await.unwrap();
    }
    assert_eq!((proxy.connections(), server.requests().len()), (1, 5));
}

#[tokio::test]
async fn bodies_end_as_wrongly_as_scripted() {
    let body = Bytes::from(vec![7; 1000]);
    let server = ScriptedServer::start(move |request| {
        let whole = Response::new(200).body(body.clone());
        let pieces = Response::new(200).header("transfer-encoding", "chunked").chunks([body.clone(), body.clone()]);
        match &*request.target {
            "/short" => whole.truncate_after(10),
            "/reset" => whole.reset_after(10),
            "/hang" => whole.hang_after(10),
            "/late" => whole.delay(Duration::from_millis(300)),
            "/liar" => whole.header("content-length", "999"),
            "/chunked" => pieces.pause(Duration::from_millis(300)),
            "/chunked-short" => pieces.truncate_after(1500),
            _ => Response::new(404),
        }
    })
    .await;
    let get = async |path: &str| {
        let request = client().get(format!("{}{path}", server.url())).timeout(Duration::from_secs(2));
        request.send().await?.bytes().await
    };
    let (short, reset) = (get("/short").await.unwrap_err(), get("/reset").await.unwrap_err());
    assert!(!short.is_timeout() && !reset.is_timeout(), "{short:?} {reset:?}");
    assert!(get("/hang").await.unwrap_err().is_timeout());
    assert_eq!(get("/liar").await.unwrap().len(), 999);
    assert!(get("/chunked-short").await.is_err());
    for (path, length) in [("/late", 1000), ("/chunked", 2000)] {
        let start = Instant::now();
        assert_eq!(get(path).await.unwrap().len(), length);
        assert!(start.elapsed() >= Duration::from_millis(300), "{path}");
    }
}
