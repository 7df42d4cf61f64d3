//! Files that hold others: archives, and the layers of images.

use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::RelPath;
use crate::select::Selection;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide_what_may_be_unpacked() {
        let kind = |archives: &str, name| {
            let archives: Archives = archives.parse().unwrap();
            archives.unpack(&RelPath::parse(name).unwrap()).map(|unpack| unpack.kind)
        };
        for archive in ["m.tar", "M.TAR.GZ", "a/m.tgz", "m.tar.bz2", "m.tar.xz", "m.tar.zst", "m.zip"] {
            assert_eq!(kind("auto", archive), Some(Kind::Archive), "{archive}");
            assert_eq!(kind("never", archive), None, "{archive}");
        }
        for unclear in ["model", "a.b/model", "model-v1.2", ".hidden", "m.something-long-no-extension"] {
            assert_eq!(kind("auto", unclear), Some(Kind::Perhaps), "{unclear}");
        }
        for model in ["m.pt", "m.bin", "m.bin.gz", "m.nemo", "m.mar", "m.safetensors", "m.GGUF"] {
            assert_eq!(kind("auto", model), None, "{model}");
            assert_eq!(kind("always", model), Some(Kind::Archive), "{model}");
        }
        assert!("yes".parse::<Archives>().unwrap_err().to_string().contains("\"never\""));
    }
}
