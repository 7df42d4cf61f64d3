//! Git's objects: their ids, trees and commits. The bytes come from a server that need not be friendly.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::error::shown;

/// How a repository names its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Sha1,
    Sha256,
}

impl Format {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Length of an id in bytes.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// An object's id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(Box<[u8]>);

impl Id {
    /// `bytes` are as many as the format has.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Exactly 40 or 64 lower-case hexadecimal digits.
    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        if !matches!(hex.len(), 40 | 64) || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).ok();
        (0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().map(|bytes| Self(bytes.into()))
    }

    pub(super) fn format(&self) -> Format {
        if self.0.len() == Format::Sha256.len() { Format::Sha256 } else { Format::Sha1 }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// Works out an object's id as its bytes go by.
#[derive(Clone)]
pub(super) enum Hasher {
    /// With the detection of attempted collisions that git has too: a file made to collide has no id.
    Sha1(Box<sha1_checked::Sha1>),
    Sha256(Box<Sha256>),
}

impl Hasher {
    pub(super) fn new(format: Format, kind: Kind, size: u64) -> Self {
        let mut hasher = match format {
            Format::Sha1 => Self::Sha1(Box::default()),
            Format::Sha256 => Self::Sha256(Box::default()),
        };
        hasher.update(format!("{} {size}\0", kind.name()).as_bytes());
        hasher
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(sha1) => sha1_checked::Digest::update(&mut **sha1, bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
    }

    /// `None` for bytes that were made to collide with others.
    pub(super) fn finish(self) -> Option<Id> {
        match self {
            Self::Sha1(sha1) => {
                let result = sha1.try_finalize();
                (!result.has_collision()).then(|| Id::from_bytes(result.hash()))
            }
            Self::Sha256(sha256) => Some(Id::from_bytes(&sha256.finalize())),
        }
    }
}

/// The id of an object that is in memory.
pub(super) fn id_of(format: Format, kind: Kind, bytes: &[u8]) -> Option<Id> {
    let mut hasher = Hasher::new(format, kind, bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish()
}

/// What a name in a tree stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Tree,
    File,
    Symlink,
    /// Another repository's commit.
    Submodule,
}

/// One name of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) id: Id,
}

/// The names of a tree.
pub(super) fn parse_tree(mut bytes: &[u8], format: Format) -> Result<Vec<TreeEntry>, String> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let broken = || "a directory of it is broken".to_owned();
        let space = bytes.iter().take(8).position(|b| *b == b' ').ok_or_else(broken)?;
        let nul = bytes.iter().position(|b| *b == 0).filter(|nul| *nul > space).ok_or_else(broken)?;
        let end = nul + 1 + format.len();
        let id = bytes.get(nul + 1..end).ok_or_else(broken)?;
        let mode = match &bytes[..space] {
            b"40000" | b"040000" => Mode::Tree,
            b"120000" => Mode::Symlink,
            b"160000" => Mode::Submodule,
            mode if mode.starts_with(b"100") => Mode::File,
            _ => return Err(broken()),
        };
        let name = &bytes[space + 1..nul];
        let shown = || shown(&String::from_utf8_lossy(name));
        let name = std::str::from_utf8(name).map_err(|_| format!("the name {:?} is not UTF-8", shown()))?;
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(format!("the name {:?} can't be a file's", shown()));
        }
        entries.push(TreeEntry { name: name.to_owned(), mode, id: Id::from_bytes(id) });
        bytes = &bytes[end..];
    }
    Ok(entries)
}

/// The tree of a commit.
pub(super) fn parse_commit(bytes: &[u8]) -> Option<Id> {
    first_line(bytes).strip_prefix("tree ").and_then(Id::from_hex)
}

/// What an annotated tag points to.
pub(super) fn parse_tag(bytes: &[u8]) -> Option<Id> {
    first_line(bytes).strip_prefix("object ").and_then(Id::from_hex)
}

fn first_line(bytes: &[u8]) -> &str {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_gits() {
        // `printf hello | git hash-object --stdin`, in a repository of either format.
        for (format, hex) in [
            (Format::Sha1, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"),
            (Format::Sha256, "8aec4e4876f854f688d0ebfc8f37598f38e5fd6903cccc850ca36591175aeb60"),
        ] {
            let id = id_of(format, Kind::Blob, b"hello").unwrap();
            assert_eq!((id.format(), id.to_string().as_str(), Id::from_hex(hex)), (format, hex, Some(id.clone())));
        }
        for hex in ["", "b6fc", "B6FC4C620B67D95F953A5C1C1230AAAB5DB5A1B0", "é6fc4c620b67d95f953a5c1c1230aaab5db5a1b"]
        {
            assert_eq!(Id::from_hex(hex), None);
        }
    }

    #[test]
    fn hostile_trees_are_refused() {
        let tree = |mode: &str, name: &str| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &[7; 20]].concat();
        let parsed = parse_tree(&[tree("100644", "a"), tree("40000", "b")].concat(), Format::Sha1).unwrap();
        assert_eq!(parsed.iter().map(|entry| entry.mode).collect::<Vec<_>>(), [Mode::File, Mode::Tree]);
        for (mode, name) in [("100644", ".."), ("100644", "a/b"), ("100644", ""), ("40000", "."), ("20000", "a")] {
            assert!(parse_tree(&tree(mode, name), Format::Sha1).is_err(), "{mode} {name:?}");
        }
        let long = parse_tree(&tree("100644", &"/".repeat(10_000)), Format::Sha1).unwrap_err();
        assert!(long.len() < 200, "{long}");
        assert!(parse_tree(&tree("100644", "a")[..20], Format::Sha1).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_tree_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for format in [Format::Sha1, Format::Sha256] {
                if let Ok(entries) = parse_tree(&bytes, format) {
                    prop_assert!(entries.iter().all(|entry| !entry.name.contains('/') && entry.name != ".."));
                }
            }
            let _ = (parse_commit(&bytes), parse_tag(&bytes));
        }
    }
}
