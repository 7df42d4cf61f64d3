//! An archive arrives as the files in it, and only once.

use modelmount::Digest;
use modelmount_test_support::eventually;

use super::*;
use crate::memory::source;
use crate::node::{SOON, assert_snapshot, limits};

#[tokio::test(flavor = "multi_thread")]
async fn every_format_in_one_piece_and_in_parts() {
    let files = files();
    for (name, how) in FORMATS {
        let Some(bytes) = pack(&files, how) else { return };
        for memory in [Memory::new(&one(name, bytes.clone())), Memory::bare(&one(name, bytes.clone()))] {
            let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
            let node = Node::new(limits(3));
            let transfer = node.transfers().join(manifest.clone(), source(&memory));
            let snapshot = transfer.wait().await.unwrap();
            assert_snapshot(&snapshot, &files);
            assert_eq!(snapshot.id(), manifest.id());
            let amounts = transfer.amounts();
            assert_eq!(
                (amounts.percent(), amounts.bytes_fetched % bytes.len() as u64),
                (100, 0),
                "{name}: {amounts:?}"
            );
            for file in snapshot.files() {
                assert_eq!(file.digest, Digest::of(&files[file.path.as_str()]));
            }
            node.flushed().await;
            assert_eq!(stored(&node), size(&files), "{name}: the archive itself is not kept");
            // What was flushed is out of sight first, and then removed.
            eventually("the trash to be empty", SOON, || walk(&node.root().join("trash")).is_empty()).await;
        }
    }
}

