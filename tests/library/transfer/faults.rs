//! A network and servers that fail: what can be repeated is repeated, and what is wrong is never taken for right.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modelmount::{Context, ErrorKind, ModelRequest, Policy};
use modelmount_test_support::model::Files;
use modelmount_test_support::script::{Request, Response};
use modelmount_test_support::{Nginx, Pattern, Proxy, S3Kind, ScriptedServer, eventually};

use super::{HEAD, size, sized};
use crate::bucket::Bucket;
use crate::node::{Node, PART, SOON, assert_snapshot, limits, resolve_url};

const SIZE: usize = 12 * PART as usize + 5;

fn content() -> Vec<u8> {
    Pattern::new(55).bytes(0, SIZE)
}

fn files() -> Files {
    [("weights".to_owned(), content())].into()
}

fn tagged(response: Response) -> Response {
    response.header("etag", "\"v1\"")
}

/// Whether it asks for content, and not only for the first byte, as listing does.
fn reads(request: &Request) -> bool {
    request.range() != Some((0, 0))
}

/// A server that does each of `faults` to one read, in turn, before it behaves.
async fn faulty(faults: Vec<fn(Response) -> Response>) -> (ScriptedServer, Arc<AtomicUsize>) {
    let (content, done) = (content(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&done);
    let server = ScriptedServer::start(move |request| {
        let response = tagged(Response::content(request, &content));
        if !reads(request) {
            return response;
        }
        match faults.get(count.fetch_add(1, Ordering::SeqCst)) {
            Some(fault) => fault(response),
            None => response,
        }
    })
    .await;
    (server, done)
}

async fn survives(faults: Vec<fn(Response) -> Response>) -> u64 {
    let count = faults.len();
    let (server, done) = faulty(faults).await;
    let proxy = Proxy::start(server.address()).await;
    let (source, manifest) = resolve_url(&format!("{}/weights", proxy.url())).await;
    let before = proxy.received();
    let node = Node::new(limits(3));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files());
    assert!(done.load(Ordering::SeqCst) > count, "every fault was met");
    proxy.received() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_bodies_and_resets_cost_no_byte_that_has_arrived() {
    let received = survives(vec![
        |response| response.truncate_after(1000),
        |response| response.reset_after(5000),
        |response| response.truncate_after(0),
        |response| response.reset_after(0),
        |response| response.truncate_after(40_000),
    ])
    .await;
    // A reset may destroy what lies in the receiver's buffer unread.
    assert!(received < SIZE as u64 + 5000 + 40 * HEAD, "{received} bytes for {SIZE}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_asked_again() {
    survives(vec![
        |_| Response::new(503).header("retry-after", "0"),
        |_| Response::new(429),
        |_| Response::new(500),
        |_| Response::new(502),
    ])
    .await;
}

/// Whoever asks on, while a server counts requests, is refused for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_be_left_alone_is() {
    const WAIT: Duration = Duration::from_secs(1);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&refused);
    let server = ScriptedServer::start(move |request| {
        let mut times = times.lock().unwrap();
        let now = Instant::now();
        match times.first() {
            _ if !reads(request) => tagged(Response::content(request, b"abc")),
            Some(first) if now.duration_since(*first) >= WAIT => tagged(Response::content(request, b"abc")),
            _ => {
                times.push(now);
                Response::new(429).header("retry-after", WAIT.as_secs().to_string())
            }
        }
    })
    .await;
    let (source, manifest) = resolve_url(&format!("{}/weights", server.url())).await;
    let node = Node::new(limits(3));
    let snapshot = node.fetch(&source, &manifest).await.unwrap();
    assert_snapshot(&snapshot, &[("weights".to_owned(), b"abc".to_vec())].into());
    assert_eq!(refused.lock().unwrap().len(), 1, "it was asked again before its time");
}

