//! What a model consists of: paths, sizes and pinned content identities.
//!
//! A source answers with a [`Listing`]: raw, in its own order. [`Manifest::build`] turns it into a [`Manifest`], which
//! is safe to lay out in a directory: selected, sorted, each path relative and free of tricks, no file in the way of
//! another. No I/O; and all of it is pure but that a file without a version is another one in each manifest.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::select::Selection;
use crate::unpack::{Archives, Kind, Unpack};
use crate::uri::ModelUri;

mod count;
mod digest;
mod path;

pub use count::MAX_ENTRIES;
pub(crate) use count::{Count, TOO_MANY};
pub use digest::Digest;
pub use path::RelPath;

/// One file as a source lists it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Path below the model's root, unchecked.
    pub path: String,
    /// Size in bytes, where the source tells it.
    pub size: Option<u64>,
    /// Where the source finds it again: a key, a URL. Opaque to everybody else.
    pub locator: String,
    /// What changes whenever the content changes: an ETag, a generation, a time stamp. `None` when the source has
    /// nothing of the kind; such a file can be neither resumed nor found again in the cache.
    pub validator: Option<String>,
    /// The content's digest, if the source declares it; it is verified.
    pub digest: Option<Digest>,
    /// Set for a file that stands for the files in it, as an image's layer does. A model that is one archive need not be
    /// marked: [`Manifest::build`] knows those by the attribute `unpack`.
    pub unpack: Option<Unpack>,
}

/// A source's answer: which files there are, at which revision.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The store that locators belong to, for instance `s3|https://host|bucket`: part of each file's identity, so that
    /// equal names and ETags in two stores never mix.
    pub store: String,
    /// The pinned revision, for sources that have one.
    pub revision: Option<String>,
    /// The files, in any order.
    pub items: Vec<Item>,
    /// Whether the URI named exactly one file. Patterns do not apply to it, as in KServe.
    pub exact: bool,
}

/// One file of a manifest.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path below the model's root.
    pub path: RelPath,
    /// Size in bytes, where the source tells it.
    pub size: Option<u64>,
    /// Where the source finds it again.
    pub locator: String,
    /// See [`Item::validator`].
    pub validator: Option<String>,
    /// The content's digest, if the source declares it.
    pub digest: Option<Digest>,
    /// Identity of this file at this version in this store: the digest of store, locator, validator and size. In place of
    /// a validator, a declared digest will do; without either, no other entry ever has the same.
    pub origin: Digest,
    /// Set for a file that stands for the files in it.
    pub unpack: Option<Unpack>,
    /// Which of the model's sources has it: an index, 0 for a model with one.
    pub part: usize,
}

impl Entry {
    /// Whether another version of the file would have another [`origin`](Self::origin), and this one the same again.
    pub fn tells_versions(&self) -> bool {
        self.validator.is_some() || self.digest.is_some()
    }
}

/// A model, pinned: which files, and which version of each. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Manifest {
    name: String,
    revision: Option<String>,
    entries: Arc<Vec<Arc<Entry>>>,
    id: Digest,
}

