//! Snapshots: one model's files laid out for mounting, with a manifest that says what they must be.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::blob::same_file;
use super::layout::{Layout, named_after};
use super::lease::Leases;
use super::mend::mend;
use crate::content::{content_digest, satisfies};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Manifest, RelPath, identity};
use crate::unpack::Unpack;

/// Names in a snapshot's directory.
pub(super) const TREE: &str = "tree";
pub(super) const MANIFEST: &str = "manifest.json";

/// One file of a stored model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path below the model's root.
    pub path: RelPath,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content.
    pub digest: Digest,
    /// Which version of which file at the source this is, or which member of one.
    pub origin: Digest,
}

/// One entry of the manifest that a model was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    path: RelPath,
    origin: Digest,
    /// [`Unpack::canonical`]; none for a file that was taken as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unpack: Option<String>,
}

/// `manifest.json` of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Contents {
    /// The URI, as it may be shown.
    uri: String,
    revision: Option<String>,
    digest: Digest,
    /// Digest of the one archive that all of it was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<Digest>,
    bytes: u64,
    /// Seconds since 1970.
    created: u64,
    files: Vec<StoredFile>,
    /// What the id is made of, when some of it was unpacked; else that is `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
}

impl Contents {
    /// The id of the manifest that this was made from.
    fn id(&self) -> Digest {
        if self.parts.is_empty() {
            return identity(self.files.iter().map(|file| (&file.path, file.origin, None)));
        }
        identity(self.parts.iter().map(|part| (&part.path, part.origin, part.unpack.clone())))
    }

    pub(super) fn files(&self) -> &[StoredFile] {
        &self.files
    }

    /// The directories that the files lie in, below the model's root; each after those that it lies in.
    pub(super) fn directories(&self) -> BTreeSet<&str> {
        self.files.iter().flat_map(|file| file.path.ancestors()).collect()
    }
}

/// A complete model in the cache.
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: Digest,
    directory: PathBuf,
    contents: Arc<Contents>,
}

impl Snapshot {
    pub(super) fn new(id: Digest, directory: PathBuf, contents: Arc<Contents>) -> Self {
        Self { id, directory, contents }
    }

    /// The id of the manifest that this was made from.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The directory that holds the model's files and nothing else. Everything in it is shared: never write there.
    pub fn tree(&self) -> PathBuf {
        self.directory.join(TREE)
    }

    /// Digest of the content: see [`content_digest`].
    pub fn digest(&self) -> Digest {
        self.contents.digest
    }

    /// Whether the model is what a user demands: see [`Content::has_digest`](crate::Content::has_digest).
    pub fn has_digest(&self, demanded: Digest) -> bool {
        satisfies(
            demanded,
            self.contents.digest,
            self.contents.archive,
            self.contents.files.iter().map(|file| file.digest),
        )
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.contents.bytes
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[StoredFile] {
        &self.contents.files
    }
}

/// A model in the cache, for listings.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The manifest's id.
    pub id: Digest,
    /// The URI that the model came from, as it may be shown.
    pub uri: String,
    /// The pinned revision, for sources that have one.
    pub revision: Option<String>,
    /// Digest of the content: see [`content_digest`].
    pub digest: Digest,
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: usize,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// How many volumes have it.
    pub leases: usize,
}

/// Lays blobs out as a model, in one step. A snapshot that is there already wins: it has the same content, or is mended.
pub(super) fn assemble(
    layout: &Layout,
    manifest: &Manifest,
    mut files: Vec<StoredFile>,
    archive: Option<Digest>,
) -> Result<Contents> {
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let entries = manifest.entries();
    let part = |entry: &Arc<Entry>| {
        let unpack = entry.unpack.as_ref().map(Unpack::canonical);
        Part { path: entry.path.clone(), origin: entry.origin, unpack }
    };
    let unpacked = entries.iter().any(|entry| entry.unpack.is_some());
    let parts = if unpacked { entries.iter().map(part).collect() } else { Vec::new() };
    let contents = Contents {
        uri: manifest.name().to_owned(),
        revision: manifest.revision().map(str::to_owned),
        digest: content_digest(files.iter().map(|file| (&file.path, file.digest))),
        archive,
        bytes: files.iter().map(|file| file.size).sum(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
        files,
        parts,
    };
    let scratch = layout.scratch();
    let failed = |error| Error::io(format!("can't lay out {}", manifest.name()), error);
    let abandoned = |error| {
        // Every attempt would leave one more until the next start, and a disk that is full is where they fail.
        if let Err(error) = layout.discard(&scratch) {
            tracing::warn!(error = %error.report(), "a model that could not be laid out can't be tidied up");
        }
        failed(error)
    };
    lay_out(layout, &scratch, &contents).map_err(abandoned)?;
    let directory = layout.snapshot(manifest.id());
    if fs::symlink_metadata(&directory).is_ok_and(|there| !there.is_dir()) {
        layout.discard(&directory)?;
    }
    match fs::rename(&scratch, &directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            let there = check(layout, manifest.id()).or_else(|_| {
                mend(layout, &scratch, &directory, &contents).map_err(failed)?;
                check(layout, manifest.id())
            });
            layout.discard(&scratch)?;
            match there {
                // What the disk can't read can't be mended, but moved out of the way. A full disk is no reason for that.
                Err(error) if error.kind() != ErrorKind::ResourceExhausted => {
                    tracing::warn!(snapshot = %manifest.id(), error = %error.report(), "a damaged model can't be mended, and is put aside");
                    layout.discard(&directory)?;
                    lay_out(layout, &scratch, &contents).map_err(abandoned)?;
                    fs::rename(&scratch, &directory).map_err(abandoned)?;
                    Ok(contents)
                }
                there => there,
            }
        }
        renamed => renamed.map(|()| contents).map_err(abandoned),
    }
}

