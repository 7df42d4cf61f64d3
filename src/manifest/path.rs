//! Paths below a model's root.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, shown};

/// A path below a model's root: relative, of non-empty components, none of them `.` or `..`, without control
/// characters, and short enough for every Linux file system. Each component but the last becomes a directory, so there
/// are not many.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Box<str>);

impl RelPath {
    /// Longest path, in bytes: PATH_MAX less room for the directory that the model lies in.
    const MAX_LEN: usize = 3072;
    /// Longest component, in bytes: NAME_MAX of ext4, xfs and btrfs.
    const MAX_COMPONENT: usize = 255;
    /// Most components. One name of 3 KiB could else stand for 1,500 directories, and a model has 100,000 names.
    const MAX_COMPONENTS: usize = 64;

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
        } else if path.split('/').count() > Self::MAX_COMPONENTS {
            "has more than 64 components"
        } else {
            return Ok(Self(path.into()));
        };
        let shown = shown(path);
        Err(Error::new(ErrorKind::InvalidArgument, format!("the name {shown:?} {problem}")))
    }

    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path `inner` below this one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the two together are too long or too deep.
    pub fn join(&self, inner: &Self) -> Result<Self> {
        Self::parse(&format!("{self}/{inner}"))
    }

    /// All proper ancestors, outermost first: `a`, `a/b` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(i, _)| &self.0[..i])
    }
}

// Equal paths have equal texts, and their order is that of the texts.
impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_of_many_components_is_refused() {
        let deep = |components: usize| RelPath::parse(&vec!["a"; components].join("/"));
        let deepest = deep(64).unwrap();
        for refused in [deep(65), deepest.join(&deep(1).unwrap())] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().ends_with("has more than 64 components"), "{error}");
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
    }
}
