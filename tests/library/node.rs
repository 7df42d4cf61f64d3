//! What the tests share: a node with a cache, and what it resolves.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use modelmount::cache::KeepFree;
use modelmount::model::MODEL_URI;
use modelmount::source::Portion;
use modelmount::{
    Cache, Context, Credentials, Entry, Error, Limits, Manifest, Model, ModelRequest, Policy, Snapshot, Transfers,
};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::eventually;
use modelmount_test_support::model::Files;
use tempfile::TempDir;
use tokio::runtime::Handle;

/// For what must happen at all, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The attributes of a model at a server of the test's own.
pub(crate) fn attributes(uri: &str, endpoint: &str) -> Attributes {
    [(MODEL_URI, uri), ("endpoint", endpoint)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Opens and lists a model, as anything may that reaches loopback.
pub(crate) async fn resolve(attributes: &Attributes, credentials: &Credentials) -> Result<(Model, Manifest), Error> {
    resolve_under(Policy::unrestricted(), attributes, credentials).await
}

pub(crate) async fn resolve_under(
    policy: Policy,
    attributes: &Attributes,
    credentials: &Credentials,
) -> Result<(Model, Manifest), Error> {
    let request = ModelRequest::from_attributes(attributes)?;
    let model = request.open(credentials, &Context::new(policy)?)?;
    let manifest = request.resolve(&model).await?;
    Ok((model, manifest))
}

/// Whether these credentials may read this file.
pub(crate) async fn authorize(model: &Model, entry: &Entry) -> Result<(), Error> {
    model.authorize(&[Arc::new(entry.clone())]).await
}

/// All bytes of a file.
pub(crate) async fn read(model: &Model, entry: &Entry) -> Result<Vec<u8>, Error> {
    let pieces: Vec<_> = model.read(entry, Portion::Whole).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// A single file at a web server.
#[cfg(feature = "http")]
pub(crate) async fn resolve_url(url: &str) -> (Model, Manifest) {
    let attributes = [(MODEL_URI.to_owned(), url.to_owned())].into();
    resolve(&attributes, &Credentials::none()).await.unwrap()
}

/// Small enough that a file of some hundred kilobytes has many parts.
pub(crate) const PART: u64 = 64 << 10;

pub(crate) fn limits(connections: usize) -> Limits {
    Limits { connections, part_size: PART }
}

/// A node: a cache in a directory of its own, and what fetches into it.
pub(crate) struct Node {
    limits: Limits,
    open: Option<(Arc<Cache>, Transfers)>,
    directory: TempDir,
}

impl Node {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut node = Self { limits, open: None, directory: tempfile::tempdir().unwrap() };
        node.start();
        node
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Closes the cache. Tasks of transfers that were given up still hold it for a moment.
    pub(crate) async fn stop(&mut self) {
        let Some((cache, transfers)) = self.open.take() else { return };
        drop(transfers);
        eventually("the cache to be nobody's", SOON, || Arc::strong_count(&cache) == 1).await;
    }

    /// Closes the cache and opens it again.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start();
    }

    fn start(&mut self) {
        let cache = Arc::new(Cache::open(&self.root(), KeepFree::Bytes(0)).unwrap());
        let transfers = Transfers::new(Arc::clone(&cache), self.limits, Handle::current());
        self.open = Some((cache, transfers));
    }

    /// As after a power loss: nobody knows which of the content has reached the disk.
    pub(crate) async fn restart_after_power_loss(&mut self, damage: impl FnOnce(&Path)) {
        self.stop().await;
        fs::write(self.root().join("boot"), "another boot").unwrap();
        damage(&self.root());
        self.start();
    }

    /// Waits until no committed content waits for the disk.
    pub(crate) async fn flushed(&self) {
        let partials = self.root().join("partial");
        eventually("the flush", SOON, || fs::read_dir(&partials).unwrap().next().is_none()).await;
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.open.as_ref().unwrap().0
    }

    pub(crate) fn transfers(&self) -> &Transfers {
        &self.open.as_ref().unwrap().1
    }

    pub(crate) async fn fetch(&self, model: &Model, manifest: &Manifest) -> Result<Snapshot, Error> {
        let transfer = self.transfers().join(manifest.clone(), model.clone());
        tokio::time::timeout(SOON, transfer.wait()).await.expect("a transfer ends")
    }
}

/// Checks that a snapshot's tree holds exactly these files, read-only.
pub(crate) fn assert_snapshot(snapshot: &Snapshot, files: &Files) {
    assert_tree(&snapshot.tree(), files, 0o444);
    assert_eq!(snapshot.bytes(), files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
}

/// Checks that a directory holds exactly these files and no more, with this mode.
pub(crate) fn assert_tree(tree: &Path, files: &Files, mode: u32) {
    let found = walk(tree);
    let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, files.keys().map(String::as_str).collect::<Vec<_>>());
    for (path, metadata) in found {
        assert!(metadata.is_file(), "{path:?} is no file");
        assert_eq!(metadata.mode() & 0o7777, mode, "the mode of {path:?}");
        let bytes = fs::read(tree.join(&path)).unwrap();
        assert!(bytes == files[&path], "{path:?} has {} bytes that are not its own", bytes.len());
    }
}

/// All that is below a directory but directories, sorted by path. What a thread that was given up still removes is there or
/// not.
pub(crate) fn walk(directory: &Path) -> Vec<(String, fs::Metadata)> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let (mut found, mut pending) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = pending.pop() {
        let entries = match fs::read_dir(&next) {
            Err(error) if is_gone(&error) && next != directory => continue,
            entries => entries.unwrap(),
        };
        for entry in entries {
            let path = entry.unwrap().path();
            match path.symlink_metadata() {
                Err(error) if is_gone(&error) => {}
                metadata if metadata.as_ref().unwrap().is_dir() => pending.push(path),
                metadata => {
                    let path = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                    found.push((path, metadata.unwrap()));
                }
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The `parts` of a complete download, as the engine writes it.
pub(crate) fn marks(content: &[u8]) -> Vec<u8> {
    let mut marks = b"mmparts1".to_vec();
    marks.extend((content.len() as u64).to_le_bytes());
    marks.extend(PART.to_le_bytes());
    for part in content.chunks(PART as usize) {
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, part);
        marks.extend((sum | 1 << 32).to_le_bytes());
    }
    marks
}
