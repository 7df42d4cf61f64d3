//! Files that hold others: archives, and the layers of images.
//!
//! ```text
//! file --input--> decompress --tar--> members --> Receiver      while it still arrives
//!             \-----------------zip--/                          when it is complete
//! ```
//!
//! Everything below [`read_members`] is pure over [`Read`] and [`Seek`]: it makes no files, and knows no cache. A model's
//! archive holds plain files and directories with relative names, or it is refused with the member's name; owners, modes
//! and other attributes are never restored. What comes out is bounded: in number, in names, and in its ratio to what went in.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, RelPath};
use crate::select::Selection;

mod decompress;
mod input;
mod layers;
mod members;
mod tar;
mod zip;

use decompress::Compression;
use input::{Input, Meter, fill};
use members::Members;

pub(crate) use layers::stack;
pub(crate) use members::Unpacked;

/// Attribute `unpack`: what becomes of a model that is one single file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archives {
    /// It is unpacked if it is an archive by its name, or has no extension and is one by its first bytes.
    #[default]
    Auto,
    /// It is unpacked whatever its name is, and must be an archive.
    Always,
    /// It stays as it is.
    Never,
}

impl FromStr for Archives {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{other:?} is no way to unpack: write \"auto\", \"always\" or \"never\""),
            )),
        }
    }
}

/// Extensions of archives, in lower case.
const EXTENSIONS: &[&str] =
    &[".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip"];

impl Archives {
    /// How to unpack the only file of a model, by its name. Models in files that happen to be archives themselves
    /// (PyTorch's `.pt` is a zip, NeMo's `.nemo` a tar) are not unpacked unless that is asked for.
    pub(crate) fn unpack(self, path: &RelPath) -> Option<Unpack> {
        let name = path.as_str().rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let kind = match self {
            Self::Never => return None,
            Self::Always => Kind::Archive,
            Self::Auto if EXTENSIONS.iter().any(|extension| name.ends_with(extension)) => Kind::Archive,
            Self::Auto if !has_extension(&name) => Kind::Perhaps,
            Self::Auto => return None,
        };
        Some(Unpack { kind, below: None, into: None, selection: Selection::default() })
    }
}

/// Whether a name ends in something like `.bin`; the `.2` of `model-v1.2` is none.
fn has_extension(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty() && extension.len() <= 12 && extension.starts_with(|c: char| c.is_ascii_alphabetic())
    })
}

/// How a file becomes the files in it.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// What it is.
    pub kind: Kind,
    /// The directory in it that is taken, whose name goes; `None` is all of it.
    pub below: Option<RelPath>,
    /// The directory of the model that its files are put into; `None` is the model's root.
    pub into: Option<RelPath>,
    /// Which of its files are taken, by their paths after `below`.
    pub selection: Selection,
}

/// What a file that is unpacked is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An archive by its first bytes; else a file like any other.
    Perhaps,
    /// An archive, or the model is broken.
    Archive,
    /// A tar that is laid over those of smaller numbers: its files replace theirs, and its whiteouts remove theirs
    /// (OCI image specification, "Image Layer Filesystem Changeset").
    Layer(u32),
}

impl Unpack {
    /// A layer with this number, the lowest first, of which the directory `below` is taken.
    pub fn layer(number: u32, below: Option<RelPath>) -> Self {
        Self { kind: Kind::Layer(number), below, into: None, selection: Selection::default() }
    }

    /// The same, its files put below `directory`.
    pub(crate) fn moved(self, directory: &RelPath) -> Result<Self> {
        let into = match &self.into {
            Some(into) => directory.join(into)?,
            None => directory.clone(),
        };
        Ok(Self { into: Some(into), ..self })
    }

