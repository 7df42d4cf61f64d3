//! What a model consists of: paths, sizes and pinned content identities.
//!
//! A source answers with a [`Listing`]: raw, in its own order. [`Manifest::build`] turns it into a [`Manifest`], which
//! is safe to lay out in a directory: selected, sorted, each path relative and free of tricks, no file in the way of
//! another. Everything here is pure: no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::select::Selection;
use crate::uri::ModelUri;

/// Most files that one model may have. A bound on memory (about 300 bytes each), not a recommendation.
pub const MAX_ENTRIES: usize = 500_000;

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Takes what a finished hasher gives.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 64 hexadecimal digits alone, as used in file names.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    /// Parses exactly 64 lower-case hexadecimal digits; anything else is `None`.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix("sha256:").and_then(Self::from_hex).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                "a digest is written \"sha256:\" followed by 64 lower-case hexadecimal digits",
            )
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A path below a model's root: relative, of non-empty components, none of them `.` or `..`, without control
/// characters, and short enough for every Linux file system.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Box<str>);

impl RelPath {
    /// Longest path, in bytes: PATH_MAX less room for the directory that the model lies in.
    const MAX_LEN: usize = 3072;
    /// Longest component, in bytes: NAME_MAX of ext4, xfs and btrfs.
    const MAX_COMPONENT: usize = 255;

    /// Checks `path`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] saying what is wrong with it.
    pub fn parse(path: &str) -> Result<Self> {
        let problem = if path.is_empty() {
            "is empty"
        } else if path.len() > Self::MAX_LEN {
            "is too long for a path"
        } else if path.chars().any(char::is_control) {
            "contains a control character"
        } else if path.starts_with('/') {
            "is absolute"
        } else if path.split('/').any(str::is_empty) {
            "has an empty component (two slashes in a row, or one at the end)"
        } else if path.split('/').any(|component| component == "." || component == "..") {
            "has a component \".\" or \"..\""
        } else if path.split('/').any(|component| component.len() > Self::MAX_COMPONENT) {
            "has a component of more than 255 bytes"
        } else {
            return Ok(Self(path.into()));
        };
        let shown: String = path.chars().take(120).collect();
        Err(Error::new(ErrorKind::InvalidArgument, format!("the name {shown:?} {problem}")))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All proper ancestors, outermost first: `a`, `a/b` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(i, _)| &self.0[..i])
    }
}

impl TryFrom<String> for RelPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self> {
        Self::parse(&path)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0.into()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

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
    /// Identity of this file at this version in this store: the digest of store, locator, validator and size.
    pub origin: Digest,
}

/// A model, pinned: which files, and which version of each.
#[derive(Clone, Debug)]
pub struct Manifest {
    uri: ModelUri,
    revision: Option<String>,
    entries: Vec<Entry>,
    id: Digest,
}

impl Manifest {
    /// Selects, checks and sorts a listing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is listed or selected; [`ErrorKind::FailedPrecondition`] when a selected
    /// name can't be a file name or stands in the way of another; [`ErrorKind::ResourceExhausted`] for more than
    /// [`MAX_ENTRIES`] files.
    pub fn build(uri: &ModelUri, listing: Listing, selection: &Selection) -> Result<Self> {
        let Listing { store, revision, items, exact } = listing;
        if items.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{uri} has no files: check the path in the URI")));
        }
        let listed = items.len();
        let mut entries = BTreeMap::new();
        for item in items {
            if !exact && !selection.selects(&item.path) {
                continue;
            }
            let path = RelPath::parse(&item.path).map_err(|error| {
                Error::with_source(
                    ErrorKind::FailedPrecondition,
                    format!("{uri} has a file that can't be laid out; exclude it with ignorePatterns"),
                    error,
                )
            })?;
            let origin = origin(&store, &item);
            let Item { size, locator, validator, digest, .. } = item;
            let entry = Entry { path: path.clone(), size, locator, validator, digest, origin };
            if entries.insert(path.clone(), entry).is_some() {
                return Err(conflict(uri, path.as_str(), "is listed twice"));
            }
            if entries.len() > MAX_ENTRIES {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("{uri} has more than {MAX_ENTRIES} files: name a path further down, or use allowPatterns"),
                ));
            }
        }
        if entries.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "allowPatterns and ignorePatterns leave none of the {listed} files of {uri}: check the patterns"
                ),
            ));
        }
        for path in entries.keys() {
            if let Some(file) = path.ancestors().find(|ancestor| entries.contains_key(&RelPath((*ancestor).into()))) {
                return Err(conflict(uri, file, &format!("is a file and also the directory of \"{path}\"")));
            }
        }
        let entries: Vec<Entry> = entries.into_values().collect();
        let id = identity(entries.iter().map(|entry| (&entry.path, entry.origin)));
        Ok(Self { uri: uri.clone(), revision, entries, id })
    }

    /// The URI that this was resolved from.
    pub fn uri(&self) -> &ModelUri {
        &self.uri
    }

    /// The pinned revision, for sources that have one.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The files, sorted by path; never empty.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Digest of all paths, sizes and origins: two equal ids stand for the same bytes in the same places, if the source
    /// tells versions apart ([`Self::tells_versions`]). Known before anything is downloaded.
    ///
    /// PersistentVolumes keep it for years, as the attribute `pin`: how it is made never changes.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// Whether every file has a validator. Without one, the id stays the same when the content changes.
    pub fn tells_versions(&self) -> bool {
        self.entries.iter().all(|entry| entry.validator.is_some())
    }

    /// Sum of all known sizes, in bytes.
    pub fn known_bytes(&self) -> u64 {
        self.entries.iter().filter_map(|entry| entry.size).fold(0, u64::saturating_add)
    }
}

