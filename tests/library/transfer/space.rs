//! Disks that are full: a clear error, nothing broken, and no room taken that is of no use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use modelmount::cache::KeepFree;
use modelmount::{Cache, ErrorKind, Transfers};
use modelmount_test_support::{Process, eventually};
use tokio::runtime::Handle;

use super::sized;
use crate::memory::{Memory, source};
use crate::node::{Node, PART, SOON, assert_snapshot, limits, walk};

/// Names the directory that an inner test works in: set for it alone.
const INNER: &str = "MODELMOUNT_SMALL_DISK";

#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_free_is_not_taken() {
    let memory = Memory::new(&sized(&[("a", 3 * PART)]));
    let manifest = memory.manifest().await;
    let directory = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(&directory.path().join("cache"), KeepFree::Percent(100)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(2), Handle::current());
    let error = transfers.join(manifest.clone(), source(&memory)).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    for part in ["no room for 192.0 KiB", "free", "kept free", "promised to other downloads"] {
        assert!(error.report().contains(part), "{:?} does not say {part:?}", error.report());
    }
    assert_eq!(memory.requests(), 0, "refused before anything is fetched");
    drop((transfers, cache));

    // What is in the cache already needs no room.
    let node = Node::new(limits(2));
    node.fetch(&source(&memory), &manifest).await.unwrap();
    let root = node.root();
    let mut node = node;
    node.stop().await;
    let cache = Arc::new(Cache::open(&root, KeepFree::Percent(100)).unwrap());
    let transfers = Transfers::new(cache, limits(2), Handle::current());
    transfers.join(manifest, source(&memory)).wait().await.unwrap();
}

/// Runs an inner test of this module on a disk of its own, of some megabytes, in a mount namespace that ends with it.
async fn on_a_small_disk(megabytes: u32, test: &str) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts: run it as root, or leave it out with --skip privileged_"
    );
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs -o \"size=$1m\" none \"$2\" && exec \"$3\" --exact \"$4\"").arg("sh");
    command.arg(megabytes.to_string()).arg(&disk).arg(std::env::current_exe().unwrap());
    command.arg(format!("transfer::space::{test}")).env(INNER, &disk);
    let inner = Process::start(&command, &directory.path().join("log"));
    let status = inner.wait(Duration::from_secs(60)).await;
    let log = inner.log();
    assert!(status.success() && log.contains("1 passed"), "{log}");
}

fn small_disk() -> Option<PathBuf> {
    std::env::var_os(INNER).map(PathBuf::from)
}

#[tokio::test]
async fn privileged_a_disk_that_fills_up_meanwhile() {
    on_a_small_disk(8, "inner_fills_up_meanwhile").await;
}

