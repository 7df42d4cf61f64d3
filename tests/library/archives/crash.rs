//! Every state in which a kill or a power loss can leave an archive on the disk, and what the next start makes of it.

use std::os::unix::fs::FileExt;

use modelmount::{Digest, Manifest};
use modelmount_test_support::eventually;

use super::*;
use crate::memory::source;
use crate::node::{SOON, assert_snapshot, limits, marks};

/// A node that has an archive's files and has flushed them, and the state of its disk right after the archive arrived.
struct Scene {
    files: Files,
    memory: Arc<Memory>,
    manifest: Manifest,
    node: Node,
    size: u64,
}

impl Scene {
    async fn new() -> Self {
        let files = files();
        let bytes = tar(&files).unwrap();
        let memory = memory("m.tar", &bytes);
        let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
        Self { files, memory, manifest, node: Node::new(limits(2)), size: bytes.len() as u64 }
    }

    /// As [`Self::new`], with the archive complete in its partial, and nothing else.
    async fn downloaded() -> Self {
        let scene = Self::new().await;
        let plain = scene.memory.manifest().await;
        scene.node.fetch(&source(&scene.memory), &plain).await.unwrap();
        scene.node.flushed().await;
        let root = scene.node.root();
        let partial = scene.partial();
        fs::create_dir(&partial).unwrap();
        let hex = Digest::of(tar_of(&scene).await).hex();
        let blob = root.join("blobs/sha256").join(&hex[..2]).join(hex);
        fs::rename(blob, partial.join("data")).unwrap();
        fs::write(partial.join("parts"), marks(&fs::read(partial.join("data")).unwrap())).unwrap();
        forget_snapshots(&root);
        scene
    }

    async fn complete() -> Self {
        let scene = Self::new().await;
        scene.node.fetch(&source(&scene.memory), &scene.manifest).await.unwrap();
        scene.node.flushed().await;
        scene
    }

    fn partial(&self) -> std::path::PathBuf {
        self.node.root().join("partial").join(self.manifest.entries()[0].origin.hex())
    }

    fn records(&self) -> Vec<std::path::PathBuf> {
        let root = self.node.root().join("unpacked");
        walk(&root).into_iter().map(|(path, _)| root.join(path)).collect()
    }

    /// Starts again and fetches; returns how many bytes came from the source. Nothing stays that is of no use.
    async fn converges(&mut self, power_loss: bool) -> u64 {
        if power_loss {
            self.node.restart_after_power_loss(|_| ()).await;
        } else {
            self.node.restart().await;
        }
        let before = self.memory.bytes_read();
        assert_snapshot(&self.node.fetch(&source(&self.memory), &self.manifest).await.unwrap(), &self.files);
        let read = self.memory.bytes_read() - before;
        self.node.flushed().await;
        assert_eq!(stored(&self.node), size(&self.files));
        self.node.restart().await;
        assert_snapshot(&self.node.cache().snapshot(self.manifest.id()).unwrap(), &self.files);
        assert!(walk(&self.node.root().join("trash")).is_empty() && walk(&self.node.root().join("partial")).is_empty());
        read
    }
}

async fn tar_of(scene: &Scene) -> Vec<u8> {
    let plain = scene.memory.manifest().await;
    let snapshot = scene.node.cache().snapshot(plain.id()).unwrap();
    fs::read(snapshot.tree().join("m.tar")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_steps() {
    // Downloaded, not yet unpacked.
    let mut scene = Scene::downloaded().await;
    assert_eq!(scene.converges(false).await, 0);

    // Half unpacked, into whatever directory.
    let mut scene = Scene::downloaded().await;
    let stray = scene.node.root().join("partial").join(Digest::of("key").hex());
    fs::create_dir(&stray).unwrap();
    fs::write(stray.join(Digest::of("member").hex()), "half a member").unwrap();
    assert_eq!(scene.converges(false).await, 0);

    // Some members committed, the record not yet written.
    let mut scene = Scene::downloaded().await;
    scene.node.fetch(&source(&scene.memory), &scene.manifest).await.unwrap();
    scene.node.flushed().await;
    let again = Scene::downloaded().await;
    fs::rename(again.partial(), scene.partial()).unwrap();
    for record in scene.records() {
        fs::remove_file(record).unwrap();
    }
    forget_snapshots(&scene.node.root());
    let half = walk(&scene.node.root().join("blobs")).pop().unwrap().0;
    fs::remove_file(scene.node.root().join("blobs").join(half)).unwrap();
    assert_eq!(scene.converges(false).await, 0);

    // The record written, the archive not yet removed.
    let mut scene = Scene::complete().await;
    let again = Scene::downloaded().await;
    fs::rename(again.partial(), scene.partial()).unwrap();
    let key = scene.records()[0].file_name().unwrap().to_str().unwrap().to_owned();
    fs::write(scene.partial().join("unpacked"), key).unwrap();
    assert_eq!(scene.converges(false).await, 0);

    // Marked, the record not yet written.
    let mut scene = Scene::downloaded().await;
    fs::write(scene.partial().join("unpacked"), Digest::of("key").hex()).unwrap();
    assert_eq!(scene.converges(false).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn power_lost() {
    // Nothing was lost after all.
    let mut scene = Scene::complete().await;
    assert_eq!(scene.converges(true).await, 0);

    // The record lost its content.
    for text in ["", "{", "null", "{\"files\":{}}"] {
        let mut scene = Scene::complete().await;
        fs::write(&scene.records()[0], text).unwrap();
        forget_snapshots(&scene.node.root());
        assert_eq!(scene.converges(true).await, scene.size, "{text:?}");
    }

    // A member was not flushed, and lost its content.
    let mut scene = Scene::complete().await;
    let (path, _) = walk(&scene.node.root().join("blobs")).into_iter().max_by_key(|(_, blob)| blob.len()).unwrap();
    let blob = scene.node.root().join("blobs").join(path);
    let partial = scene.node.root().join("partial").join(Digest::of("a member's origin").hex());
    fs::create_dir(&partial).unwrap();
    fs::hard_link(&blob, partial.join("data")).unwrap();
    fs::File::options().write(true).open(&blob).unwrap().write_all_at(&[0; 4096], 100).unwrap();
    assert_eq!(scene.converges(true).await, scene.size);
}

/// A transfer that nobody wants any more ends its thread, and a later one goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_and_resumed() {
    let files = files();
    let bytes = pack(&files, "tar -cf - . | gzip -1").unwrap();
    let memory = Memory::gated(&one("m.tar.gz", bytes.clone()));
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    let mut node = Node::new(limits(2));
    for round in 0..4 {
        let transfer = node.transfers().join(manifest.clone(), source(&memory));
        memory.let_through(bytes.len() / (16 << 10) / 5);
        eventually("the chunks to be taken", SOON, || memory.is_waiting()).await;
        drop(transfer);
        if round % 2 == 0 {
            node.restart().await;
        }
    }
    memory.let_through(10_000);
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
    let waste = memory.bytes_read() - bytes.len() as u64;
    assert!(waste <= 4 * 2 * PART, "{waste} bytes were fetched twice");
    node.flushed().await;
}