fn origin(store: &str, item: &Item) -> Digest {
    let size = item.size.map(|size| size.to_string());
    let mut hasher = Sha256::new();
    for field in [Some(store), Some(&item.locator), item.validator.as_deref(), size.as_deref()] {
        // Length-prefixed: no two lists of fields give the same bytes.
        hasher.update(field.map_or(u64::MAX, |field| field.len() as u64).to_le_bytes());
        hasher.update(field.unwrap_or_default());
    }
    Digest::from_hasher(hasher)
}

/// The id of a manifest with these paths, sorted, and origins.
pub(crate) fn identity<'a>(files: impl IntoIterator<Item = (&'a RelPath, Digest)>) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update("modelmount manifest 1\n");
    for (path, origin) in files {
        hasher.update(format!("{} {path}\0", origin.hex()));
    }
    Digest::from_hasher(hasher)
}

fn conflict(uri: &ModelUri, path: &str, problem: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!("{uri} can't be laid out as files: \"{path}\" {problem}; exclude one with ignorePatterns"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(path: &str) -> Item {
        let validator = Some("\"1\"".to_owned());
        Item { path: path.into(), size: Some(3), locator: path.into(), validator, digest: None }
    }

    fn build(paths: &[&str], selection: &Selection) -> Result<Manifest> {
        let items = paths.iter().map(|path| item(path)).collect();
        let listing = Listing { store: "s3|h|b".into(), revision: None, items, exact: false };
        Manifest::build(&ModelUri::parse("s3://b/m")?, listing, selection)
    }

    #[test]
    fn entries_are_sorted_and_the_id_does_not_depend_on_the_listing_order() {
        let all = Selection::default();
        let one = build(&["b", "a/x", "a/é +%#"], &all).unwrap();
        let two = build(&["a/é +%#", "b", "a/x"], &all).unwrap();
        assert_eq!(one.id(), two.id());
        let paths: Vec<_> = one.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a/x", "a/é +%#", "b"]);
        assert_eq!(one.known_bytes(), 9);
    }

    #[test]
    fn the_id_of_a_version_is_the_same_for_ever() {
        let manifest = build(&["a", "b/c"], &Selection::default()).unwrap();
        // Persistent volumes are pinned to such ids. Worked out apart from this code.
        assert_eq!(manifest.id().hex(), "172c41d82cae380312ac68f1dd63379a25ba7a38229e40d6fd40aceb69bc86a4");
        assert!(manifest.tells_versions());
    }

    #[test]
    fn a_file_without_a_validator_has_no_version() {
        let items = vec![item("a"), Item { validator: None, ..item("b") }];
        let listing = Listing { store: "https://h".into(), revision: None, items, exact: false };
        let uri = ModelUri::parse("https://h/m").unwrap();
        assert!(!Manifest::build(&uri, listing, &Selection::default()).unwrap().tells_versions());
    }

    #[test]
    fn each_part_of_an_origin_changes_it() {
        let base = origin("s", &item("k"));
        assert_ne!(base, origin("s2", &item("k")));
        assert_ne!(base, origin("s", &item("k2")));
        assert_ne!(base, origin("s", &Item { validator: Some("\"2\"".into()), ..item("k") }));
        assert_ne!(base, origin("s", &Item { validator: None, ..item("k") }));
        assert_ne!(base, origin("s", &Item { size: Some(4), ..item("k") }));
        assert_ne!(origin("ab", &item("c")), origin("a", &item("bc")));
    }

    #[test]
    fn impossible_layouts_are_refused_unless_excluded() {
        for (paths, hint) in [
            (&["a", "a/b"][..], "also the directory"),
            (&["a", "a"], "listed twice"),
            (&["../etc/passwd"], "can't be laid out"),
            (&["/etc/passwd"], "can't be laid out"),
            (&["a//b"], "can't be laid out"),
        ] {
            let error = build(paths, &Selection::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{paths:?}");
            assert!(error.report().contains(hint), "{}", error.report());
        }
        let without = Selection::parse(None, Some("../*")).unwrap();
        assert_eq!(build(&["../etc/passwd", "ok"], &without).unwrap().entries().len(), 1);
    }

    #[test]
    fn nothing_listed_and_nothing_selected_are_told_apart() {
        let error = build(&[], &Selection::default()).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("has no files"));
        let error = build(&["a.bin"], &Selection::parse(Some("*.json"), None).unwrap()).unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("none of the 1 files"));
    }

    #[test]
    fn digests_are_parsed_strictly() {
        let good = Digest::of("x").to_string();
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in ["", "sha256:", "sha256:../../etc", &good.to_uppercase(), &format!("{good}0"), &good[7..]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_rel_path_never_leaves_its_root(text in "[a./\\\\\0é]{0,12}") {
            if let Ok(path) = RelPath::parse(&text) {
                let joined = std::path::Path::new("/root").join(path.as_str());
                prop_assert!(joined.components().all(|c| c != std::path::Component::ParentDir));
                prop_assert!(joined.starts_with("/root") && joined != std::path::Path::new("/root"));
                prop_assert_eq!(path.as_str(), text);
            }
        }

        #[test]
        fn digest_hex_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        }
    }
}