    /// The file that this is made of, by what is taken from it. Where its files go, and over which others they lie, is
    /// left out: many volumes can share what was unpacked once.
    pub(crate) fn key(&self, origin: Digest) -> Digest {
        let kind = match self.kind {
            Kind::Perhaps | Kind::Archive => "archive",
            Kind::Layer(_) => "layer",
        };
        let below = self.below.as_ref().map_or("", RelPath::as_str);
        let mut hasher = Sha256::new();
        hasher.update(format!("unpacked 1 {} {kind} {below:?} {}", origin.hex(), self.selection.canonical()));
        Digest::from_hasher(hasher)
    }

    /// A text that is the same for those only that make the same files of the same bytes. Part of
    /// [`crate::Manifest::id`]: it never changes.
    pub(crate) fn canonical(&self) -> String {
        let kind = match self.kind {
            Kind::Perhaps => "perhaps".to_owned(),
            Kind::Archive => "archive".to_owned(),
            Kind::Layer(number) => format!("layer {number}"),
        };
        let path = |path: &Option<RelPath>| path.as_ref().map_or_else(|| ".".to_owned(), |path| format!("./{path}"));
        format!("{kind} {:?} {:?} {}", path(&self.below), path(&self.into), self.selection.canonical())
    }
}

/// A file out of an archive, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Stands for "that member of that archive", as [`crate::Entry::origin`] does for a file of its own.
    pub(crate) origin: Digest,
}

impl Member {
    /// The member with this number, of what was unpacked as `key` tells ([`Unpack::key`]).
    pub(crate) fn new(key: Digest, number: usize, digest: Digest, size: u64) -> Self {
        Self { digest, size, origin: Self::origin(key, number) }
    }

    /// What stands for the member with this number.
    pub(crate) fn origin(key: Digest, number: usize) -> Digest {
        Digest::of(format!("member 1 {} {number}", key.hex()))
    }
}

/// How much memory the reading of one file may take, beside the names of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// About 10 MiB: enough for what the programs make that are commonly used, as they are commonly called.
    Little,
    /// As much as any archive may need.
    Much,
}

impl Memory {
    /// Bytes of a zstd frame's window, at most. Little is what `zstd -19` makes, much what `zstd` itself reads unless it is told
    /// `--long`.
    fn zstd_window(self) -> u64 {
        match self {
            Self::Little => 8 << 20,
            Self::Much => 128 << 20,
        }
    }

    /// KiB that an xz stream may demand: `xz -6` demands 9 MiB, `xz -9` 65.
    fn xz(self) -> u32 {
        match self {
            Self::Little => 10 << 10,
            Self::Much => 96 << 10,
        }
    }

    /// Bytes of a zip's central directory, which are held along with what is read from them.
    fn zip_directory(self) -> u64 {
        match self {
            Self::Little => 2 << 20,
            Self::Much => 32 << 20,
        }
    }
}

/// The cause of an error that [`Memory::Much`] would have spared.
#[derive(Debug, thiserror::Error)]
#[error("it takes more memory to read")]
struct Outgrown;

fn outgrown() -> Error {
    Error::with_source(ErrorKind::FailedPrecondition, "it can't be read in little memory", Outgrown)
}

/// Whether reading failed for the want of [`Memory::Much`] alone.
pub(crate) fn is_outgrown(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Outgrown>())
}

/// Takes the files that are read from an archive, one after the other.
pub(crate) trait Receiver {
    /// A file begins. They are numbered from 0 on.
    fn begin(&mut self) -> Result<()>;

    /// What follows of its content.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// It is complete. Without this, its content is not to be trusted.
    fn end(&mut self) -> Result<()>;
}

