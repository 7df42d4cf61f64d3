//! Labels the cache, so that confined pods may read the models in it.
//!
//! On a node with SELinux a container may read what carries `container_file_t`; what a privileged plugin makes below
//! `/var/lib` carries that directory's type instead. What is made in a labelled directory inherits its label, so the
//! cache's root is labelled before anything is made in it, and a cache that was there before is labelled once.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

/// The extended attribute that holds the label (`xattr(7)`, `selinux(8)`).
const ATTRIBUTE: &str = "security.selinux";

/// A label could not be set.
#[derive(Debug, thiserror::Error)]
#[error("can't label {path:?} for SELinux (--selinux-label)")]
pub struct LabelError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Gives `root`, made if need be, and all that is in it this label. Costs one system call when it has it already.
///
/// # Errors
/// When the file system has no labels, or the process may not set them.
pub fn label(root: &Path, label: &str) -> Result<(), LabelError> {
    let at = |path: &Path, source: io::Error| LabelError { path: path.to_owned(), source };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(|error| at(root, error))?;
    if has(root, label).map_err(|error| at(root, error))? {
        return Ok(());
    }
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).map_err(|error| at(&directory, error))? {
            let entry = entry.map_err(|error| at(&directory, error))?;
            let path = entry.path();
            set(&path, label).map_err(|error| at(&path, error))?;
            if entry.file_type().map_err(|error| at(&path, error))?.is_dir() {
                pending.push(path);
            }
        }
    }
    // The root last: its label says that all the rest has it.
    set(root, label).map_err(|error| at(root, error))
}

/// The kernel may keep the label with a NUL at its end.
fn has(path: &Path, label: &str) -> io::Result<bool> {
    let mut buffer = [0; 256];
    match lgetxattr(path, ATTRIBUTE, &mut buffer) {
        Ok(length) => Ok(buffer[..length].strip_suffix(b"\0").unwrap_or(&buffer[..length]) == label.as_bytes()),
        // No label, or one that is longer than any that we set.
        Err(Errno::NODATA | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn set(path: &Path, label: &str) -> io::Result<()> {
    Ok(lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())?)
}
