//! Nothing is trusted for being on the disk: a model that is not as its manifest says is mended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use modelmount::Selection;
use modelmount::unpack::{Kind, Unpack};
use modelmount_test_support::eventually;
use modelmount_test_support::model::{self, Files};

use crate::memory::{Memory, source};
use crate::node::{Node, SOON, assert_snapshot, assert_tree, limits};

/// Damages a complete model, and checks that it is not served; returns how many bytes were fetched to mend it.
async fn mends(damage: impl FnOnce(&Path)) -> u64 {
    let files = model::small(7);
    mends_model_of(&files, &Memory::new(&files), damage).await
}

async fn mends_model_of(files: &Files, memory: &Arc<Memory>, damage: impl FnOnce(&Path)) -> u64 {
    let manifest = memory.manifest().await;
    let mut node = Node::new(limits(2));
    let snapshot = node.fetch(&source(memory), &manifest).await.unwrap();
    let directory = snapshot.tree().parent().unwrap().to_owned();
    // As a pod that has it mounted.
    let mounted = File::open(snapshot.tree()).unwrap();
    node.flushed().await;
    node.stop().await;
    damage(&directory);
    let still_there = snapshot.tree().is_dir();
    node.restart().await;
    assert!(node.cache().snapshot(manifest.id()).is_none(), "it is not served as it is");
    let before = memory.bytes_read();
    assert_snapshot(&node.fetch(&source(memory), &manifest).await.unwrap(), files);
    if still_there {
        assert_tree(Path::new(&format!("/proc/self/fd/{}", mounted.as_raw_fd())), files, 0o444);
    }
    let trash = node.root().join("trash");
    eventually("nothing to be left over", SOON, || fs::read_dir(&trash).unwrap().next().is_none()).await;
    memory.bytes_read() - before
}

/// What the tree has lost, the blobs still have.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tree_is_laid_out_again() {
    let file = "tree/model.safetensors";
    let replaced = |directory: &Path, make: fn(&Path)| {
        fs::remove_file(directory.join(file)).unwrap();
        make(&directory.join(file));
    };
    assert_eq!(mends(|directory| fs::remove_file(directory.join(file)).unwrap()).await, 0);
    assert_eq!(mends(|directory| replaced(directory, |path| fs::write(path, "other").unwrap())).await, 0);
    assert_eq!(mends(|directory| replaced(directory, |path| symlink("/etc/shadow", path).unwrap())).await, 0);
    assert_eq!(mends(|directory| replaced(directory, |path| symlink("config.json", path).unwrap())).await, 0);
    assert_eq!(mends(|directory| replaced(directory, |path| fs::create_dir(path).unwrap())).await, 0);
    assert_eq!(mends(|directory| fs::remove_dir_all(directory.join("tree/tokenizer")).unwrap()).await, 0);
    assert_eq!(mends(|directory| fs::remove_dir_all(directory.join("tree")).unwrap()).await, 0);
    assert_eq!(mends(|directory| replaced(directory, |path| fs::create_dir_all(path.join("a/b")).unwrap())).await, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("tokenizer.json"), "not the cache's").unwrap();
    let links = |directory: &Path| {
        fs::remove_dir_all(directory.join("tree/tokenizer")).unwrap();
        symlink(elsewhere.path(), directory.join("tree/tokenizer")).unwrap();
    };
    assert_eq!(mends(links).await, 0);
    assert_eq!(fs::read_to_string(elsewhere.path().join("tokenizer.json")).unwrap(), "not the cache's");
    // What can't be mended where it lies gives way.
    let unmendable = |directory: &Path| {
        fs::remove_file(directory.join("manifest.json")).unwrap();
        fs::create_dir(directory.join("manifest.json")).unwrap();
        fs::remove_dir_all(directory.join("tree")).unwrap();
    };
    assert_eq!(mends(unmendable).await, 0);
    let is_file = |directory: &Path| {
        fs::remove_dir_all(directory).unwrap();
        fs::write(directory, "").unwrap();
    };
    assert_eq!(mends(is_file).await, 0);
}

