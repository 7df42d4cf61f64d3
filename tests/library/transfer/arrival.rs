//! Every byte arrives, and once.

use modelmount::Digest;
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{Nginx, Proxy, S3Kind};

use super::{HEAD, size, sized};
use crate::bucket::Bucket;
use crate::memory::{Memory, source};
use crate::node::{Node, PART, assert_snapshot, limits, resolve_url};

/// One file of each kind that the engine tells apart: in one piece, in exactly one part, in a part and a byte, in many.
fn all_sizes() -> Files {
    let sizes = [
        ("empty", 0),
        ("byte", 1),
        ("less", PART - 1),
        ("part", PART),
        ("part and one", PART + 1),
        ("two parts", 2 * PART),
        ("many/a", 9 * PART + 7),
        ("many/b", 5 * PART - 1),
    ];
    sized(&sizes)
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_around_a_part_with_any_number_of_connections() {
    let files = all_sizes();
    for connections in 1..=8 {
        let memory = Memory::new(&files);
        let node = Node::new(limits(connections));
        let snapshot = node.fetch(&source(&memory), &memory.manifest().await).await.unwrap();
        assert_snapshot(&snapshot, &files);
        assert_eq!(memory.bytes_read(), size(&files), "each byte once, with {connections} connections");
        for file in snapshot.files() {
            assert_eq!(file.digest, Digest::of(&files[file.path.as_str()]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_sizes() {
    let files = all_sizes();
    let memory = Memory::bare(&files);
    let node = Node::new(limits(3));
    assert_snapshot(&node.fetch(&source(&memory), &memory.manifest().await).await.unwrap(), &files);
}

/// What is there needs no server.
async fn a_second_join_needs_no_server(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let files = all_sizes();
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (source, manifest) = bucket.resolve_at(&proxy.url(), "model").await;
    let mut node = Node::new(limits(4));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);

    proxy.refuse(true).await;
    proxy.cut().await;
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    node.restart().await;
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_join_needs_no_versitygw() {
    a_second_join_needs_no_server(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_join_needs_no_rclone() {
    a_second_join_needs_no_server(S3Kind::Rclone).await;
}

/// A base model and one that contains it, at the same time: the shared file crosses the wire once.
#[tokio::test(flavor = "multi_thread")]
async fn models_that_share_a_file_fetch_it_once() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let shared = sized(&[("weights", 40 * PART)]);
    bucket.put_model("all/base", &shared).await;
    bucket.put("all/adapter", b"small").await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let (one, inner) = bucket.resolve_at(&proxy.url(), "all/base").await;
    let (two, outer) = bucket.resolve_at(&proxy.url(), "all").await;
    let node = Node::new(limits(4));
    let before = proxy.received();
    let (first, second) = tokio::join!(node.fetch(&one, &inner), node.fetch(&two, &outer));
    assert_snapshot(&first.unwrap(), &shared);
    let outer = [("base/weights".to_owned(), shared["weights"].clone()), ("adapter".to_owned(), b"small".to_vec())];
    assert_snapshot(&second.unwrap(), &outer.into());
    let received = proxy.received() - before;
    assert!(received < size(&shared) + 50 * HEAD, "{received} bytes for {}", size(&shared));
}

/// Two places that hold the same bytes share them on the disk, although nothing could tell before both were fetched.
#[tokio::test(flavor = "multi_thread")]
async fn equal_content_is_stored_once() {
    let bytes = sized(&[("a", 3 * PART)]).remove("a").unwrap();
    let files: Files = [("a".to_owned(), bytes.clone()), ("b".to_owned(), bytes)].into();
    let memory = Memory::new(&files);
    let node = Node::new(limits(4));
    let snapshot = node.fetch(&source(&memory), &memory.manifest().await).await.unwrap();
    assert_snapshot(&snapshot, &files);
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&snapshot.tree().join(name).metadata().unwrap());
    assert_eq!(inode("a"), inode("b"));
}

/// Twenty pods at once.
async fn twenty_joins_are_one_download(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let mut files = model::small(3);
    files.extend(sized(&[("large", 70 * PART + 5)]));
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let node = Node::new(limits(4));
    let mut resolved = Vec::new();
    for _ in 0..20 {
        resolved.push(bucket.resolve_at(&proxy.url(), "model").await);
    }
    let before = proxy.received();
    let joins = resolved.iter().map(|(source, manifest)| node.fetch(source, manifest));
    for snapshot in futures_util::future::join_all(joins).await {
        assert_snapshot(&snapshot.unwrap(), &files);
    }
    let received = proxy.received() - before;
    assert!(received < size(&files) + 80 * HEAD, "{received} bytes for {}", size(&files));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_joins_are_one_download_from_versitygw() {
    twenty_joins_are_one_download(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_joins_are_one_download_from_rclone() {
    twenty_joins_are_one_download(S3Kind::Rclone).await;
}

/// As above, with the moment of joining under control: all join while the first byte is yet to come.
#[tokio::test(flavor = "multi_thread")]
async fn joins_of_a_running_transfer_are_the_same_transfer() {
    let files = all_sizes();
    let memory = Memory::gated(&files);
    let node = Node::new(limits(2));
    let manifest = memory.manifest().await;
    let transfers: Vec<_> = (0..20).map(|_| node.transfers().join(manifest.clone(), source(&memory))).collect();
    memory.let_through(10_000);
    for transfer in &transfers {
        assert_snapshot(&transfer.wait().await.unwrap(), &files);
        assert_eq!(transfer.amounts().percent(), 100);
    }
    assert_eq!(memory.bytes_read(), size(&files));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_servers_file() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let files = sized(&[("m ü.gguf", 20 * PART + 3)]);
    nginx.put_model("", &files);
    for way in ["", "noranges/", "novalidator/", "redirect/"] {
        let (source, manifest) = resolve_url(&format!("{}/{way}m%20%C3%BC.gguf", nginx.url())).await;
        let node = Node::new(limits(4));
        assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    }
}