/// It counts each caller's requests: with the credentials of somebody else the same download goes on at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_one_caller_alone_to_leave_it_alone() {
    let (content, refused) = (content(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    let server = ScriptedServer::start(move |request| {
        let counted = request.header("x-account") == Some("first");
        if !(counted && reads(request)) {
            return tagged(Response::content(request, &content));
        }
        count.fetch_add(1, Ordering::SeqCst);
        Response::new(429).header("retry-after", "300")
    })
    .await;
    let attributes = [("modelUri".to_owned(), format!("{}/weights", server.url()))].into();
    let account = |name: &str| [("headers", format!("{{\"x-account\": \"{name}\"}}"))].into_iter().collect();
    let context = Context::new(Policy::unrestricted()).unwrap();
    let request = ModelRequest::from_attributes(&attributes).unwrap();
    let [first, second] = ["first", "second"].map(|name| request.open(&account(name), &context).unwrap());
    let manifest = request.resolve(&first).await.unwrap();
    let node = Node::new(limits(3));
    let transfer = node.transfers().join(manifest.clone(), first);
    eventually("the server to refuse", SOON, || refused.load(Ordering::SeqCst) > 0).await;
    assert_snapshot(&node.fetch(&second, &manifest).await.unwrap(), &files());
    transfer.wait().await.unwrap();
}

/// Parts that are not the ones asked for are not written where those belong; the whole is read instead.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_parts_are_not_taken() {
    let lies: [fn(&Request, &[u8]) -> Response; 3] = [
        // The whole under a 206, from another place, or with no word on what it is.
        |_, content| Response::new(206).header("content-range", "bytes 0-9/10").body(content.to_vec()),
        |request, content| {
            let (first, last) = request.range().unwrap();
            let shifted = content.get(first as usize + 1..).unwrap_or_default();
            let shifted = shifted[..shifted.len().min((last - first + 1) as usize)].to_vec();
            let range = format!("bytes {}-{}/{}", first + 1, first + shifted.len() as u64, content.len());
            Response::new(206).header("content-range", range).body(shifted)
        },
        |_, content| Response::new(206).body(content.to_vec()),
    ];
    for lie in lies {
        let content = content();
        let server = ScriptedServer::start(move |request| {
            let lies = request.range().is_some() && reads(request);
            tagged(if lies { lie(request, &content) } else { Response::content(request, &content) })
        })
        .await;
        let (source, manifest) = resolve_url(&format!("{}/weights", server.url())).await;
        let node = Node::new(limits(3));
        assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files());
    }
}

/// Ranges are ignored from some request on: what is there in parts is not mixed with a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_serving_parts() {
    let content = content();
    let server = ScriptedServer::start(move |request| {
        let whole = reads(request) && request.number > 5;
        tagged(if whole { Response::new(200).body(content.clone()) } else { Response::content(request, &content) })
    })
    .await;
    let (source, manifest) = resolve_url(&format!("{}/weights", server.url())).await;
    let node = Node::new(limits(3));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_read_whole() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    nginx.put("weights", &content());
    let (source, manifest) = resolve_url(&format!("{}/noranges/weights", nginx.url())).await;
    let node = Node::new(limits(3));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files());
    eventually("the log", SOON, || nginx.requests().iter().any(|request| request.bytes == SIZE as u64)).await;
}

/// A length that is not the body's: never a file, whichever way it is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_content_length() {
    for wrong in [PART / 2, 2 * PART] {
        let content = Pattern::new(55).bytes(0, PART as usize);
        let server = ScriptedServer::start(move |request| {
            let response = tagged(Response::content(request, &content));
            let length = wrong.to_string();
            if reads(request) {
                response.header("content-length", length).truncate_after(content.len())
            } else {
                response
            }
        })
        .await;
        let (source, manifest) = resolve_url(&format!("{}/weights", server.url())).await;
        let node = Node::new(limits(3));
        let error = node.fetch(&source, &manifest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.report().contains(&server.url()), "{error:?}");
        assert!(node.cache().snapshot(manifest.id()).is_none());
    }
}

