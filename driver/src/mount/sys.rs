//! The one system call for mounting that no crate wraps.
//!
//! This is the only file of the plugin with `unsafe`; it may hold nothing but the call and its argument.

#![allow(unsafe_code, reason = "mount_setattr(2) is in neither rustix nor nix")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Attributes that `mount_setattr(2)` changes in one step: either all of them, or none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub(super) set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub(super) clear: u64,
}

/// Gives the one mount that `tree` refers to these attributes and makes its propagation private. Needs Linux 5.12.
pub(super) fn mount_setattr(tree: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    let argument = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated constant, `argument` is a live, initialised `struct mount_attr` whose exact
    // size is passed, and the kernel only reads both. `tree` is borrowed, hence open for as long as the call lasts.
    // Each argument has the width that the kernel expects or is widened to it by the variadic call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const argument,
            size_of_val(&argument),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