/// Members are there before the archive is.
#[tokio::test(flavor = "multi_thread")]
async fn a_tar_is_unpacked_while_it_arrives() {
    let files = files();
    for how in ["tar -cf - .", "tar -cf - . | gzip -1", "tar -cf - . | zstd -q -1"] {
        let Some(bytes) = pack(&files, how) else { return };
        let memory = Memory::gated(&one("model", bytes.clone()));
        let node = Node::new(limits(1));
        let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
        let transfer = node.transfers().join(manifest, source(&memory));
        // All but the last chunk of 16 KiB.
        memory.let_through(bytes.len().div_ceil(16 << 10) - 1);
        let written = || {
            let partial = walk(&node.root().join("partial"));
            partial.iter().filter(|(path, _)| !path.ends_with("/data")).map(|(_, file)| file.len()).sum::<u64>()
        };
        // A decoder of zstd keeps a window back, here of half a megabyte.
        eventually("many of the members", SOON, || written() > size(&files) * 4 / 10).await;
        assert_eq!(stored(&node), 0, "nothing counts before the archive is verified");
        memory.let_through(1);
        assert_snapshot(&transfer.wait().await.unwrap(), &files);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_unpacked_is_not_fetched_again() {
    let (files, bytes) = (files(), tar(&files()).unwrap());
    let (memory, whole) = (memory("m.tar", &bytes), Digest::of(&bytes));
    let mut node = Node::new(limits(3));
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    node.fetch(&source(&memory), &manifest).await.unwrap();
    let read = memory.bytes_read();
    for _ in 0..2 {
        node.restart().await;
        let snapshot = node.cache().snapshot(manifest.id()).unwrap();
        assert_snapshot(&snapshot, &files);
        assert!(snapshot.has_digest(whole) && !snapshot.has_digest(Digest::of("x")));
        forget_snapshots(&node.root());
        node.restart().await;
        let snapshot = node.fetch(&source(&memory), &manifest).await.unwrap();
        assert_snapshot(&snapshot, &files);
        assert!(snapshot.has_digest(whole));
        node.flushed().await;
    }
    // Another volume has it somewhere else.
    let below = RelPath::parse("base").unwrap();
    let moved = modelmount::Manifest::join(vec![(Some(below), manifest.clone())]).unwrap();
    assert_ne!(moved.id(), manifest.id());
    let elsewhere = files.iter().map(|(path, bytes)| (format!("base/{path}"), bytes.clone())).collect();
    assert_snapshot(&node.fetch(&source(&memory), &moved).await.unwrap(), &elsewhere);
    assert_eq!(memory.bytes_read(), read, "all of that without the source");
    assert_eq!(stored(&node), size(&files));

    // A member that is gone makes the record worthless.
    let lost = walk(&node.root().join("blobs")).into_iter().max_by_key(|(_, blob)| blob.len()).unwrap().0;
    fs::remove_file(node.root().join("blobs").join(lost)).unwrap();
    forget_snapshots(&node.root());
    node.restart().await;
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
    assert_eq!(memory.bytes_read(), 2 * read);
}

/// One volume wants the archive, another what is in it: it is fetched once.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_there_is_unpacked_without_its_source() {
    let files = files();
    for (name, how) in FORMATS {
        let bytes = pack(&files, how).unwrap();
        let memory = memory(name, &bytes);
        let node = Node::new(limits(3));
        let plain = memory.manifest().await;
        assert_snapshot(&node.fetch(&source(&memory), &plain).await.unwrap(), &one(name, bytes.clone()));
        let unpacked = memory.manifest_unpacking(|_| Some(archive())).await;
        assert_ne!(plain.id(), unpacked.id());
        assert_snapshot(&node.fetch(&source(&memory), &unpacked).await.unwrap(), &files);
        assert_eq!(memory.bytes_read(), bytes.len() as u64);
    }
}

/// Nor does it wait for archives whose servers stall, however many: also one that takes much memory to read.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_there_is_unpacked_beside_those_that_stall() {
    let files = files();
    let node = Node::new(limits(16));
    let bytes = pack(&files, "tar -cf - . | zstd -q -1 --long=27").unwrap();
    assert_eq!(bytes[5] >> 3, 17, "a window of 128 MiB");
    let memory = memory("m.tar.zst", &bytes);
    node.fetch(&source(&memory), &memory.manifest().await).await.unwrap();

    let several = (0..8).map(|i| (format!("{i}.tar"), tar(&one("x", vec![i; 9000])).unwrap())).collect();
    let stalled = Memory::gated(&several);
    let numbered = |path: &str| Unpack { into: Some(RelPath::parse(&path[..1]).unwrap()), ..archive() };
    let manifest = stalled.manifest_unpacking(|path| Some(numbered(path))).await;
    let transfer = node.transfers().join(manifest, source(&stalled));
    eventually("as many to stall as are unpacked at a time", SOON, || stalled.requests() >= 4).await;
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);

    stalled.let_through(1000);
    let expected = (0..8).map(|i| (format!("{i}/x"), vec![i; 9000])).collect();
    assert_snapshot(&transfer.wait().await.unwrap(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_might_have_been_one_stays_a_file() {
    let perhaps = || Some(Unpack { kind: Kind::Perhaps, ..archive() });
    for bytes in [
        Vec::new(),
        b"x".to_vec(),
        Pattern::new(3).bytes(0, 9 * PART as usize),
        pack(&files(), "gzip -c shards/*").unwrap(),
    ] {
        let files = one("model", bytes.clone());
        let memory = Memory::new(&files);
        let manifest = memory.manifest_unpacking(|_| perhaps()).await;
        let mut node = Node::new(limits(3));
        assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
        forget_snapshots(&node.root());
        node.restart().await;
        assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
        assert_eq!(memory.bytes_read(), bytes.len() as u64);
        node.flushed().await;
    }
    let memory = memory("model", &tar(&files()).unwrap());
    let manifest = memory.manifest_unpacking(|_| perhaps()).await;
    assert_snapshot(&Node::new(limits(3)).fetch(&source(&memory), &manifest).await.unwrap(), &files());
}

/// Plain files beside an archive, and an archive in a directory.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_archives_make_one_model() {
    let mut all = one("inner.tar", tar(&files()).unwrap());
    all.insert("notes".into(), b"plain".to_vec());
    let memory = Memory::new(&all);
    let into = |path: &str| Some(Unpack { into: Some(RelPath::parse(path).unwrap()), ..archive() });
    let manifest = memory.manifest_unpacking(|path| if path == "notes" { None } else { into("in/side") }).await;
    let mut expected: Files = files().into_iter().map(|(path, bytes)| (format!("in/side/{path}"), bytes)).collect();
    expected.insert("notes".into(), b"plain".to_vec());
    let node = Node::new(limits(3));
    let snapshot = node.fetch(&source(&memory), &manifest).await.unwrap();
    assert_snapshot(&snapshot, &expected);
    assert!(!snapshot.has_digest(Digest::of(&all["inner.tar"])), "it is not all of the model");

    let manifest = memory.manifest_unpacking(|path| if path == "notes" { None } else { into("notes") }).await;
    let error = node.fetch(&source(&memory), &manifest).await.unwrap_err();
    assert!(error.report().contains("\"notes\" is a file and also the directory of"), "{error:?}");
}