impl Manifest {
    /// Selects, checks and sorts a listing. `archives` says what becomes of a model that is one single file.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is listed or selected; [`ErrorKind::FailedPrecondition`] when a selected
    /// name can't be a file name or stands in the way of another; [`ErrorKind::ResourceExhausted`] for more than
    /// [`MAX_ENTRIES`] files, or names that are too long together.
    pub fn build(uri: &ModelUri, listing: Listing, selection: &Selection, archives: Archives) -> Result<Self> {
        let Listing { store, revision, items, exact } = listing;
        if items.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{uri} has no files: check the path in the URI")));
        }
        let listed = items.len();
        let (mut entries, mut count) = (Vec::new(), Count::default());
        for item in items {
            // What stands for other files is selected from, and not selected.
            if item.unpack.is_none() && !exact && !selection.selects(&item.path) {
                continue;
            }
            let path = RelPath::parse(&item.path).map_err(|error| {
                Error::with_source(
                    ErrorKind::FailedPrecondition,
                    format!("{uri} has a file that can't be laid out; exclude it with ignorePatterns"),
                    error,
                )
            })?;
            if !count.add(path.as_str()) {
                return Err(too_many(uri));
            }
            let origin = origin(&store, &item);
            let Item { size, locator, validator, digest, unpack, .. } = item;
            let unpack = unpack.map(|unpack| Unpack { selection: selection.clone(), ..unpack });
            entries.push(Arc::new(Entry { path, size, locator, validator, digest, origin, unpack, part: 0 }));
        }
        if entries.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "allowPatterns and ignorePatterns leave none of the {listed} files of {uri}: check the patterns"
                ),
            ));
        }
        // A model of one file may be an archive, wherever it lies; in a directory only if its name says so.
        if let [only] = entries.as_mut_slice()
            && only.unpack.is_none()
        {
            let only = Arc::make_mut(only);
            only.unpack = archives.unpack(&only.path).filter(|unpack| exact || unpack.kind == Kind::Archive);
        }
        Self::new(uri.to_string(), revision, entries)
    }

    /// Several models in one directory tree, each below its path; `None` is the tree's root. The index of a model is
    /// the [`Entry::part`] of its files.
    ///
    /// # Errors
    /// As [`Self::build`], when files of two models are in each other's way.
    pub fn join(models: Vec<(Option<RelPath>, Self)>) -> Result<Self> {
        let (mut entries, mut count) = (Vec::new(), Count::default());
        let (mut names, mut revisions) = (Vec::new(), Vec::new());
        let several = models.len() > 1;
        for (part, (below, model)) in models.into_iter().enumerate() {
            for mut shared in Arc::unwrap_or_clone(model.entries) {
                let entry = Arc::make_mut(&mut shared);
                if let Some(below) = &below {
                    entry.path = below.join(&entry.path).map_err(|error| error.within(&model.name))?;
                    entry.unpack = entry.unpack.take().map(|unpack| unpack.moved(below)).transpose()?;
                }
                entry.part = part;
                if !count.add(entry.path.as_str()) {
                    return Err(too_many(&model.name));
                }
                entries.push(shared);
            }
            revisions.extend(model.revision.map(|revision| match several {
                true => format!("{} {revision}", model.name),
                false => revision,
            }));
            names.push(model.name);
        }
        Self::new(names.join(", "), (!revisions.is_empty()).then(|| revisions.join(", ")), entries)
    }

    /// Sorts the files and checks that they can lie in one directory tree.
    fn new(name: String, revision: Option<String>, mut entries: Vec<Arc<Entry>>) -> Result<Self> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(conflict(&name, twice[0].path.as_str(), "is there twice"));
        }
        let is_file = |path: &str| {
            let found = entries.binary_search_by(|entry| entry.path.as_str().cmp(path));
            found.is_ok_and(|at| entries[at].unpack.is_none())
        };
        for Entry { path, .. } in entries.iter().map(|entry| &**entry) {
            if let Some(file) = path.ancestors().find(|ancestor| is_file(ancestor)) {
                return Err(conflict(&name, file, &format!("is a file and also the directory of \"{path}\"")));
            }
        }
        let how = |entry: &Entry| entry.unpack.as_ref().map(Unpack::canonical);
        let id = identity(entries.iter().map(|entry| (&entry.path, entry.origin, how(entry))));
        Ok(Self { name, revision, entries: Arc::new(entries), id })
    }

    /// What to call it: the URI that it was resolved from, as it may be shown; of several, all.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pinned revision, for sources that have one.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The files, sorted by path; never empty.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// Digest of all paths, sizes and origins: two equal ids stand for the same bytes in the same places. Known before
    /// anything is downloaded. A model whose source tells no versions ([`Self::tells_versions`]) has another one each time.
    ///
    /// PersistentVolumes keep it for years, as the attribute `pin`: how it is made never changes.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// Whether every file does ([`Entry::tells_versions`]). Else nothing of it is found again, and no volume can be pinned
    /// to it.
    pub fn tells_versions(&self) -> bool {
        self.entries.iter().all(|entry| entry.tells_versions())
    }

    /// Sum of all known sizes, in bytes.
    pub fn known_bytes(&self) -> u64 {
        self.entries.iter().filter_map(|entry| entry.size).fold(0, u64::saturating_add)
    }
}

fn origin(store: &str, item: &Item) -> Digest {
    let size = item.size.map(|size| size.to_string());
    // A field more, so that the origins of files that have a validator stay as they are.
    let substitute = match (&item.validator, item.digest) {
        (Some(_), _) => None,
        (None, Some(digest)) => Some(digest.to_string()),
        (None, None) => Some(nonce()),
    };
    let fields = [Some(store), Some(&item.locator), item.validator.as_deref(), size.as_deref()];
    let mut hasher = Sha256::new();
    for field in fields.into_iter().chain(substitute.as_deref().map(Some)) {
        // Length-prefixed: no two lists of fields give the same bytes.
        hasher.update(field.map_or(u64::MAX, |field| field.len() as u64).to_le_bytes());
        hasher.update(field.unwrap_or_default());
    }
    Digest::from_hasher(hasher)
}

/// A text that no other call gives, in this process or any other: the standard library's hashers have random keys.
fn nonce() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let [one, two] = [(); 2].map(|()| RandomState::new().hash_one(call));
    format!("{one:016x}{two:016x}")
}

/// The id of a manifest with these paths, sorted, and origins, and with what is unpacked ([`Unpack::canonical`]).
pub(crate) fn identity<'a>(files: impl IntoIterator<Item = (&'a RelPath, Digest, Option<String>)>) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update("modelmount manifest 1\n");
    for (path, origin, unpack) in files {
        hasher.update(format!("{} {path}\0", origin.hex()));
        if let Some(unpack) = unpack {
            // An origin begins with a hexadecimal digit: no plain file's line looks like this.
            hasher.update(format!("unpack {unpack}\0"));
        }
    }
    Digest::from_hasher(hasher)
}

/// `model`: which one, or the one whose files were too many among those of a volume.
fn too_many(model: impl std::fmt::Display) -> Error {
    let text = format!("{model} {TOO_MANY}: name a path further down, or use allowPatterns");
    Error::new(ErrorKind::ResourceExhausted, text)
}

fn conflict(name: &str, path: &str, problem: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!("{name} can't be laid out as files: \"{path}\" {problem}; exclude one with ignorePatterns"),
    )
}

#[cfg(test)]
mod tests;
