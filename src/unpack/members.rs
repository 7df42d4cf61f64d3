//! Which members of an archive are taken, and under which names; which are ignored; and which are refused.
//!
//! What is not taken, because it lies beside the wanted directory or the patterns leave it out, is ignored whatever it is: the
//! images that models come in are full of links. What is taken must be a plain file with a plain name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::input::Meter;
use super::{Kind, Receiver, Unpack};
use crate::error::{Error, ErrorKind, Result, shown};
use crate::manifest::{Count, Digest, RelPath, TOO_MANY};

/// Most members of an archive, whether they are taken or ignored. The images that models come in may hold a system.
pub(super) const MAX_MEMBERS: usize = 500_000;
/// Begins the name of what a layer removes (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Stands in a directory that hides all of its lower layers' content.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Begins the names that AUFS keeps for itself.
const RESERVED: &[u8] = b".wh..wh.";

/// What an archive says that a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    File,
    Directory,
    /// Another name of the member with this name.
    HardLink(&'a [u8]),
    /// Anything else, in words: "a symbolic link".
    Other(&'static str),
}

/// What becomes of a member's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to [`Members::write`], and then [`Members::end`] is called.
    Take,
    Skip,
}

/// What an archive or a layer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unpacked<F> {
    /// Each file, by its path: first its number in the order in which the receiver was given them. Numbers may be
    /// missing, those of members that a later one replaced, or be there twice.
    pub(crate) files: BTreeMap<RelPath, F>,
    /// The directories that are named: of a layer, they replace files.
    pub(crate) directories: BTreeSet<RelPath>,
    /// What a layer removes from lower ones, with everything below it; `None` is all.
    pub(crate) removed: BTreeSet<Option<RelPath>>,
    /// Digest of the archive or layer itself, once it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole: Option<Digest>,
}

impl<F> Unpacked<F> {
    fn new() -> Self {
        Self { files: BTreeMap::new(), directories: BTreeSet::new(), removed: BTreeSet::new(), whole: None }
    }

    /// Counts all that it names; `false` when that is too much: see [`Count::add`].
    pub(crate) fn count(&self, count: &mut Count) -> bool {
        let mut paths = self.files.keys().chain(&self.directories).chain(self.removed.iter().flatten());
        paths.all(|path| count.add(path.as_str()))
    }

    /// The same, with something else for each file.
    pub(crate) fn map<G>(self, mut with: impl FnMut(F) -> G) -> Unpacked<G> {
        let Self { files, directories, removed, whole } = self;
        let files = files.into_iter().map(|(path, file)| (path, with(file))).collect();
        Unpacked { files, directories, removed, whole }
    }
}

/// The members of one archive, as they are read.
pub(super) struct Members<'a> {
    unpack: &'a Unpack,
    receiver: &'a mut dyn Receiver,
    meter: Meter,
    unpacked: Unpacked<usize>,
    /// All of them.
    seen: usize,
    /// Those that are kept in memory.
    count: Count,
    /// Files that were given to the receiver.
    begun: usize,
}

impl<'a> Members<'a> {
    pub(super) fn new(unpack: &'a Unpack, receiver: &'a mut dyn Receiver, meter: Meter) -> Self {
        Self { unpack, receiver, meter, unpacked: Unpacked::new(), seen: 0, count: Count::default(), begun: 0 }
    }

    /// A layer's bytes are verified by their digest, and some builders leave out the mark at a tar's end.
    pub(super) fn may_lack_end(&self) -> bool {
        self.is_layer()
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A member begins. `name` is as the archive has it.
    pub(super) fn begin(&mut self, name: &[u8], what: What<'_>) -> Result<Verdict> {
        self.seen += 1;
        if self.seen > MAX_MEMBERS {
            let text = format!("it has more than {MAX_MEMBERS} members");
            return Err(Error::new(ErrorKind::FailedPrecondition, text));
        }
        let Some(inner) = self.place(name, what)? else { return Ok(Verdict::Skip) };
        let text = std::str::from_utf8(inner).map_err(|_| refused(name, "has a name that is not UTF-8"))?;
        let directory = what == What::Directory;
        if inner.is_empty() {
            // "./" stands for the archive's root.
            return if directory { Ok(Verdict::Skip) } else { Err(refused(name, "has no name")) };
        }
        let text = if directory { text.trim_end_matches('/') } else { text };
        // Only files are selected. A directory with a bad name matters for what is in it alone.
        if !directory && !self.unpack.selection.selects(text) {
            return Ok(Verdict::Skip);
        }
        let path = match RelPath::parse(text) {
            Ok(path) => path,
            Err(error) => {
                return Err(Error::with_source(
                    ErrorKind::FailedPrecondition,
                    refusal(name, "can't be laid out"),
                    error,
                ));
            }
        };
        self.counted(text)?;
        match what {
            What::File => {
                self.receiver.begin()?;
                // Of members with one name the last counts, as in every tar.
                self.unpacked.files.insert(path, self.begun);
                self.begun += 1;
                Ok(Verdict::Take)
            }
            What::Directory => {
                self.unpacked.directories.insert(path);
                Ok(Verdict::Skip)
            }
            What::HardLink(target) if self.is_layer() => {
                let known = self.below(target).and_then(|inner| std::str::from_utf8(inner).ok());
                let Some(number) = known.and_then(|inner| self.unpacked.files.get(inner)).copied() else {
                    return Err(refused(name, "is a hard link to a file that is not in the model"));
                };
                self.unpacked.files.insert(path, number);
                Ok(Verdict::Skip)
            }
            What::HardLink(_) => Err(refused(name, "is a hard link")),
            What::Other(kind) => Err(refused(name, &format!("is {kind}"))),
        }
    }

    /// Content of the member that was begun.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.receiver.write(bytes)
    }

