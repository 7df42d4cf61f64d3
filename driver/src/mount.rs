//! Mounting: shows a directory of the cache, read-only, at a path that kubelet names, and takes it away again.
//!
//! ```text
//! Mounter --target(path)--> Target --mount_read_only(tree)--> a mount          (attach)
//! (kubelet's directory)       |-----mounted()---------------> a Mount          (mountinfo)
//!                             '-----unmount_and_remove()----> nothing there
//! Mount --Location::below--> which directory of the cache it shows             (location)
//! ```
//!
//! What may be relied on:
//!
//! - Only paths strictly below kubelet's directory are touched, and below it no symbolic link is ever followed. A
//!   [`Target`] holds its parent directory open, so swapping a component for a link later changes nothing.
//! - A volume is read-only, `nosuid` and `nodev` from the first instant at which anybody can see it.
//! - Nothing is ever deleted but the target directory itself, and that only by `rmdir(2)`.
//!
//! No gRPC in here, and no knowledge of models or volumes. `unsafe` lives in `sys` alone.

use std::io;
use std::path::PathBuf;

mod attach;
mod location;
pub mod mountinfo;
mod sys;
mod target;

pub use attach::Method;
pub use location::{Location, snapshots_shown};
pub use mountinfo::Mount;
pub use target::{Mounter, Target};

/// What a pod may choose about its mount. Read-only, `nosuid` and `nodev` are not choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MountOptions {
    /// Refuse to execute programs from the volume.
    pub no_exec: bool,
    /// Say `noatime`. A read-only mount never updates access times; this is for those who look at mount tables.
    pub no_atime: bool,
}

/// Why a target could not be mounted or taken down. `Display` never repeats the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The path is not one that this plugin may touch.
    #[error("target path {path:?} is refused: {reason}")]
    InvalidTarget {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The directory in which the target would be does not exist.
    #[error("the directory above the target {path:?} does not exist; kubelet makes it before it publishes")]
    MissingParent {
        /// The target's path.
        path: String,
    },
    /// Something else than a directory is at the target.
    #[error(
        "the target {path:?} is a file or a symbolic link, not a directory; it was left alone: find out who made it, \
         and remove it by hand"
    )]
    NotDirectory {
        /// The target's path.
        path: String,
    },
    /// The target is a directory with something in it.
    #[error(
        "the target directory {path:?} is not empty; it was left alone and nothing was deleted: move its content \
         away by hand"
    )]
    NotEmpty {
        /// The target's path.
        path: String,
    },
    /// Something is mounted at the target already.
    #[error("something is mounted at the target {path:?} already; unpublish the volume before publishing it anew")]
    AlreadyMounted {
        /// The target's path.
        path: String,
    },
    /// The target can't be let go of now.
    #[error("the target {path:?} is busy; look in /proc/*/mountinfo for who still uses it; the call may be repeated")]
    Busy {
        /// The target's path.
        path: String,
    },
    /// The directory of the cache that was to be shown does not exist.
    #[error("{tree:?}, which was to be mounted, is not a directory of the cache (any more); publish again")]
    MissingTree {
        /// The directory.
        tree: PathBuf,
    },
    /// The kernel can't mount in the way that this plugin insists on.
    #[error("this kernel can't mount a volume safely: {reason}")]
    Unsupported {
        /// What is missing.
        reason: &'static str,
    },
    /// A system call failed.
    #[error("can't {action}")]
    Io {
        /// What was tried: a clause that follows "can't".
        action: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { action: action.into(), source: source.into() }
    }
}
