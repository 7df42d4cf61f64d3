//! Opening a cache, and looking into one that somebody else has open.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use modelmount::cache::{KeepFree, Lease};
use modelmount::{Cache, Digest, ErrorKind, Transfers};
use modelmount_test_support::model;
use modelmount_test_support::{Pattern, Process, eventually};
use tokio::runtime::{Builder, Handle};

use crate::memory::{Memory, source};
use crate::node::{Node, PART, SOON, assert_snapshot, limits};

const INNER: &str = "MODELMOUNT_HOLD_CACHE";

fn open(root: &Path) -> modelmount::Result<Cache> {
    Cache::open(root, KeepFree::Bytes(0))
}

fn assert_taken(root: &Path) {
    let error = open(root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
    let lock = root.join("lock").display().to_string();
    assert!(error.report().contains("another modelmount") && error.report().contains(&lock), "{error:?}");
}

#[test]
fn one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("deep/cache");
    let cache = open(&root).unwrap();
    assert_taken(&root);
    cache.probe().unwrap();
    drop(cache);
    open(&root).unwrap();
}

/// Work of a download that was given up would meet that of whoever opens the cache next.
#[test]
fn nobody_has_it_before_work_that_was_given_up_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("cache");
    // All of it happens in turns, on this thread and on one other, which is kept busy.
    let runtime = Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (release, busy) = channel::<()>();
        let keeping_busy = tokio::task::spawn_blocking(move || busy.recv().is_err());
        let memory = Memory::new(&[("large".to_owned(), Pattern::new(1).bytes(0, 2 * PART as usize))].into());
        let cache = Arc::new(open(&root).unwrap());
        let transfers = Transfers::new(Arc::clone(&cache), limits(1), Handle::current());
        let transfer = transfers.join(memory.manifest().await, source(&memory));
        turns().await;
        drop((transfer, transfers, cache));
        turns().await;
        assert_taken(&root);

        drop(release);
        assert!(keeping_busy.await.unwrap());
        eventually("the cache to be nobody's", SOON, || open(&root).is_ok()).await;
    });
}

/// Until every task waits for something else than its turn.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Another process has it, until it is killed.
#[tokio::test]
async fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("cache");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cache::opening::inner_holds_the_cache"]).env(INNER, &root);
    let other = Process::start(&command, &directory.path().join("log"));
    eventually("the other process to have it", SOON, || root.join("held").exists()).await;
    assert_taken(&root);
    assert!(Cache::list(&root).unwrap().is_empty(), "looking is allowed");
    other.kill();
    open(&root).unwrap();
}

/// What [`one_process_at_a_time`] starts and kills.
#[test]
fn inner_holds_the_cache() {
    let Some(root) = std::env::var_os(INNER) else { return };
    let cache = open(Path::new(&root)).unwrap();
    fs::write(cache.root().join("held"), "").unwrap();
    loop {
        std::thread::park_timeout(Duration::from_secs(60));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_versions_cache_is_left_alone() {
    let files = model::small(1);
    let memory = Memory::new(&files);
    let manifest = memory.manifest().await;
    let mut node = Node::new(limits(2));
    node.fetch(&source(&memory), &manifest).await.unwrap();
    node.stop().await;
    let layout = node.root().join("layout");
    assert_eq!(fs::read_to_string(&layout).unwrap(), r#"{"version":1}"#);
    for newer in [r#"{"version":2}"#, r#"{"version":2,"and":"more"}"#] {
        fs::write(&layout, newer).unwrap();
        for error in [open(&node.root()).unwrap_err(), Cache::list(&node.root()).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
            assert!(error.report().contains("version 2") && error.report().contains("--cache-dir"), "{error:?}");
        }
        assert_eq!(fs::read_to_string(&layout).unwrap(), newer);
    }
    // Somebody else's file of that name is left alone as well.
    fs::write(&layout, "rows: 3").unwrap();
    let error = open(&node.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
    assert_eq!(fs::read_to_string(&layout).unwrap(), "rows: 3");
    // A power loss can empty it.
    fs::write(&layout, "").unwrap();
    node.restart().await;
    assert_eq!(fs::read_to_string(&layout).unwrap(), r#"{"version":1}"#);
    assert_snapshot(&node.cache().snapshot(manifest.id()).unwrap(), &files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_can_be_listed_while_it_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let error = Cache::list(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "looking makes nothing");

    let (one, two) = (Memory::new(&model::small(1)), Memory::new(&model::small(2)));
    let node = Node::new(limits(2));
    assert!(Cache::list(&node.root()).unwrap().is_empty());
    one.put("more", vec![7; 10]);
    let first = node.fetch(&source(&one), &one.manifest().await).await.unwrap();
    let second = node.fetch(&source(&two), &two.manifest().await).await.unwrap();
    let lease = |volume: &str| Lease {
        volume_id: volume.into(),
        target: "/target".into(),
        arguments: Digest::of("arguments"),
        snapshot: Some(first.id()),
        bytes: first.bytes(),
        files: first.files().len() as u64,
    };
    node.cache().leases().put(lease("a")).unwrap();
    node.cache().leases().put(lease("b")).unwrap();
    let listed = Cache::list(&node.root()).unwrap();
    assert_eq!(listed.len(), 2);
    for (snapshot, leases) in [(&first, 2), (&second, 0)] {
        let summary = listed.iter().find(|summary| summary.id == snapshot.id()).unwrap();
        assert_eq!((summary.bytes, summary.files, summary.leases), (snapshot.bytes(), snapshot.files().len(), leases));
        assert_eq!((summary.digest, summary.uri.as_str()), (snapshot.digest(), "s3://memory/model"));
    }
}

/// Nobody but the owner gets in: pods see their own model alone, through its mount.
#[test]
fn nobody_else_may_enter() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let cache = open(&directory.path().join("cache")).unwrap();
    assert_eq!(fs::metadata(cache.root()).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(cache.root()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{:?}", entry.path());
        }
    }
}