/// What is nobody's goes when the rest is mended.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_stay_in_a_tree() {
    let strangers = |directory: &Path| {
        let tree = directory.join("tree");
        fs::write(tree.join("sitecustomize.py"), "").unwrap();
        fs::create_dir_all(tree.join("tokenizer/more/of/it")).unwrap();
        fs::write(tree.join("tokenizer/more/file"), "").unwrap();
        symlink("/etc", tree.join("etc")).unwrap();
        fs::write(tree.join(OsStr::from_bytes(b"\xff")), "").unwrap();
        fs::remove_file(tree.join("config.json")).unwrap();
    };
    assert_eq!(mends(strangers).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_the_models_is_not_believed() {
    let edit = |directory: &Path, from: &str, to: &str| {
        let path = directory.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    assert_eq!(mends(|directory| fs::remove_file(directory.join("manifest.json")).unwrap()).await, 0);
    assert_eq!(mends(|directory| edit(directory, "config.json", "../config.json")).await, 0);
    assert_eq!(mends(|directory| edit(directory, "config.json", "other.json")).await, 0);
    assert_eq!(mends(|directory| edit(directory, "\"size\":70001", "\"size\":70000")).await, 0);
    // One model's manifest under another's name.
    let renamed = |directory: &Path| edit(directory, "\"origin\":\"sha256:", "\"origin\":\"sha256:0");
    assert_eq!(mends(renamed).await, 0);
}

/// A whole model under another's name, complete in itself: it is not what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn another_models_directory_is_not_believed() {
    let memory = Memory::new(&model::small(1));
    let first = memory.manifest().await;
    memory.put("config.json", b"another version".to_vec());
    let second = memory.manifest().await;
    let mut node = Node::new(limits(2));
    let newer = node.fetch(&source(&memory), &second).await.unwrap();
    let (from, to) = (newer.tree().parent().unwrap().to_owned(), node.cache().snapshots_dir().join(first.id().hex()));
    node.restart().await;
    fs::rename(from, to).unwrap();
    assert!(node.cache().snapshot(first.id()).is_none() && node.cache().snapshot(second.id()).is_none());
}

/// A blob that is gone, or is not what its name says any more in any way that its size tells, is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_blob_is_fetched_again() {
    let remove = |directory: &Path| {
        let root = root_of(directory);
        let blobs = crate::node::walk(&root.join("blobs"));
        let (path, _) = blobs.into_iter().find(|(_, metadata)| metadata.len() == 70_001).unwrap();
        fs::remove_file(root.join("blobs").join(path)).unwrap();
    };
    assert_eq!(mends(remove).await, 70_001);
    // With the tree, which has the same inode.
    let cut = |directory: &Path| truncate_blob(&root_of(directory), 70_001);
    assert_eq!(mends(cut).await, 70_001);
    // Nor does it count where the source does not tell how long it has to be.
    let files = model::small(7);
    assert_eq!(mends_model_of(&files, &Memory::without_sizes(&files), cut).await, 70_001);
}

/// Nor is a member of an archive, whose record says how long it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_member_is_unpacked_again() {
    let files = model::small(7);
    let directory = tempfile::tempdir().unwrap();
    model::write(&files, directory.path()).unwrap();
    let packed = Command::new("tar").args(["-cf", "-", "."]).current_dir(directory.path()).output().unwrap();
    assert!(packed.status.success(), "{packed:?}");
    let memory = Memory::new(&[("m.tar".to_owned(), packed.stdout)].into());
    let archive = || Unpack { kind: Kind::Archive, below: None, into: None, selection: Selection::default() };
    let manifest = memory.manifest_unpacking(|_| Some(archive())).await;
    let mut node = Node::new(limits(2));
    node.fetch(&source(&memory), &manifest).await.unwrap();
    node.flushed().await;
    node.stop().await;
    truncate_blob(&node.root(), 70_001);
    node.restart().await;
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
    node.restart().await;
    assert_snapshot(&node.cache().snapshot(manifest.id()).unwrap(), &files);
}

fn root_of(snapshot: &Path) -> PathBuf {
    snapshot.parent().unwrap().parent().unwrap().to_owned()
}

/// Cuts the one blob that has this size.
fn truncate_blob(root: &Path, size: u64) {
    let blobs = root.join("blobs");
    let (path, _) = crate::node::walk(&blobs).into_iter().find(|(_, metadata)| metadata.len() == size).unwrap();
    File::options().write(true).open(blobs.join(path)).unwrap().set_len(size / 2).unwrap();
}

/// Within one process as well, and while the model is known to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_goes_away_is_noticed_at_once() {
    let files = model::small(8);
    let memory = Memory::new(&files);
    let manifest = memory.manifest().await;
    let node = Node::new(limits(2));
    let snapshot = node.fetch(&source(&memory), &manifest).await.unwrap();
    fs::remove_dir_all(snapshot.tree()).unwrap();
    assert!(node.cache().snapshot(manifest.id()).is_none());
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &files);
}

/// ext4 has a limit of links to one file; a file that has reached it is copied.
#[tokio::test(flavor = "multi_thread")]
async fn more_links_than_the_file_system_has() {
    let files = [("license".to_owned(), b"Apache-2.0".to_vec())].into();
    let memory = Memory::new(&files);
    let mut node = Node::new(limits(2));
    let snapshot = node.fetch(&source(&memory), &memory.manifest().await).await.unwrap();
    let links = tempfile::tempdir_in(node.root()).unwrap();
    let full = (0..65_100).find_map(|i| {
        let link = fs::hard_link(snapshot.tree().join("license"), links.path().join(i.to_string()));
        link.err().map(|error| error.kind())
    });
    // Other file systems have room for more than a test should make.
    if full != Some(std::io::ErrorKind::TooManyLinks) {
        return;
    }
    let other = [("license".to_owned(), b"Apache-2.0".to_vec()), ("more".to_owned(), b"more".to_vec())].into();
    memory.put("more", b"more".to_vec());
    let manifest = memory.manifest().await;
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &other);
    node.restart().await;
    assert_snapshot(&node.cache().snapshot(manifest.id()).unwrap(), &other);
}
