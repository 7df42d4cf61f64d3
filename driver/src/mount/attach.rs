//! The two ways to make a read-only mount appear, neither with an instant at which it is visible and writable.
//!
//! Both get the target as an open directory and leave no descriptor behind: a clone that is still held when the volume
//! is unpublished would make the unmount fail with EBUSY. Neither looks at what is at the target; `target` does.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};
use sys_mount::MountFlags;

use super::sys::{Attributes, mount_setattr};
use super::{MountError, MountOptions};

/// How mounts are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// [`Method::MoveMount`] if the kernel has it, else [`Method::StagedBind`].
    #[default]
    Auto,
    /// `open_tree`, `mount_setattr`, `move_mount`: the mount is made read-only while it is attached nowhere. Needs
    /// Linux 5.12.
    MoveMount,
    /// A bind mount is made read-only in a private place, and bound from there to the target: a bind of a read-only
    /// bind is born read-only. Works on every kernel, but needs a staging directory.
    StagedBind,
}

/// Mounts `tree` on the open directory `target`. `path` is the target's name, for messages only.
pub(super) fn attach(
    method: Method,
    staging: Option<&Path>,
    tree: &Path,
    target: BorrowedFd<'_>,
    options: MountOptions,
) -> Result<(), MountError> {
    let staged = || match staging {
        Some(staging) => staged_bind(staging, tree, target, options),
        None => Err(MountError::Unsupported {
            reason: "it lacks mount_setattr(2) (Linux 5.12), and no staging directory is configured",
        }),
    };
    match method {
        Method::MoveMount => moved_mount(tree, target, options),
        Method::StagedBind => staged(),
        Method::Auto => match moved_mount(tree, target, options) {
            Err(MountError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOSYS) => staged(),
            result => result,
        },
    }
}

fn moved_mount(tree: &Path, target: BorrowedFd<'_>, options: MountOptions) -> Result<(), MountError> {
    // Without AT_RECURSIVE: what somebody mounts below a tree of the cache is not part of the model.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let clone = open_tree(CWD, tree, flags).map_err(|errno| cannot_open(tree, errno))?;
    check_directory(&clone, tree)?;

    let mut attributes =
        Attributes { set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, clear: 0 };
    if options.no_exec {
        attributes.set |= libc::MOUNT_ATTR_NOEXEC;
    }
    if options.no_atime {
        attributes.clear |= libc::MOUNT_ATTR__ATIME;
        attributes.set |= libc::MOUNT_ATTR_NOATIME;
    }
    mount_setattr(clone.as_fd(), attributes)
        .map_err(|source| MountError::io("make the mount read-only before it is attached", source))?;

    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&clone, c"", target, c"", flags).map_err(|errno| MountError::io("attach the mount to its target", errno))
}

fn staged_bind(staging: &Path, tree: &Path, target: BorrowedFd<'_>, options: MountOptions) -> Result<(), MountError> {
    let staged = |action: &str| {
        let action = format!("{action} in the staging directory {staging:?}");
        move |source: io::Error| MountError::io(action, source)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree_fd = openat(CWD, tree, flags, Mode::empty()).map_err(|errno| cannot_open(tree, errno))?;

    let private = staging.join("private");
    let slot = private.join("mount");
    // A process that was killed half-way has left its mounts behind. The staging directory itself may be a mount of
    // the operator's, and is never unmounted.
    for place in [&slot, &private] {
        while detach(place).is_ok() {}
    }
    // Nobody but root may look in while the mount is still writable.
    DirBuilder::new().recursive(true).mode(0o700).create(&slot).map_err(staged("make a directory"))?;

    // Private, so that the half-finished mount below shows up in no other mount namespace. Both are taken down when
    // they go out of scope, the inner one first.
    let _private = bind(&private, &private).map_err(staged("bind"))?;
    make_private(&private).map_err(staged("make a mount private"))?;
    let _writable = bind(&of_descriptor(tree_fd.as_fd()), &slot).map_err(staged("bind the tree"))?;
    make_private(&slot).map_err(staged("make the bound tree private"))?;

    // A remount resets what it is not told, so what the cache's own mount forbids is repeated. Access times are the
    // exception: they stay as they are when none of their flags is given.
    let mut remount =
        MountFlags::REMOUNT | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let inherited = rustix::fs::statvfs(&slot).map_err(|errno| staged("look at the mount")(errno.into()))?.f_flag;
    if options.no_exec || inherited.contains(StatVfsMountFlags::NOEXEC) {
        remount |= MountFlags::NOEXEC;
    }
    if options.no_atime {
        remount |= MountFlags::NOATIME;
    }
    change(Path::new(""), &slot, remount).map_err(staged("make the mount read-only"))?;

    change(&slot, &of_descriptor(target), MountFlags::BIND)
        .map_err(|source| MountError::io("attach the mount to its target", source))
}

/// What the topmost mount at an open directory permits, compared with what was asked for.
pub(super) fn check_flags(mounted: &OwnedFd, options: MountOptions) -> Result<(), MountError> {
    let flags = fstatvfs(mounted).map_err(|errno| MountError::io("look at the new mount", errno))?.f_flag;
    let mut wanted = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    wanted.set(StatVfsMountFlags::NOEXEC, options.no_exec);
    if flags.contains(wanted) {
        return Ok(());
    }
    Err(MountError::Unsupported { reason: "the new mount lacks the flags that were asked for, so it was taken down" })
}

/// A path that names an open directory, whatever happens to the names that led to it.
pub(super) fn of_descriptor(descriptor: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd()).into()
}

/// A mount that lasts as long as this value.
struct Temporary<'a>(&'a Path);

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Should it fail, the next mount finds the leftover and takes it down.
        let _ = detach(self.0);
    }
}

// Not by sys-mount: its `UnmountFlags::NOFOLLOW` has the value of O_NOFOLLOW, with which umount2(2) always fails.
fn detach(target: &Path) -> io::Result<()> {
    unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).map_err(io::Error::from)
}

fn bind<'a>(source: &Path, target: &'a Path) -> io::Result<Temporary<'a>> {
    change(source, target, MountFlags::BIND)?;
    Ok(Temporary(target))
}

fn make_private(target: &Path) -> io::Result<()> {
    rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE).map_err(io::Error::from)
}

fn change(source: &Path, target: &Path, flags: MountFlags) -> io::Result<()> {
    // "none": left to itself, sys-mount would try one file system type after the other.
    sys_mount::Mount::builder().fstype("none").flags(flags).mount(source, target).map(drop)
}

fn cannot_open(tree: &Path, errno: Errno) -> MountError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => MountError::MissingTree { tree: tree.to_path_buf() },
        errno => MountError::io(format!("open {tree:?} for mounting"), errno),
    }
}

fn check_directory(clone: &OwnedFd, tree: &Path) -> Result<(), MountError> {
    let stat = fstat(clone).map_err(|errno| MountError::io(format!("look at {tree:?}"), errno))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(());
    }
    Err(MountError::MissingTree { tree: tree.to_path_buf() })
}

/// Whether an open directory has no entries.
pub(super) fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fs::read_dir(of_descriptor(directory))?.next().is_none())
}