/// Gives the members of a file to `receiver`. `None` when it is none that has members, and need not be
/// ([`Kind::Perhaps`]). Of a tar no byte is asked for twice, and none out of order.
///
/// # Errors
/// [`ErrorKind::FailedPrecondition`] for what is no archive, or one that no model should have; [`ErrorKind::Corrupt`] for one
/// that is damaged or cut short; those of `receiver` and, as they are, those of `source`; see [`is_outgrown`].
pub(crate) fn read_members<R: Read + Seek>(
    source: R,
    unpack: &Unpack,
    receiver: &mut dyn Receiver,
    memory: Memory,
) -> Result<Option<Unpacked<usize>>> {
    let meter = Meter::new(memory);
    let mut input = Input::new(source, meter.clone());
    let mut members = Members::new(unpack, receiver, meter.clone());
    let mut head = [0; tar::BLOCK];
    let length = fill(&mut input, &mut head).map_err(|error| meter.failure(error))?;
    let head = &head[..length];
    if zip::is_zip(head) && !matches!(unpack.kind, Kind::Layer(_)) {
        input.seek(SeekFrom::Start(0)).map_err(|error| meter.failure(error))?;
        zip::read(&mut input, &mut members)?;
        return members.finish().map(Some);
    }
    let compression = Compression::detect(head);
    let mut whole = Cursor::new(head).chain(input);
    let mut plain: Box<dyn Read + '_> = match compression {
        Some(compression) => compression.reader(whole, memory),
        None => Box::new(&mut whole),
    };
    let mut first = [0; tar::BLOCK];
    let begun = fill(&mut *plain, &mut first).map_err(|error| meter.failure(error));
    let is_tar = begun.as_ref().is_ok_and(|length| tar::is_tar(&first[..*length]));
    if unpack.kind == Kind::Perhaps && !is_tar {
        // Damaged as far as it can be told, it is not known to be one. An error of the source is not about that.
        return match begun {
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
            _ => Ok(None),
        };
    }
    let length = begun?;
    if !is_tar && !tar::is_empty_tar(&first[..length]) {
        return Err(no_archive(compression, &first[..length]));
    }
    tar::read(&mut Cursor::new(&first[..length]).chain(plain), &mut members)?;
    members.finish().map(Some)
}

/// Sizes of the files in an archive, by their paths: for the fuzzer, and whoever wants to look into one.
///
/// # Errors
/// [`ErrorKind::FailedPrecondition`], [`ErrorKind::Corrupt`].
#[doc(hidden)]
pub fn sizes(archive: &[u8], unpack: &Unpack) -> Result<Option<BTreeMap<RelPath, u64>>> {
    #[derive(Default)]
    struct Sizes(Vec<u64>);
    impl Receiver for Sizes {
        fn begin(&mut self) -> Result<()> {
            self.0.push(0);
            Ok(())
        }

        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            if let Some(size) = self.0.last_mut() {
                *size += bytes.len() as u64;
            }
            Ok(())
        }

        fn end(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let mut sizes = Sizes::default();
    let unpacked = read_members(Cursor::new(archive), unpack, &mut sizes, Memory::Much)?;
    let size = |number: usize| sizes.0.get(number).copied().unwrap_or(0);
    Ok(unpacked.map(|unpacked| unpacked.map(size).files))
}

/// Says what a file looks like that should be an archive: often it is the error page of a server.
fn no_archive(compression: Option<Compression>, head: &[u8]) -> Error {
    let head = &head[..head.len().min(24)];
    let begins = match std::str::from_utf8(head) {
        _ if head.is_empty() => "is empty".to_owned(),
        Ok(text) => format!("begins with {text:?}"),
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            format!("begins with {:?}", String::from_utf8_lossy(&head[..error.valid_up_to()]))
        }
        Err(_) => format!(
            "begins with the bytes {}",
            head.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        ),
    };
    let text = match compression {
        Some(compression) => {
            format!("it is no archive: what is compressed in it (by {}) is no tar, and {begins}", compression.name())
        }
        None => format!("it is no archive (tar, plain or compressed by gzip, bzip2, xz or zstd, or zip): it {begins}"),
    };
    Error::new(ErrorKind::FailedPrecondition, text + "; with unpack: never it is taken as it is")
}

#[cfg(test)]
mod tests;