    /// The member that was begun is complete.
    pub(super) fn end(&mut self) -> Result<()> {
        self.receiver.end()
    }

    /// All members have been read.
    pub(super) fn finish(self) -> Result<Unpacked<usize>> {
        let Unpacked { files, directories, .. } = &self.unpacked;
        let conflict = |file: &str, inner: &RelPath| {
            let text = format!("\"{file}\" is a file in it and also the directory of \"{inner}\"");
            Err(Error::new(ErrorKind::FailedPrecondition, text))
        };
        for path in files.keys() {
            if directories.contains(path) {
                let text = format!("\"{path}\" is both a file and a directory in it");
                return Err(Error::new(ErrorKind::FailedPrecondition, text));
            }
        }
        for path in files.keys().chain(directories) {
            if let Some(file) = path.ancestors().find(|ancestor| files.contains_key(*ancestor)) {
                return conflict(file, path);
            }
        }
        Ok(self.unpacked)
    }

    fn counted(&mut self, name: &str) -> Result<()> {
        if self.count.add(name) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::FailedPrecondition, format!("it {TOO_MANY}")))
    }

    fn is_layer(&self) -> bool {
        matches!(self.unpack.kind, Kind::Layer(_))
    }

    /// The name after [`Unpack::below`], if the member lies there. Notes what a whiteout removes.
    fn place<'n>(&mut self, name: &'n [u8], what: What<'_>) -> Result<Option<&'n [u8]>> {
        let plain = plain(name, self.is_layer());
        if self.is_layer() {
            let (parent, base) = match plain.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&plain[..slash], &plain[slash + 1..]),
                None => (&plain[..0], plain),
            };
            if base == OPAQUE {
                self.remove(name, parent)?;
                return Ok(None);
            }
            if base.starts_with(RESERVED) || parent.split(|byte| *byte == b'/').any(|part| part.starts_with(RESERVED)) {
                return Ok(None);
            }
            if let Some(removed) = base.strip_prefix(WHITEOUT) {
                if removed.is_empty() {
                    return Err(refused(name, "removes nothing"));
                }
                let mut path = parent.to_vec();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(removed);
                self.remove(name, &path)?;
                return Ok(None);
            }
        }
        if let Some(inner) = self.below(name) {
            return Ok(Some(inner));
        }
        // The wanted directory itself, or one that it lies in, must be a directory.
        let trimmed = plain.strip_suffix(b"/").unwrap_or(plain);
        let leads_there = self.unpack.below.as_ref().is_some_and(|below| {
            below.as_str().as_bytes() == trimmed || below.ancestors().any(|ancestor| ancestor.as_bytes() == trimmed)
        });
        if leads_there && what != What::Directory {
            return Err(refused(name, "is no directory, and the model should lie there"));
        }
        Ok(None)
    }

    /// The part of a name after [`Unpack::below`] and its slash.
    fn below<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let plain = plain(name, self.is_layer());
        match &self.unpack.below {
            None => Some(plain),
            Some(below) => plain.strip_prefix(below.as_str().as_bytes())?.strip_prefix(b"/"),
        }
    }

    /// A layer removes this path from those below it.
    fn remove(&mut self, name: &[u8], path: &[u8]) -> Result<()> {
        let Ok(text) = std::str::from_utf8(path) else { return Ok(()) };
        let inner = match &self.unpack.below {
            None => text,
            Some(below) => {
                let below = below.as_str();
                let lies_in = |outer: &str| {
                    outer.is_empty()
                        || below.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                if lies_in(text) {
                    ""
                } else if let Some(inner) = text.strip_prefix(below).and_then(|rest| rest.strip_prefix('/')) {
                    inner
                } else {
                    return Ok(());
                }
            }
        };
        let removed = match inner {
            "" => None,
            inner => Some(RelPath::parse(inner).map_err(|error| {
                Error::with_source(ErrorKind::FailedPrecondition, refusal(name, "removes what can't be there"), error)
            })?),
        };
        self.counted(text)?;
        self.unpacked.removed.insert(removed);
        Ok(())
    }
}

/// A name without the marks of its root. Only in layers an absolute name is one from the root of the image.
fn plain(mut name: &[u8], layer: bool) -> &[u8] {
    loop {
        name = match name {
            b"." => return b"",
            [b'.', b'/', rest @ ..] => rest,
            [b'/', rest @ ..] if layer => rest,
            _ => return name,
        };
    }
}

fn refusal(name: &[u8], problem: &str) -> String {
    let shown = shown(&String::from_utf8_lossy(name));
    format!("its member {shown:?} {problem}")
}

/// The refusal of a member, by its name.
pub(super) fn refused(name: &[u8], problem: &str) -> Error {
    let text = format!(
        "{}; a model's archive holds files and directories with relative names: make it without that, or exclude it with \
         ignorePatterns",
        refusal(name, problem)
    );
    Error::new(ErrorKind::FailedPrecondition, text)
}
