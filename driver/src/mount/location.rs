//! Which directory of the cache a mount shows.
//!
//! A bind mount remembers its file system and the directory inside of it, but not the path through which it was made.
//! To recognise one after a restart, the cache's own directory is located in the same terms: device, and path inside
//! the file system. That works as well when the cache is on a bind mount, or in a subdirectory of a mount.
//!
//! Reads only; what follows from it (leases, for instance) is for the caller to decide.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::mountinfo::{self, Mount};
use super::{MountError, target};

/// Where a directory is, independent of the path through which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    device: (u32, u32),
    path: PathBuf,
}

impl Location {
    /// Locates an existing directory.
    pub fn of(directory: &Path) -> Result<Self, MountError> {
        let at = |source: rustix::io::Errno| MountError::io(format!("open {directory:?} to locate it"), source);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, directory, flags, Mode::empty()).map_err(at)?;
        let mounts = mountinfo::read_settled().map_err(|source| MountError::io("read the table of mounts", source))?;
        Self::of_opened(&opened, &mounts)
            .ok_or(MountError::Unsupported { reason: "the cache's directory is on none of the mounts that it lists" })
    }

    fn of_opened(directory: &OwnedFd, mounts: &[Mount]) -> Option<Self> {
        let id = target::mount_id(directory.as_fd()).ok()?;
        let mount = mounts.iter().find(|mount| mount.id == id)?;
        // The device is taken from the table and not from stat(2): the two differ on btrfs.
        let shown_at = fs::read_link(format!("/proc/thread-self/fd/{}", directory.as_raw_fd())).ok()?;
        let inside = shown_at.strip_prefix(&mount.mount_point).ok()?;
        Some(Self { device: mount.device, path: joined(&mount.root, inside) })
    }

    /// If the mount shows this directory or one below it: its path below this directory, empty for the directory itself.
    pub fn below<'a>(&self, mount: &'a Mount) -> Option<&'a Path> {
        (mount.device == self.device).then(|| mount.root.strip_prefix(&self.path).ok()).flatten()
    }
}

// `join` would leave a trailing slash behind an empty path.
fn joined(root: &Path, inside: &Path) -> PathBuf {
    if inside.as_os_str().is_empty() { root.to_path_buf() } else { root.join(inside) }
}

/// All mounts that show something strictly below the directory `snapshots`, each with the name of the snapshot: the
/// first component below it. Names that are not UTF-8 are nobody's snapshot and left out.
///
/// A snapshot whose directory was deleted while mounted is reported too.
pub fn snapshots_shown(snapshots: &Path) -> Result<Vec<(String, Mount)>, MountError> {
    let location = Location::of(snapshots)?;
    let mounts = mountinfo::read_settled().map_err(|source| MountError::io("read the table of mounts", source))?;
    let shown = mounts.into_iter().filter_map(|mount| {
        let Component::Normal(name) = location.below(&mount)?.components().next()? else { return None };
        let name = name.to_str()?.to_owned();
        Some((name, mount))
    });
    Ok(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> Mount {
        mountinfo::parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn only_the_same_device_and_whole_components_match() {
        let location = Location { device: (8, 1), path: "/lib/modelmount/snapshots".into() };
        let at = |device: &str, root: &str| {
            let mount = mount(&format!("5 1 {device} {root} /target ro - ext4 /dev/sda1 rw\n"));
            location.below(&mount).map(Path::to_path_buf)
        };
        assert_eq!(at("8:1", "/lib/modelmount/snapshots/ab/tree"), Some("ab/tree".into()));
        assert_eq!(at("8:1", "/lib/modelmount/snapshots"), Some("".into()));
        assert_eq!(at("8:2", "/lib/modelmount/snapshots/ab/tree"), None);
        assert_eq!(at("8:1", "/lib/modelmount/snapshots2/ab"), None);
        assert_eq!(at("8:1", "/lib"), None);
        assert_eq!(at("8:1", "/"), None);
    }

    #[test]
    fn a_directory_is_located_through_its_mount() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("in ner");
        fs::create_dir(&inner).unwrap();
        let outer = Location::of(directory.path()).unwrap();
        let located = Location::of(&inner).unwrap();
        assert_eq!(located.device, outer.device);
        assert_eq!(located.path, outer.path.join("in ner"));
    }
}