/// The room was there when the download began. Somebody else takes it; the download fails, goes on once there is room
/// again, and fetches no finished part again.
#[tokio::test(flavor = "multi_thread")]
async fn inner_fills_up_meanwhile() {
    let Some(disk) = small_disk() else { return };
    let (files, small) = (sized(&[("a", 60 * PART), ("b", 10)]), sized(&[("a", 10), ("z", 100)]));
    let (memory, other) = (Memory::gated(&files), Memory::new(&small));
    let manifest = memory.manifest().await;
    let cache = Arc::new(Cache::open(&disk.join("cache"), KeepFree::Bytes(0)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(2), Handle::current());
    let kept = transfers.join(other.manifest().await, source(&other)).wait().await.unwrap();

    let transfer = transfers.join(manifest.clone(), source(&memory));
    memory.let_through(40);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    let hog = disk.join("hog");
    // Until nothing goes in any more.
    fs::write(&hog, vec![1; 16 << 20]).unwrap_err();
    let error = cache.probe().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(!disk.join("cache/trash/probe").exists());
    memory.let_through(10_000);
    let error = transfer.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(cache.snapshot(manifest.id()).is_none());
    assert_snapshot(&kept, &small);
    assert_snapshot(&cache.snapshot(kept.id()).unwrap(), &small);

    fs::remove_file(&hog).unwrap();
    cache.probe().unwrap();
    let snapshot = transfers.join(manifest, source(&memory)).wait().await.unwrap();
    assert_snapshot(&snapshot, &files);
    let waste = memory.bytes_read() - super::size(&files);
    assert!(waste <= 4 * PART, "{waste} bytes were fetched twice");
}

#[tokio::test]
async fn privileged_a_file_larger_than_it_said() {
    on_a_small_disk(6, "inner_larger_than_the_disk").await;
}

/// A file of unknown length that does not fit, which is found out as it arrives: the room it took is given back, since it
/// can't be resumed.
#[tokio::test(flavor = "multi_thread")]
async fn inner_larger_than_the_disk() {
    let Some(disk) = small_disk() else { return };
    let memory = Memory::bare(&sized(&[("endless", 8 << 20)]));
    let cache = Arc::new(Cache::open(&disk.join("cache"), KeepFree::Bytes(0)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(2), Handle::current());
    let error = transfers.join(memory.manifest().await, source(&memory)).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert_eq!(walk(&disk.join("cache/partial")).len(), 0);

    let (files, small) = (sized(&[("a", 30 * PART)]), Memory::new(&sized(&[("a", 30 * PART)])));
    assert_snapshot(&transfers.join(small.manifest().await, source(&small)).wait().await.unwrap(), &files);
}

#[tokio::test]
async fn privileged_what_must_stay_free_stays_free_of_files_of_unknown_length() {
    on_a_small_disk(32, "inner_unknown_length_beside_what_is_kept_free").await;
}

/// The disk has room for all of it, and half of the disk is to stay free.
#[tokio::test(flavor = "multi_thread")]
async fn inner_unknown_length_beside_what_is_kept_free() {
    let Some(disk) = small_disk() else { return };
    let memory = Memory::bare(&sized(&[("endless", 24 << 20)]));
    let cache = Arc::new(Cache::open(&disk.join("cache"), KeepFree::Bytes(16 << 20)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(2), Handle::current());
    let error = transfers.join(memory.manifest().await, source(&memory)).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    for part in ["no room for", "16.0 MiB are kept free", "promised to other downloads"] {
        assert!(error.report().contains(part), "{:?} does not say {part:?}", error.report());
    }
    let read = memory.bytes_read();
    assert!(read > 8 << 20 && read <= 16 << 20, "{read} bytes were written beside what is kept free");
    assert_eq!(walk(&disk.join("cache/partial")).len(), 0);
}

#[tokio::test]
async fn privileged_a_resumed_download_needs_room_for_the_rest_only() {
    on_a_small_disk(6, "inner_resumes_on_a_disk_that_holds_it_once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inner_resumes_on_a_disk_that_holds_it_once() {
    let Some(disk) = small_disk() else { return };
    // 4 MiB of 6: three of them are there when it is begun anew, and the last fits.
    let files = sized(&[("a", 64 * PART)]);
    let memory = Memory::gated(&files);
    let manifest = memory.manifest().await;
    let cache = Arc::new(Cache::open(&disk.join("cache"), KeepFree::Bytes(0)).unwrap());
    let transfers = Transfers::new(cache, limits(2), Handle::current());
    let transfer = transfers.join(manifest.clone(), source(&memory));
    memory.let_through(48 * 4);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    drop(transfer);
    // What it had reserved is given back when its last task has ended.
    eventually("the transfer's end", SOON, || Arc::strong_count(&memory) == 1).await;
    memory.let_through(10_000);
    assert_snapshot(&transfers.join(manifest, source(&memory)).wait().await.unwrap(), &files);
}

#[tokio::test]
async fn privileged_what_is_written_is_not_promised_any_more() {
    on_a_small_disk(16, "inner_fits_beside_the_rest_of_another").await;
}

/// Of 16 MiB a download has written 9 and will write one more: there is room for 4, since the disk shows those 9 as taken.
#[tokio::test(flavor = "multi_thread")]
async fn inner_fits_beside_the_rest_of_another() {
    let Some(disk) = small_disk() else { return };
    let (files, small) = (sized(&[("a", 160 * PART)]), sized(&[("b", 64 * PART)]));
    let (memory, other) = (Memory::gated(&files), Memory::new(&small));
    let cache = Arc::new(Cache::open(&disk.join("cache"), KeepFree::Bytes(0)).unwrap());
    // Two, since the requests of the first wait for the test.
    let [transfers, others] = [(); 2].map(|()| Transfers::new(Arc::clone(&cache), limits(2), Handle::current()));
    let transfer = transfers.join(memory.manifest().await, source(&memory));
    memory.let_through(144 * 4);
    eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
    let joined = others.join(other.manifest().await, source(&other));
    assert_snapshot(&joined.wait().await.unwrap(), &small);
    memory.let_through(10_000);
    assert_snapshot(&transfer.wait().await.unwrap(), &files);
}
