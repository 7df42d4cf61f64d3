//! What was fetched is not fetched again: after nobody wanted it for a while, and after a failure.

use std::sync::Arc;

use modelmount_test_support::{Proxy, S3Kind, eventually};

use super::{HEAD, size, sized};
use crate::bucket::Bucket;
use crate::memory::{Memory, source};
use crate::node::{Node, PART, SOON, assert_snapshot, limits};

const CONNECTIONS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transfer_stops_and_a_later_one_resumes() {
    let files = sized(&[("a", 20 * PART), ("b", 11 * PART + 1), ("c", 10)]);
    let memory = Memory::gated(&files);
    let manifest = memory.manifest().await;
    let mut node = Node::new(limits(CONNECTIONS));
    let in_flight = CONNECTIONS as u64 * PART;
    let mut wasted = 0;
    for round in 0..6 {
        let before = memory.bytes_read();
        let transfer = node.transfers().join(manifest.clone(), source(&memory));
        let second = Arc::clone(&transfer);
        memory.let_through(15);
        drop(transfer);
        eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
        assert!(memory.bytes_read() > before, "one of two handles is enough to go on");
        drop(second);
        wasted += in_flight;
        // Half of the times the process ends as well.
        if round % 2 == 0 {
            node.restart().await;
        }
    }
    memory.let_through(10_000);
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
    let read = memory.bytes_read();
    assert!(read <= size(&files) + wasted, "{read} bytes read of {} and at most {wasted} wasted", size(&files));
}

/// Nothing is read any more once the last handle is gone.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_what_nobody_wants() {
    let files = sized(&[("a", 20 * PART)]);
    let memory = Memory::gated(&files);
    let node = Node::new(limits(CONNECTIONS));
    let transfer = node.transfers().join(memory.manifest().await, source(&memory));
    memory.let_through(7);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    drop(transfer);
    let streams = || Arc::strong_count(&memory);
    eventually("the streams to be given up", SOON, || streams() == 1).await;
    let requests = memory.requests();
    memory.let_through(1);
    tokio::task::yield_now().await;
    assert_eq!((memory.requests(), memory.is_waiting()), (requests, false));
}

/// Joining and leaving in any order and at any speed never breaks what comes after.
#[tokio::test(flavor = "multi_thread")]
async fn impatient_callers_break_nothing() {
    let files = sized(&[("a", 6 * PART), ("b", 3 * PART + 1), ("c", 10), ("d", 0)]);
    let memory = Memory::new(&files);
    let manifest = memory.manifest().await;
    for patience in 0..60 {
        let node = Node::new(limits(CONNECTIONS));
        for _ in 0..4 {
            let transfer = node.transfers().join(manifest.clone(), source(&memory));
            for _ in 0..patience {
                tokio::task::yield_now().await;
            }
            drop(transfer);
        }
        assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
    }
}

/// Over the wire, from a real server. A ranged answer holds one part, so that what lies in sockets' buffers when a
/// connection is given up belongs to the parts in flight: no slack is needed for them, only for heads.
async fn resumes_over_the_wire(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let files = sized(&[("a", 60 * PART), ("b", 40 * PART + 1), ("c", 10)]);
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (source, manifest) = bucket.resolve_at(&proxy.url(), "model").await;
    let node = Node::new(limits(CONNECTIONS));
    let start = proxy.received();
    proxy.throttle(8 << 20);
    for part in 1..=3 {
        let goal = start + part * size(&files) / 4;
        let transfer = node.transfers().join(manifest.clone(), source.clone());
        eventually("the next quarter", SOON, || proxy.received() >= goal).await;
        let amounts = transfer.amounts();
        assert!(amounts.percent() < 100 && amounts.bytes_done > 0, "{amounts:?}");
        drop(transfer);
    }
    proxy.throttle(None);
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    let received = proxy.received() - start;
    let most = size(&files) + 3 * CONNECTIONS as u64 * PART + 150 * HEAD;
    assert!(received <= most, "{received} bytes received, {most} allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_from_versitygw() {
    resumes_over_the_wire(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_from_rclone() {
    resumes_over_the_wire(S3Kind::Rclone).await;
}
