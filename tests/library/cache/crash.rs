//! Every state in which a kill or a power loss can leave the disk, made by hand, and what the next start makes of it:
//! never wrong bytes, and nothing fetched again that need not be.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelmount::{Digest, Manifest};
use modelmount_test_support::Pattern;
use modelmount_test_support::model::Files;

use crate::memory::{Memory, source};
use crate::node::{Node, PART, assert_snapshot, limits, marks, walk};

const LARGE: u64 = 6 * PART + 1;
const SMALL: u64 = 100;

/// A complete model of one file in parts and one in one piece, everything flushed.
struct Scene {
    files: Files,
    memory: Arc<Memory>,
    manifest: Manifest,
    node: Node,
}

impl Scene {
    async fn new() -> Self {
        let files: Files = [
            ("large".to_owned(), Pattern::new(1).bytes(0, LARGE as usize)),
            ("small".to_owned(), Pattern::new(2).bytes(0, SMALL as usize)),
        ]
        .into();
        let memory = Memory::new(&files);
        let manifest = memory.manifest().await;
        let node = Node::new(limits(2));
        node.fetch(&source(&memory), &manifest).await.unwrap();
        let scene = Self { files, memory, manifest, node };
        scene.node.flushed().await;
        scene
    }

    fn blob(&self, name: &str) -> PathBuf {
        let hex = Digest::of(&self.files[name]).hex();
        self.node.root().join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    fn origin(&self, name: &str) -> Digest {
        self.manifest.entries().iter().find(|entry| entry.path.as_str() == name).unwrap().origin
    }

    fn origin_link(&self, name: &str) -> PathBuf {
        let hex = self.origin(name).hex();
        self.node.root().join("origins").join(&hex[..2]).join(hex)
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.node.root().join("partial").join(self.origin(name).hex())
    }

    fn snapshot(&self) -> PathBuf {
        self.node.root().join("snapshots").join(self.manifest.id().hex())
    }

    /// Undoes the flush's tidying: the blob's content as a partial that was just linked.
    fn unflush(&self, name: &str) {
        let (partial, blob) = (self.partial(name), self.blob(name));
        fs::create_dir(&partial).unwrap();
        fs::hard_link(&blob, partial.join("data")).unwrap();
        if self.files[name].len() as u64 > PART {
            fs::write(partial.join("parts"), marks(&self.files[name])).unwrap();
        }
    }

    /// As [`Self::unflush`], before the blob was linked.
    fn uncommit(&self, name: &str) {
        self.unflush(name);
        self.remove_snapshot();
        fs::remove_file(self.blob(name)).unwrap();
    }

    fn remove_snapshot(&self) {
        if self.snapshot().exists() {
            fs::remove_dir_all(self.snapshot()).unwrap();
        }
    }

    /// Opens the cache again, fetches, compares all bytes, and returns how many were read from the source; and again,
    /// which reads nothing.
    async fn converges(&mut self, power_loss: bool) -> u64 {
        if power_loss {
            self.node.restart_after_power_loss(|_| ()).await
        } else {
            self.node.restart().await
        }
        if let Some(snapshot) = self.node.cache().snapshot(self.manifest.id()) {
            assert_snapshot(&snapshot, &self.files);
        }
        let before = self.memory.bytes_read();
        let snapshot = self.node.fetch(&source(&self.memory), &self.manifest).await.unwrap();
        assert_snapshot(&snapshot, &self.files);
        let read = self.memory.bytes_read() - before;
        for file in self.files.keys() {
            assert_eq!(
                fs::metadata(snapshot.tree().join(file)).unwrap().ino(),
                self.blob(file).metadata().unwrap().ino()
            );
        }
        self.node.flushed().await;
        self.node.restart().await;
        assert_snapshot(&self.node.cache().snapshot(self.manifest.id()).unwrap(), &self.files);
        assert_eq!(walk(&self.node.root().join("trash")).len(), 0);
        assert_eq!(walk(&self.node.root().join("partial")).len(), 0);
        read
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_cache_survives_everything() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.converges(false).await, 0);
    assert_eq!(scene.converges(true).await, 0);
}

/// Killed at each step of a commit: nothing is fetched again but what was in flight in one piece.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_steps_of_a_commit() {
    for name in ["large", "small"] {
        // Downloaded, not yet committed; once as a download leaves it, once made read-only by a commit.
        for mode in [0o600, 0o444] {
            let mut scene = Scene::new().await;
            scene.uncommit(name);
            fs::remove_file(scene.origin_link(name)).unwrap();
            fs::set_permissions(scene.partial(name).join("data"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(scene.converges(false).await, if name == "large" { 0 } else { SMALL });
        }

        // Known, and the blob not yet linked.
        let mut scene = Scene::new().await;
        scene.uncommit(name);
        assert_eq!(scene.converges(false).await, if name == "large" { 0 } else { SMALL });

        // Linked, the model not yet laid out.
        let mut scene = Scene::new().await;
        scene.unflush(name);
        scene.remove_snapshot();
        assert_eq!(scene.converges(false).await, 0);

        // Laid out, not yet flushed.
        let mut scene = Scene::new().await;
        scene.unflush(name);
        assert_eq!(scene.converges(false).await, 0);

        // The partial half removed, and moved to the trash as a whole.
        let mut scene = Scene::new().await;
        fs::create_dir(scene.partial(name)).unwrap();
        scene.unflush_into_trash(name);
        assert_eq!(scene.converges(false).await, 0);
    }
}

impl Scene {
    fn unflush_into_trash(&self, name: &str) {
        let trash = self.node.root().join("trash");
        fs::create_dir_all(trash.join("1-1/tree/deep")).unwrap();
        fs::hard_link(self.blob(name), trash.join("1-1/tree/deep/file")).unwrap();
        fs::write(trash.join("1-2"), "a file").unwrap();
        std::os::unix::fs::symlink("/etc", trash.join("1-3")).unwrap();
    }
}

/// The power failed before content was flushed: what has all its bytes is kept, what lost some is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn power_lost_before_the_flush() {
    // Nothing was lost after all.
    let mut scene = Scene::new().await;
    scene.unflush("large");
    assert_eq!(scene.converges(true).await, 0);

    // What came in one piece has no sums to check it by.
    let mut scene = Scene::new().await;
    scene.unflush("small");
    assert_eq!(scene.converges(true).await, SMALL);

    // One page of one part.
    let mut scene = Scene::new().await;
    scene.unflush("large");
    zero(&scene.blob("large"), PART + 17, 4096);
    assert_eq!(scene.converges(true).await, PART);

    // The end of it.
    let mut scene = Scene::new().await;
    scene.unflush("large");
    truncate(&scene.blob("large"), 3 * PART + 5);
    assert_eq!(scene.converges(true).await, LARGE - 3 * PART);

    // All of it.
    let mut scene = Scene::new().await;
    for name in ["large", "small"] {
        scene.unflush(name);
        truncate(&scene.blob(name), 0);
    }
    assert_eq!(scene.converges(true).await, LARGE + SMALL);

    // The marks as well.
    let mut scene = Scene::new().await;
    scene.unflush("large");
    fs::write(scene.partial("large").join("parts"), "").unwrap();
    zero(&scene.blob("large"), 0, 10);
    assert_eq!(scene.converges(true).await, LARGE);
}

fn zero(path: &Path, offset: u64, length: usize) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(&vec![0; length], offset).unwrap();
}

