//! The pages that kubelet's probes of the container read.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use modelmount_test_support::Process;
use modelmount_test_support::wait::{eventually, until};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{MODELMOUNT, PORTS, Plugin, SOON, port};
use crate::page::{get, send};

#[tokio::test]
async fn pages_are_served_as_http_wants_it() {
    let plugin = Plugin::start(&PORTS).await;
    let health = plugin.port("health");
    // Without registration of its own it is ready by itself.
    for path in ["/healthz", "/readyz", "/readyz?verbose"] {
        let page = get(health, path).await;
        assert_eq!((page.status, page.body.as_str()), (200, "ok\n"), "{path}");
        assert!(page.headers.contains(&"content-type: text/plain; charset=utf-8".to_owned()), "{page:?}");
    }
    let head = send(health, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.headers.contains(&"content-length: 3".to_owned()), "{head:?}");
    for path in ["/", "/metrics", "/healthz/", "/healthz/../readyz", "/HEALTHZ"] {
        assert_eq!(get(health, path).await.status, 404, "{path}");
    }
    assert_eq!(get(plugin.port("metrics"), "/healthz").await.status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let page = send(health, &format!("{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        assert!(page.status == 405 && page.headers.contains(&"allow: get, head".to_owned()), "{method}: {page:?}");
    }
}

#[tokio::test]
async fn liveness_is_for_what_a_restart_cures() {
    let plugin = Plugin::start(&PORTS).await;
    let health = plugin.port("health");
    // What can't be written, for root neither: a directory where a file should be.
    fs::create_dir(plugin.cache().join("trash/probe")).unwrap();
    let page = until("readiness to end", SOON, async || {
        let page = get(health, "/readyz").await;
        (page.status != 200).then_some(page)
    })
    .await;
    assert!(page.status == 503 && page.body.contains("can't be written"), "{page:?}");
    assert_eq!(get(plugin.port("metrics"), "/metrics").await.value("modelmount_cache_writable"), Some(0.0));
    assert_eq!(get(health, "/healthz").await.status, 200);

    fs::remove_file(plugin.socket()).unwrap();
    let page = get(health, "/healthz").await;
    assert!(page.status == 503 && page.body.contains("csi.sock"), "{page:?}");
}

#[tokio::test]
async fn a_disk_that_hangs_is_told_and_keeps_nobody_from_stopping() {
    let mut plugin = Plugin::start(&PORTS).await;
    // Nobody reads it: who opens it to write waits, as for a disk that does not answer.
    mkfifo(&plugin.cache().join("trash/probe"), Mode::S_IRWXU).unwrap();
    let health = plugin.port("health");
    let page = until("readiness to end", SOON, async || {
        let page = get(health, "/readyz").await;
        (page.status != 200).then_some(page)
    })
    .await;
    assert!(page.status == 503 && page.body.contains("stopped answering"), "{page:?}");
    assert_eq!(get(health, "/healthz").await.status, 200);
    assert!(plugin.terminate().await.success());
}

#[tokio::test]
async fn a_stranger_keeps_nobody_out() {
    let plugin = Plugin::start(&PORTS).await;
    let health = plugin.port("health");
    let open = || fs::read_dir(format!("/proc/{}/fd", plugin.pid())).unwrap().count();
    let before = open();
    // Silent ones, slow ones, and ones that never end their headers.
    let mut held = Vec::new();
    for i in 0..300 {
        let mut stream = TcpStream::connect(health).await.unwrap();
        if i % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.unwrap();
        }
        held.push(stream);
        if i % 50 == 0 {
            let asked = Instant::now();
            assert_eq!(get(health, "/healthz").await.status, 200);
            // Kubelet waits for a second.
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        }
    }
    eventually("connections to be closed", SOON, || open() <= before + 40).await;
    for request in [
        format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
    ] {
        assert!(send(health, &request).await.is_none_or(|answer| answer.status >= 400));
    }
    // The last one is closed too, in the end.
    let mut last = held.pop().unwrap();
    let end = tokio::time::timeout(SOON, last.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "a connection without a request is closed");
    assert_eq!(get(health, "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_controller_has_the_same_pages() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("made/csi.sock");
    let mut command = Command::new(MODELMOUNT);
    command.args(["controller", "--log-format", "json", "--endpoint", socket.to_str().unwrap()]).args(PORTS);
    let process = Process::start(&command, &directory.path().join("log"));
    eventually("the ports", SOON, || process.log().contains("\"metrics\"")).await;
    let [health, metrics]: [SocketAddr; 2] = ["health", "metrics"].map(|what| port(&process.log(), what));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(health, path).await.status, 200, "{path}");
    }
    let page = get(metrics, "/metrics").await;
    let asked = "modelmount_rpc_duration_seconds_count{method=\"GetPluginInfo\",code=\"OK\"}";
    assert_eq!(page.value(asked), Some(1.0), "healthz asks the plugin itself: {page:?}");
    assert!(!page.body.contains("cache") && !page.body.contains("kubelet"), "{page:?}");
    process.terminate();
    assert!(process.wait(SOON).await.success());
    assert!(!socket.parent().unwrap().exists());
}