fn lay_out(layout: &Layout, scratch: &Path, contents: &Contents) -> io::Result<()> {
    let tree = scratch.join(TREE);
    let make = |path: &Path| fs::DirBuilder::new().mode(0o755).create(path);
    make(scratch)?;
    make(&tree)?;
    for directory in contents.directories() {
        make(&tree.join(directory))?;
    }
    for file in &contents.files {
        let (blob, target) = (layout.blob(file.digest), tree.join(file.path.as_str()));
        match fs::hard_link(&blob, &target) {
            // A file system has a limit of links to one file (ext4: 65,000), which a common small file can reach.
            Err(error) if error.kind() == io::ErrorKind::TooManyLinks => fs::copy(&blob, &target).map(drop)?,
            linked => linked?,
        }
    }
    fs::write(scratch.join(MANIFEST), serde_json::to_vec(contents)?)
}

/// Checks a snapshot: its manifest is the one that its name stands for, each file is there with the right size, and is
/// its blob.
pub(super) fn check(layout: &Layout, id: Digest) -> Result<Contents> {
    let directory = layout.snapshot(id);
    let contents = read(&directory)?;
    let corrupt = |problem: String| Error::new(ErrorKind::Corrupt, format!("{}: {problem}", directory.display()));
    if contents.id() != id {
        return Err(corrupt("its manifest is another's".to_owned()));
    }
    if content_digest(contents.files.iter().map(|file| (&file.path, file.digest))) != contents.digest {
        return Err(corrupt("its digest is not that of its files".to_owned()));
    }
    for file in &contents.files {
        let found = fs::symlink_metadata(directory.join(TREE).join(file.path.as_str()));
        let found = found.map_err(|_| corrupt(format!("\"{}\" is missing", file.path)))?;
        if !found.is_file() || found.len() != file.size {
            return Err(corrupt(format!("\"{}\" is not a file of {} bytes", file.path, file.size)));
        }
        let blob = fs::symlink_metadata(layout.blob(file.digest));
        // Copied where the file system allowed no further link.
        let is_blob = blob.is_ok_and(|blob| same_file(&blob, &found) || blob.len() == found.len());
        if !is_blob {
            return Err(corrupt(format!("\"{}\" has lost its content", file.path)));
        }
    }
    Ok(contents)
}

/// The models that have their manifest, with no closer look.
pub(super) fn list(layout: &Layout, leases: &Leases) -> Result<Vec<Summary>> {
    let failed = |error| Error::io(format!("can't list {}", layout.snapshots().display()), error);
    let mut summaries = Vec::new();
    for entry in fs::read_dir(layout.snapshots()).map_err(failed)? {
        let directory = entry.map_err(failed)?.path();
        let Some(id) = named_after(&directory) else { continue };
        // Removed in this moment by the process that has the cache open.
        let Ok(Contents { uri, revision, digest, bytes, created, files, .. }) = read(&directory) else { continue };
        let (files, leases) = (files.len(), leases.of_snapshot(id));
        summaries.push(Summary { id, uri, revision, digest, bytes, files, created, leases });
    }
    summaries.sort_unstable_by(|a, b| (&a.uri, a.created, a.id).cmp(&(&b.uri, b.created, b.id)));
    Ok(summaries)
}

/// The ids of all snapshots that contain one of `digests`, or whose manifest can't be read.
pub(super) fn containing(layout: &Layout, digests: &BTreeSet<Digest>) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(layout.snapshots())? {
        let directory = entry?.path();
        let concerned = match read(&directory) {
            Ok(contents) => contents.files.iter().any(|file| digests.contains(&file.digest)),
            Err(_) => true,
        };
        if concerned {
            found.push(directory);
        }
    }
    Ok(found)
}

fn read(directory: &Path) -> Result<Contents> {
    let path = directory.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| Error::io(format!("can't read {}", path.display()), error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::with_source(ErrorKind::Corrupt, format!("{} is damaged", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Item, Listing};
    use crate::select::Selection;
    use crate::unpack::Archives;
    use crate::uri::ModelUri;

    #[test]
    fn a_model_that_can_not_be_laid_out_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        let path = "a/b".to_owned();
        let item = Item {
            locator: path.clone(),
            path,
            size: Some(3),
            validator: Some("1".into()),
            digest: None,
            unpack: None,
        };
        let listing = Listing { store: "s".into(), revision: None, items: vec![item], exact: false };
        let uri = ModelUri::parse("https://h/m").unwrap();
        let manifest = Manifest::build(&uri, listing, &Selection::default(), Archives::Auto).unwrap();
        let Entry { path, origin, .. } = Entry::clone(&manifest.entries()[0]);
        // Of which there is no blob.
        let file = StoredFile { path, size: 3, digest: Digest::of("abc"), origin };
        let error = assemble(&layout, &manifest, vec![file], None).unwrap_err();
        assert!(error.to_string().contains("can't lay out"), "{error}");
        for directory in [layout.trash(), layout.snapshots()] {
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{directory:?}");
        }
    }
}