fn truncate(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// A model that shares an unflushed blob goes with it, one that does not stays.
#[tokio::test(flavor = "multi_thread")]
async fn power_lost_takes_exactly_the_models_concerned() {
    let mut scene = Scene::new().await;
    let only_small = scene.memory.manifest_of("small").await;
    let only_large = scene.memory.manifest_of("large").await;
    for manifest in [&only_small, &only_large] {
        scene.node.fetch(&source(&scene.memory), manifest).await.unwrap();
    }
    scene.unflush("large");
    zero(&scene.blob("large"), 0, 10);
    scene.node.restart_after_power_loss(|_| ()).await;
    let cache = scene.node.cache();
    assert!(cache.snapshot(scene.manifest.id()).is_none() && cache.snapshot(only_large.id()).is_none());
    assert!(cache.snapshot(only_small.id()).is_some());
    assert_eq!(scene.converges(false).await, PART);
}

/// As power loss leaves small files: a name, and nothing in it.
#[tokio::test(flavor = "multi_thread")]
async fn power_lost_before_a_small_file_was_written() {
    for text in ["", "{", "null"] {
        let mut scene = Scene::new().await;
        fs::write(scene.snapshot().join("manifest.json"), text).unwrap();
        assert_eq!(scene.converges(true).await, 0, "{text:?}");
    }
    for empty in ["layout", "boot", "leases/torn.json", "leases/torn.new"] {
        let mut scene = Scene::new().await;
        fs::write(scene.node.root().join(empty), "").unwrap();
        assert_eq!(scene.converges(false).await, 0, "{empty}");
        assert!(scene.node.cache().leases().all().is_empty());
    }
}

/// Names that nobody made are no reason not to start.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_no_obstacle() {
    let mut scene = Scene::new().await;
    let root = scene.node.root();
    for file in ["partial/stray", "snapshots/stray", "blobs/sha256/stray", "leases/stray", "origins/stray", "stray"] {
        fs::write(root.join(file), "").unwrap();
    }
    for directory in ["partial/lost+found", "snapshots/lost+found", "blobs/sha256/lost+found", "leases/lost+found"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    assert_eq!(scene.converges(false).await, 0);
    scene.unflush("small");
    assert_eq!(scene.converges(true).await, SMALL);
}
