//! `fetch::pull`: the same engine, into a plain directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use modelmount::content::{Content, content_digest};
use modelmount::fetch::{Progress, pull};
use modelmount::{Digest, Error, ErrorKind, Manifest};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{Pattern, eventually};
use tempfile::TempDir;

use crate::memory::{Memory, source};
use crate::node::{PART, SOON, assert_tree, limits};

const WORK: &str = ".modelmount-pull";

fn files() -> Files {
    let mut files = model::small(4);
    for i in 0..6 {
        files.insert(format!("part-{i}"), Pattern::new(50 + i).bytes(0, 2 * PART as usize + 1));
    }
    files.insert("large".into(), Pattern::new(40).bytes(0, 11 * PART as usize + 3));
    files
}

async fn run(memory: &Arc<Memory>, manifest: &Manifest, destination: &TempDir) -> Result<Content, Error> {
    pull(manifest, source(memory), destination.path(), limits(3), Arc::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_arrives_beside_what_is_there() {
    let (mut files, memory) = (files(), Memory::new(&files()));
    let manifest = memory.manifest().await;
    let destination = tempfile::tempdir().unwrap();
    let stranger = destination.path().join("tokenizer/stranger");
    fs::create_dir(destination.path().join("tokenizer")).unwrap();
    fs::write(&stranger, "stays").unwrap();
    fs::set_permissions(&stranger, fs::Permissions::from_mode(0o644)).unwrap();
    // In the way of a file of the model: replaced, in one step.
    fs::write(destination.path().join("config.json"), "old").unwrap();
    let old = fs::File::open(destination.path().join("config.json")).unwrap();

    let progress = Arc::new(Progress::default());
    let pulled = pull(&manifest, source(&memory), destination.path(), limits(3), Arc::clone(&progress)).await.unwrap();
    let amounts = progress.amounts();
    assert_eq!((amounts.percent(), amounts.files_done), (100, files.len() as u64));
    assert_eq!(amounts.bytes_done, files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    let digests: Vec<_> = pulled.files.iter().map(|(path, digest, _)| (path, *digest)).collect();
    assert_eq!(pulled.digest, content_digest(digests));
    for (path, digest, size) in &pulled.files {
        let bytes = &files[path.as_str()];
        assert_eq!((*digest, *size), (Digest::of(bytes), bytes.len() as u64));
    }
    files.insert("tokenizer/stranger".into(), b"stays".to_vec());
    assert_tree(destination.path(), &files, 0o644);
    assert_eq!(std::io::read_to_string(old).unwrap(), "old", "who has the old file open keeps it");
    assert!(!destination.path().join(WORK).exists());

    // And over itself.
    run(&memory, &manifest, &destination).await.unwrap();
    assert_tree(destination.path(), &files, 0o644);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_given_up_goes_on_where_it_was() {
    let (files, memory) = (files(), Memory::gated(&files()));
    let manifest = memory.manifest().await;
    let destination = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        memory.let_through(24);
        tokio::select! {
            pulled = run(&memory, &manifest, &destination) => panic!("it can't be done yet: {pulled:?}"),
            () = eventually("the chunks to be taken", SOON, || memory.is_waiting()) => {}
        }
        // No file has a name before it is complete.
        for (path, bytes) in &files {
            let there = fs::read(destination.path().join(path));
            assert!(there.is_err() || there.unwrap() == *bytes, "{path}");
        }
    }
    memory.let_through(10_000);
    run(&memory, &manifest, &destination).await.unwrap();
    assert_tree(destination.path(), &files, 0o644);
    let size: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    let waste = memory.bytes_read() - size;
    // Of each of three runs the parts in flight, on three connections.
    assert!(waste <= 3 * 3 * PART, "{waste} bytes were fetched twice");
}

/// What an interrupted run had placed is believed only as long as nobody touched it.
#[tokio::test(flavor = "multi_thread")]
async fn a_placed_file_that_was_touched_is_fetched_again() {
    let (files, memory) = (files(), Memory::gated(&files()));
    let manifest = memory.manifest().await;
    let destination = tempfile::tempdir().unwrap();
    // All but the last of the chunks.
    let chunks: usize = files.values().map(|bytes| bytes.len().div_ceil(16 << 10)).sum();
    memory.let_through(chunks - 1);
    tokio::select! {
        pulled = run(&memory, &manifest, &destination) => panic!("it can't be done yet: {pulled:?}"),
        () = eventually("the chunks to be taken", SOON, || memory.is_waiting()) => {}
    }
    let large = destination.path().join("large");
    eventually("the first file, or the others", SOON, || {
        large.exists() || destination.path().join("config.json").exists()
    })
    .await;
    for path in files.keys() {
        let path = destination.path().join(path);
        if path.exists() {
            let size = path.metadata().unwrap().len() as usize;
            fs::write(&path, vec![b'x'; size]).unwrap();
        }
    }
    memory.let_through(10_000);
    run(&memory, &manifest, &destination).await.unwrap();
    assert_tree(destination.path(), &files, 0o644);
}

/// What was placed of a file whose source tells no versions may not be what the source has now.
#[tokio::test(flavor = "multi_thread")]
async fn a_placed_file_without_a_version_is_fetched_again() {
    let memory = Memory::gated_bare(&files());
    let destination = tempfile::tempdir().unwrap();
    let chunks: usize = files().values().map(|bytes| bytes.len().div_ceil(16 << 10)).sum();
    memory.let_through(chunks - 1);
    let manifest = memory.manifest().await;
    tokio::select! {
        pulled = run(&memory, &manifest, &destination) => panic!("it can't be done yet: {pulled:?}"),
        () = eventually("the chunks to be taken", SOON, || memory.is_waiting()) => {}
    }
    let mut newer = files();
    for (path, bytes) in &mut newer {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        memory.put(path, bytes.clone());
    }
    memory.let_through(10_000);
    run(&memory, &memory.manifest().await, &destination).await.unwrap();
    assert_tree(destination.path(), &newer, 0o644);
}

/// A newer version replaces the files of the older one.
#[tokio::test(flavor = "multi_thread")]
async fn another_version_over_an_interrupted_one() {
    let (mut files, memory) = (files(), Memory::gated(&files()));
    let destination = tempfile::tempdir().unwrap();
    memory.let_through(40);
    let manifest = memory.manifest().await;
    tokio::select! {
        pulled = run(&memory, &manifest, &destination) => panic!("it can't be done yet: {pulled:?}"),
        () = eventually("the chunks to be taken", SOON, || memory.is_waiting()) => {}
    }
    for path in ["large", "config.json"] {
        let other = Pattern::new(41).bytes(0, files[path].len());
        memory.put(path, other.clone());
        files.insert(path.into(), other);
    }
    memory.let_through(10_000);
    run(&memory, &memory.manifest().await, &destination).await.unwrap();
    assert_tree(destination.path(), &files, 0o644);
    assert!(!destination.path().join(WORK).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_is_never_placed() {
    for name in ["large", "config.json"] {
        let memory = Memory::new(&files());
        memory.declare(name, Digest::of("something else"));
        let destination = tempfile::tempdir().unwrap();
        let error = run(&memory, &memory.manifest().await, &destination).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(!destination.path().join(name).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_the_way_is_named() {
    let memory = Memory::new(&files());
    let destination = tempfile::tempdir().unwrap();
    fs::create_dir(destination.path().join("config.json")).unwrap();
    let error = run(&memory, &memory.manifest().await, &destination).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.report().contains("config.json"), "{error:?}");
    assert!(destination.path().join("config.json").is_dir());
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn from_a_real_server() {
    use modelmount_test_support::S3Kind;

    let Some(bucket) = crate::bucket::Bucket::start(S3Kind::Versitygw).await else { return };
    let mut files = files();
    files.extend(model::odd(2));
    bucket.put_model("model", &files).await;
    let (source, manifest) = bucket.resolve("model").await.unwrap();
    let destination = tempfile::tempdir().unwrap();
    pull(&manifest, source, destination.path(), limits(3), Arc::default()).await.unwrap();
    assert_tree(destination.path(), &files, 0o644);
    let directory = destination.path().join("tokenizer").metadata().unwrap();
    assert_eq!(directory.mode() & 0o700, 0o700);
}