/// What will not pass is told at once, without hammering.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_not_repeated() {
    for (status, kind) in
        [(401, ErrorKind::Unauthenticated), (403, ErrorKind::Unauthenticated), (404, ErrorKind::NotFound)]
    {
        let content = content();
        let server = ScriptedServer::start(move |request| {
            if reads(request) { Response::new(status) } else { tagged(Response::content(request, &content)) }
        })
        .await;
        let (source, manifest) = resolve_url(&format!("{}/weights", server.url())).await;
        let listed = server.requests().len();
        let node = Node::new(limits(3));
        assert_eq!(node.fetch(&source, &manifest).await.unwrap_err().kind(), kind, "{status}");
        assert!(server.requests().len() - listed <= 3, "one request for each connection, at most");
    }
}

/// One server says no more, and the requests to it are all that may be made: models from others arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_holds_up_nobody_else() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let files = sized(&[("a", 60 * PART), ("b", 30 * PART)]);
    bucket.put_model("silent", &files).await;
    bucket.put_model("other", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (source, manifest) = bucket.resolve_at(&proxy.url(), "silent").await;
    let node = Node::new(limits(3));
    proxy.throttle(1 << 20);
    let start = proxy.received();
    let silent = node.transfers().join(manifest, source);
    let is_busy = || proxy.received() >= start + PART && proxy.open_connections() >= 3;
    eventually("every request to be under way", SOON, is_busy).await;
    proxy.stall(true);
    let (source, manifest) = bucket.resolve("other").await.unwrap();
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    assert!(silent.amounts().bytes_done < size(&files));
}

/// Connections die, again and again, and the server is gone for a moment: the transfer goes on.
async fn cuts_are_survived(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let files = sized(&[("a", 60 * PART), ("b", 30 * PART + 1), ("c", 10)]);
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (source, manifest) = bucket.resolve_at(&proxy.url(), "model").await;
    let node = Node::new(limits(3));
    let start = proxy.received();
    proxy.throttle(10 << 20);
    let transfer = node.transfers().join(manifest, source);
    for fifth in 1..=4 {
        let goal = start + fifth * size(&files) / 6;
        eventually("the next sixth", SOON, || proxy.received() >= goal).await;
        match fifth {
            1 | 2 => proxy.cut().await,
            3 => {
                // Silence, then the end of the connection, as when a machine between dies.
                proxy.stall(true);
                eventually("all connections in use", SOON, || proxy.open_connections() > 0).await;
                proxy.cut().await;
                proxy.stall(false);
            }
            _ => {
                proxy.refuse(true).await;
                proxy.cut().await;
                proxy.refuse(false).await;
            }
        }
    }
    proxy.throttle(None);
    let snapshot = tokio::time::timeout(SOON, transfer.wait()).await.unwrap().unwrap();
    assert_snapshot(&snapshot, &files);
    let received = proxy.received() - start;
    let most = size(&files) + 4 * 3 * PART + 200 * HEAD;
    assert!(received <= most, "{received} bytes received, {most} allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_are_survived_with_versitygw() {
    cuts_are_survived(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_are_survived_with_rclone() {
    cuts_are_survived(S3Kind::Rclone).await;
}

/// A server that is gone for good is an error in the end, and what was fetched serves the next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let files = sized(&[("a", 60 * PART)]);
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (source, manifest) = bucket.resolve_at(&proxy.url(), "model").await;
    let node = Node::new(limits(3));
    let start = proxy.received();
    proxy.throttle(10 << 20);
    let transfer = node.transfers().join(manifest.clone(), source.clone());
    eventually("half of it", SOON, || proxy.received() - start >= size(&files) / 2).await;
    proxy.refuse(true).await;
    proxy.cut().await;
    let error = tokio::time::timeout(SOON, transfer.wait()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.report().contains("s3://models/model") && error.report().contains(&proxy.url()), "{error:?}");
    proxy.refuse(false).await;
    proxy.throttle(None);
    // The failed one is still held, and is not what a new caller gets.
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    let received = proxy.received() - start;
    assert!(received <= size(&files) + 3 * PART + 150 * HEAD, "{received} bytes received");
}
