//! `fetch::pull` unpacks into the destination, as KServe does.

use modelmount::fetch::pull;
use modelmount::{Content, Digest, Error, Manifest};
use modelmount_test_support::eventually;
use tempfile::TempDir;

use super::*;
use crate::memory::source;
use crate::node::{SOON, assert_tree, limits};

const WORK: &str = ".modelmount-pull";

async fn run(memory: &Arc<Memory>, manifest: &Manifest, destination: &TempDir) -> Result<Content, Error> {
    let pulled = pull(manifest, source(memory), destination.path(), limits(3), Arc::default()).await?;
    assert_eq!(pulled.digest, Content::read(destination.path()).unwrap().digest);
    Ok(pulled)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format() {
    let files = files();
    for (name, how) in FORMATS {
        let bytes = pack(&files, how).unwrap();
        let memory = memory(name, &bytes);
        let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
        let destination = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let pulled = run(&memory, &manifest, &destination).await.unwrap();
            assert!(pulled.has_digest(Digest::of(&bytes)) && !pulled.has_digest(Digest::of("x")));
            assert_tree(destination.path(), &files, 0o644);
            assert!(!destination.path().join(WORK).exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers() {
    let base = [("models/a".to_owned(), b"1".to_vec()), ("models/b".to_owned(), b"2".to_vec())].into();
    let top = [("models/.wh.a".to_owned(), Vec::new()), ("models/c".to_owned(), b"3".to_vec())].into();
    let images: Files = [("0".to_owned(), tar(&base).unwrap()), ("1".to_owned(), tar(&top).unwrap())].into();
    let memory = Memory::new(&images);
    let manifest = memory.manifest_unpacking(|path| Some(layer(path.parse().unwrap()))).await;
    let destination = tempfile::tempdir().unwrap();
    run(&memory, &manifest, &destination).await.unwrap();
    let expected = [("b".to_owned(), b"2".to_vec()), ("c".to_owned(), b"3".to_vec())].into();
    assert_tree(destination.path(), &expected, 0o644);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_given_up_goes_on_where_it_was() {
    let (files, other) = (files(), one("other", Pattern::new(7).bytes(0, 3 * PART as usize)));
    let bytes = tar(&files).unwrap();
    let mut all = one("m.tar", bytes.clone());
    all.insert("n.tar".into(), tar(&other).unwrap());
    let memory = Memory::gated(&all);
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    let destination = tempfile::tempdir().unwrap();
    let chunks: usize = all.values().map(|bytes| bytes.len().div_ceil(16 << 10)).sum();
    for portion in [chunks / 3, chunks / 3, chunks / 4] {
        memory.let_through(portion);
        tokio::select! {
            pulled = run(&memory, &manifest, &destination) => panic!("it can't be done yet: {pulled:?}"),
            () = eventually("the chunks to be taken", SOON, || memory.is_waiting()) => {}
        }
        let there = walk(destination.path());
        assert!(there.iter().all(|(path, _)| path.starts_with(WORK)), "no file has a name before all is there");
    }
    memory.let_through(10_000);
    run(&memory, &manifest, &destination).await.unwrap();
    let mut expected = files;
    expected.extend(other);
    assert_tree(destination.path(), &expected, 0o644);
    let waste = memory.bytes_read() - size(&all);
    assert!(waste <= 3 * 3 * PART, "{waste} bytes were fetched twice");
}

/// Killed while members were placed: what is placed is believed as long as nobody touched it.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_were_placed() {
    for touched in [false, true] {
        let files = files();
        let mut all = one("m.tar", tar(&files).unwrap());
        all.insert("notes".into(), b"plain".to_vec());
        let memory = Memory::new(&all);
        let manifest = memory.manifest_unpacking(|path| path.ends_with(".tar").then(archive)).await;
        let destination = tempfile::tempdir().unwrap();
        // A directory in the way stops it after it has placed all that come before.
        fs::create_dir_all(destination.path().join("shards/part-2")).unwrap();
        run(&memory, &manifest, &destination).await.unwrap_err();
        let read = memory.bytes_read();
        assert!(destination.path().join("shards/part-1").is_file() && destination.path().join(WORK).exists());
        fs::remove_dir(destination.path().join("shards/part-2")).unwrap();
        if touched {
            fs::write(destination.path().join("shards/part-1"), "touched").unwrap();
        }
        run(&memory, &manifest, &destination).await.unwrap();
        let mut expected = files;
        expected.insert("notes".into(), b"plain".to_vec());
        assert_tree(destination.path(), &expected, 0o644);
        assert_eq!(memory.bytes_read() > read, touched, "fetched again only what was touched");
    }
}
