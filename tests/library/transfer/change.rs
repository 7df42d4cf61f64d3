//! Content that changes while it is fetched: one version or an error, never a mixture; and content that is not what
//! its source says.

use std::collections::BTreeMap;

use modelmount::{Digest, Error, ErrorKind, Manifest, Model, Snapshot};
use modelmount_test_support::model::Files;
use modelmount_test_support::{Nginx, Pattern, Proxy, S3Kind, eventually};

use super::sized;
use crate::bucket::Bucket;
use crate::memory::{Memory, source};
use crate::node::{Node, PART, SOON, assert_snapshot, limits, resolve_url, walk};

const SIZE: usize = 80 * PART as usize;

fn version(number: u64) -> Vec<u8> {
    Pattern::new(100 + number).bytes(0, SIZE)
}

fn file(bytes: &[u8]) -> Files {
    BTreeMap::from([("weights".to_owned(), bytes.to_vec())])
}

/// Fetches through a throttled proxy, has `replace` called when a third is there, and returns the outcome.
async fn fetch_while(
    node: &Node,
    proxy: &Proxy,
    (source, manifest): (Model, Manifest),
    replace: impl AsyncFnOnce(),
) -> Result<Snapshot, Error> {
    let goal = proxy.received() + SIZE as u64 / 3;
    proxy.throttle(8 << 20);
    let transfer = node.transfers().join(manifest, source);
    eventually("a third", SOON, || proxy.received() >= goal).await;
    replace().await;
    proxy.throttle(None);
    tokio::time::timeout(SOON, transfer.wait()).await.unwrap()
}

fn assert_changed(node: &Node, outcome: Result<Snapshot, Error>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
    assert_eq!(walk(&node.root().join("blobs")).len(), 0, "nothing of it is in the cache");
    assert_eq!(walk(&node.root().join("partial")).len(), 0, "nor waits to be resumed");
}

async fn an_object_replaced_meanwhile(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    bucket.put("model/weights", &version(1)).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let node = Node::new(limits(3));
    let resolved = bucket.resolve_at(&proxy.url(), "model").await;
    let replace = async || bucket.put("model/weights", &version(2)).await;
    assert_changed(&node, fetch_while(&node, &proxy, resolved, replace).await);

    let (source, manifest) = bucket.resolve_at(&proxy.url(), "model").await;
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &file(&version(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_versitygw_replaced_meanwhile() {
    an_object_replaced_meanwhile(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_rclone_replaced_meanwhile() {
    an_object_replaced_meanwhile(S3Kind::Rclone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_deleted_meanwhile() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    bucket.put("model/weights", &version(1)).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let node = Node::new(limits(3));
    let resolved = bucket.resolve_at(&proxy.url(), "model").await;
    let outcome = fetch_while(&node, &proxy, resolved, async || bucket.server.delete("models", "model/weights").await);
    assert_changed(&node, outcome.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_servers_file_replaced_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let proxy = Proxy::start(nginx.address()).await;
    for way in ["", "noranges/"] {
        nginx.put("weights", &version(1));
        let node = Node::new(limits(3));
        let url = format!("{}/{way}weights", proxy.url());
        let outcome =
            fetch_while(&node, &proxy, resolve_url(&url).await, async || nginx.put("weights", &version(2))).await;
        match outcome {
            // In one piece: nginx sends the file that it has open to its end.
            Ok(snapshot) if way == "noranges/" => assert_snapshot(&snapshot, &file(&version(1))),
            outcome => assert_changed(&node, outcome),
        }
        let (source, manifest) = resolve_url(&url).await;
        assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &file(&version(2)));
    }
}

/// A download that was stopped at one version is not continued with another.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_of_another_version_is_not_resumed() {
    let memory = Memory::gated(&file(&version(1)));
    let node = Node::new(limits(3));
    let transfer = node.transfers().join(memory.manifest().await, source(&memory));
    memory.let_through(100);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    drop(transfer);
    memory.put("weights", version(2));
    memory.let_through(10_000);
    let snapshot = node.fetch(&source(&memory), &memory.manifest().await).await.unwrap();
    assert_snapshot(&snapshot, &file(&version(2)));
}

/// Where nothing tells two versions apart, nothing that is here is taken for what the server has now.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_validator_is_fetched_each_time() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let url = format!("{}/novalidator/weights", nginx.url());
    let node = Node::new(limits(3));
    for number in [1, 2] {
        nginx.put("weights", &version(number));
        let (source, manifest) = resolve_url(&url).await;
        assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &file(&version(number)));
    }
}

/// Nobody finds its partial again, so that it would keep its room for as long as the plugin runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_without_a_version_that_was_given_up_leaves_nothing() {
    let memory = Memory::gated_bare(&file(&version(1)));
    let node = Node::new(limits(3));
    let transfer = node.transfers().join(memory.manifest().await, source(&memory));
    memory.let_through(100);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    drop(transfer);
    eventually("an empty directory", SOON, || walk(&node.root().join("partial")).is_empty()).await;
}

/// A declared digest is a promise: nothing that breaks it enters the cache, neither in parts nor in one piece.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_is_corrupt() {
    for size in [0, 10, PART, 4 * PART + 1] {
        let files = sized(&[("weights", size), ("config", 5)]);
        let memory = Memory::new(&files);
        memory.declare("weights", Digest::of("something else"));
        let manifest = memory.manifest().await;
        let mut node = Node::new(limits(2));
        for _ in 0..2 {
            let error = node.fetch(&source(&memory), &manifest).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
            assert!(error.report().contains("\"weights\"") && error.report().contains("declares"), "{error:?}");
            assert!(node.cache().snapshot(manifest.id()).is_none());
            let wrong = Digest::of(&files["weights"]).hex();
            let blobs = walk(&node.root().join("blobs"));
            assert!(!blobs.iter().any(|(path, _)| path.ends_with(&wrong)), "{blobs:?}");
        }
        node.restart().await;
        assert!(node.cache().snapshot(manifest.id()).is_none());
        // Told the truth, the same node takes the same file.
        memory.declare("weights", Digest::of(&files["weights"]));
        assert_snapshot(&node.fetch(&source(&memory), &memory.manifest().await).await.unwrap(), &files);
    }
}

/// Bytes that a partial lost on the disk are noticed, and fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_partial_is_repaired() {
    use std::os::unix::fs::FileExt;

    let files = file(&version(1));
    let memory = Memory::gated(&files);
    let manifest = memory.manifest().await;
    let mut node = Node::new(limits(3));
    let transfer = node.transfers().join(manifest.clone(), source(&memory));
    memory.let_through(100);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    drop(transfer);
    node.restart_after_power_loss(|root| {
        let (data, _) = walk(root).into_iter().find(|(path, _)| path.ends_with("/data")).unwrap();
        let data = std::fs::File::options().write(true).open(root.join(data)).unwrap();
        data.write_all_at(&[0; 4096], 100).unwrap();
    })
    .await;
    memory.let_through(10_000);
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
}
