//! What is refused leaves nothing behind.

use modelmount::{Digest, ErrorKind, Manifest};
use modelmount_test_support::eventually;

use super::*;
use crate::memory::source;
use crate::node::{SOON, assert_snapshot, limits};

/// Fetches, which must fail so, and leave neither blobs nor downloads.
async fn refused(memory: &Arc<Memory>, manifest: &Manifest, kind: ErrorKind, hints: &[&str]) {
    let mut node = Node::new(limits(3));
    for _ in 0..2 {
        let error = node.fetch(&source(memory), manifest).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        for hint in hints {
            assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
        }
        // What unpacks ends a moment later, when the download was refused.
        eventually("nothing to be left", SOON, || {
            let kept = ["blobs", "origins", "unpacked", "partial", "snapshots", "trash"];
            kept.iter().all(|directory| walk(&node.root().join(directory)).is_empty())
        })
        .await;
        node.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_model_should_have() {
    let large = Pattern::new(1).bytes(0, 6 * PART as usize);
    let page = b"<!DOCTYPE html><html><body>Sign in".to_vec();
    let files: Files = [("a".to_owned(), large.clone()), ("b".to_owned(), large.clone())].into();
    let good = tar(&files).unwrap();
    let packed = pack(&files, "tar -cf - . | gzip -1").unwrap();
    let refusal = ErrorKind::FailedPrecondition;
    for (bytes, kind, hint) in [
        (pack(&files, "ln -s /etc/passwd link; tar -cf - .").unwrap(), refusal, "\"./link\" is a symbolic link"),
        (pack(&files, "ln a hard; tar -cf - .").unwrap(), refusal, "is a hard link"),
        (pack(&files, "mkfifo pipe; tar -cf - .").unwrap(), refusal, "\"./pipe\" is a named pipe"),
        (pack(&files, "chmod u+s b; tar -cf - .").unwrap(), refusal, "\"./b\" is a set-user-id or set-group-id file"),
        (pack(&files, "tar --transform=s,a,../../a, -cPf - .").unwrap(), refusal, "a component \".\" or \"..\""),
        (pack(&files, "tar --transform=s,^./,/tmp/, -cPf - .").unwrap(), refusal, "is absolute"),
        (
            pack(&files, "ln -s a link; zip -q -r -y ../x.zip . && cat ../x.zip; rm ../x.zip").unwrap(),
            refusal,
            "is a symbolic link",
        ),
        (pack(&files, "zip -q -r -P secret - .").unwrap(), refusal, "is encrypted"),
        (page, refusal, "it begins with \"<!DOCTYPE html>"),
        (large, refusal, "it begins with the bytes"),
        (good[..good.len() / 2].to_vec(), ErrorKind::Corrupt, "cut short"),
        ([&good[..], b"garbage"].concat(), ErrorKind::Corrupt, "goes on after its end"),
        (packed[..packed.len() / 2].to_vec(), ErrorKind::Corrupt, "cut short"),
    ] {
        for memory in [memory("model.tar.gz", &bytes), Memory::bare(&one("model.tar.gz", bytes))] {
            let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
            refused(&memory, &manifest, kind, &["\"model.tar.gz\": ", hint]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_digest() {
    let memory = memory("m.tar", &tar(&files()).unwrap());
    memory.declare("m.tar", Digest::of("something else"));
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    refused(&memory, &manifest, ErrorKind::Corrupt, &["where the source declares"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_files() {
    for how in ["tar -cf - --no-recursion .", "tar -cf - -T /dev/null | gzip"] {
        let memory = memory("m.tar", &pack(&files(), how).unwrap());
        let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
        let error = Node::new(limits(2)).fetch(&source(&memory), &manifest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
}

/// An archive that was replaced while it was fetched: no member of one version with those of another.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_changes_meanwhile() {
    let (old, new) = (files(), one("other", Pattern::new(9).bytes(0, 700_000)));
    let memory = Memory::gated(&one("m.tar", tar(&old).unwrap()));
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    let node = Node::new(limits(2));
    let transfer = node.transfers().join(manifest, source(&memory));
    memory.let_through(30);
    eventually("the chunks", SOON, || memory.is_waiting()).await;
    memory.put("m.tar", tar(&new).unwrap());
    memory.let_through(10_000);
    assert_eq!(transfer.wait().await.unwrap_err().kind(), ErrorKind::Changed);
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &new);
    node.flushed().await;
}

/// What has no size is refused room as it grows, and what is unpacked as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_meets_the_end_of_the_room() {
    let directory = tempfile::tempdir().unwrap();
    let disk = nix::sys::statvfs::statvfs(directory.path()).unwrap();
    let free = disk.blocks_available() * disk.fragment_size();
    // 2 GiB of zeros; 400 MiB may be used.
    let keep = modelmount::cache::KeepFree::Bytes(free.saturating_sub(400 << 20));
    let Some(bytes) = pack(&one("x", Vec::new()), "truncate -s 2G x; tar -cf - x | zstd -q -1") else { return };
    let memory = memory("m.tar.zst", &bytes);
    let cache = Arc::new(modelmount::Cache::open(&directory.path().join("cache"), keep).unwrap());
    let transfers = modelmount::Transfers::new(cache, limits(2), tokio::runtime::Handle::current());
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    let error = transfers.join(manifest, source(&memory)).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("no room for"), "{error:?}");
    let left: u64 = walk(directory.path()).iter().map(|(_, file)| file.len()).sum();
    assert!(left < bytes.len() as u64 + 4096, "{left} bytes are left");
}
