//! The place where kubelet wants a volume, held in a way that nobody can redirect.
//!
//! Only what is strictly below kubelet's directory is touched, no symbolic link below it is followed, and the only
//! thing ever deleted is the target itself, by `rmdir(2)`. There is no recursive deletion here, and must never be one:
//! below a target there may be the cache that all pods share.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::attach::{self, Method};
use super::mountinfo::{self, Mount};
use super::{MountError, MountOptions};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// As kubelet makes the directories around it.
const TARGET_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// More mounts than this at one target are no leftovers any more: something keeps mounting there.
const MOST_STACKED: usize = 256;

/// Gives out [`Target`]s below kubelet's directory.
#[derive(Debug)]
pub struct Mounter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: OwnedFd,
    root_path: PathBuf,
    method: Method,
    staging: Option<PathBuf>,
    // Looking whether something is mounted and mounting are two steps; two callers in between would stack their mounts.
    one_at_a_time: Mutex<()>,
}

impl Mounter {
    /// Opens kubelet's directory (`/var/lib/kubelet`), once. It must be an absolute path without `.` and `..`, and may
    /// itself be reached through symbolic links.
    pub fn new(kubelet_dir: &Path) -> Result<Self, MountError> {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !kubelet_dir.is_absolute() || !kubelet_dir.components().all(plain) {
            return Err(MountError::InvalidTarget {
                path: kubelet_dir.display().to_string(),
                reason: "kubelet's directory must be an absolute path without \"..\"",
            });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, kubelet_dir, flags, Mode::empty())
            .map_err(|errno| MountError::io(format!("open kubelet's directory {kubelet_dir:?}"), errno))?;
        let inner = Inner {
            root,
            root_path: kubelet_dir.components().collect(),
            method: Method::Auto,
            staging: None,
            one_at_a_time: Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Names the directory in which [`Method::StagedBind`] prepares its mounts. It belongs to this plugin alone, on
    /// any file system, and is made if it is missing.
    #[must_use]
    pub fn with_staging(self, directory: &Path) -> Self {
        self.changed(|inner| inner.staging = Some(directory.to_path_buf()))
    }

    /// Insists on one way to mount.
    #[must_use]
    pub fn with_method(self, method: Method) -> Self {
        self.changed(|inner| inner.method = method)
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        // Nobody shares it yet: targets can't be had before the builder's methods have consumed the mounter.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
        self
    }

    /// Opens the directory above `path` and checks the path: absolute, no `.`, `..` or empty component (one trailing
    /// slash is tolerated), strictly below kubelet's directory, no symbolic link on the way.
    ///
    /// Errors: [`MountError::InvalidTarget`]; [`MountError::MissingParent`] if the directory above does not exist.
    pub fn target(&self, path: &str) -> Result<Target, MountError> {
        let refused = |reason| MountError::InvalidTarget { path: path.to_owned(), reason };
        let (above, name) = split(&self.inner.root_path, path).map_err(refused)?;
        let parent = self.open_below(&above).map_err(|errno| match errno {
            Errno::NOENT => MountError::MissingParent { path: path.to_owned() },
            Errno::LOOP | Errno::NOTDIR | Errno::XDEV => refused("a component is a symbolic link or not a directory"),
            Errno::NAMETOOLONG => refused("it is too long"),
            errno => MountError::io(format!("open the directory above {path:?}"), errno),
        })?;
        Ok(Target { inner: Arc::clone(&self.inner), parent, name: name.to_owned(), path: path.to_owned() })
    }

    /// [`Target::unmount_and_remove`] for a path of which not even the directory above need exist.
    pub fn unmount_and_remove(&self, path: &str) -> Result<(), MountError> {
        match self.target(path) {
            Err(MountError::MissingParent { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(target) => target.unmount_and_remove(),
        }
    }

    /// A mount's path as kubelet writes it. The table of mounts has the real path of kubelet's directory, to which the
    /// path that kubelet knows may be a symbolic link.
    pub fn as_kubelet_writes(&self, mount_point: &Path) -> PathBuf {
        let real = fs::read_link(attach::of_descriptor(self.inner.root.as_fd()));
        let below = real.ok().and_then(|real| mount_point.strip_prefix(real).ok().map(Path::to_path_buf));
        below.map_or_else(|| mount_point.to_path_buf(), |below| self.inner.root_path.join(below))
    }

    fn open_below(&self, components: &[&str]) -> Result<OwnedFd, Errno> {
        let root = &self.inner.root;
        if components.is_empty() {
            return openat(root, ".", DIRECTORY, Mode::empty());
        }
        if self.inner.method == Method::StagedBind {
            return walk(root, components);
        }
        let path = components.join("/");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, &path, DIRECTORY, Mode::empty(), resolve) {
            // ENOSYS: before Linux 5.6. EAGAIN: a rename somewhere on the machine came in between, which the walk does
            // not mind.
            Err(Errno::NOSYS | Errno::AGAIN) => walk(root, components),
            result => result,
        }
    }
}

/// What `openat2` does in one call, on every kernel: no component is `..`, and none is followed if it is a link.
fn walk(root: &OwnedFd, components: &[&str]) -> Result<OwnedFd, Errno> {
    let mut at = openat(root, ".", DIRECTORY, Mode::empty())?;
    for component in components {
        at = openat(&at, *component, DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

/// Splits a target's path into the components between `root` and the last one, and the last one.
fn split<'a>(root: &Path, path: &'a str) -> Result<(Vec<&'a str>, &'a str), &'static str> {
    let Some(relative) = path.strip_prefix('/') else { return Err("it must be absolute") };
    if path.contains('\0') {
        return Err("it contains a NUL character");
    }
    let mut components: Vec<_> = relative.strip_suffix('/').unwrap_or(relative).split('/').collect();
    if components.iter().any(|component| matches!(*component, "" | "." | "..")) {
        return Err("it contains an empty component, \".\" or \"..\"");
    }
    let above = root.components().filter(|part| matches!(part, Component::Normal(_)));
    let depth = above.clone().count();
    let below_root = components.len() > depth && above.zip(&components).all(|(part, name)| part.as_os_str() == *name);
    if !below_root {
        return Err("it is not below kubelet's directory (--kubelet-dir)");
    }
    components.drain(..depth);
    let Some(name) = components.pop() else { return Err("it is kubelet's directory itself") };
    Ok((components, name))
}

/// The mount through which an open file was reached.
pub(super) fn mount_id(file: BorrowedFd<'_>) -> std::io::Result<u64> {
    // statx(2) tells it too, but only since Linux 5.8.
    let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| std::io::Error::other("the kernel does not tell which mount a file is on"))
}

/// One place for a volume: its parent directory, held open, and its name in there.
#[derive(Debug)]
pub struct Target {
    inner: Arc<Inner>,
    parent: OwnedFd,
    name: String,
    path: String,
}

/// What is at a target.
enum Found {
    Nothing,
    Directory(OwnedFd),
    /// A mount whose file system is gone: nothing but unmounting works.
    Corpse,
    Other,
}

impl Target {
    /// The path as it was given to [`Mounter::target`], for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes the target directory if it is missing, and shows `tree` there, read-only from the first instant.
    ///
    /// Errors, after each of which a directory that was made by this call is gone again:
    /// [`MountError::AlreadyMounted`] (mounts are never stacked), [`MountError::NotDirectory`],
    /// [`MountError::NotEmpty`], [`MountError::MissingTree`], [`MountError::Unsupported`].
    pub fn mount_read_only(&self, tree: &Path, options: MountOptions) -> Result<(), MountError> {
        let _guard = self.inner.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match mkdirat(&self.parent, &self.name, TARGET_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(Errno::NOENT) => return Err(MountError::MissingParent { path: self.path.clone() }),
            Err(errno) => return Err(self.io("make the target directory", errno)),
        };
        let result = self.mount_on_directory(tree, options);
        if result.is_err() && made {
            // The error that led here is the one to report.
            let _ = unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        }
        result
    }

    fn mount_on_directory(&self, tree: &Path, options: MountOptions) -> Result<(), MountError> {
        let directory = match self.look()? {
            Found::Directory(directory) => directory,
            Found::Corpse => return Err(MountError::AlreadyMounted { path: self.path.clone() }),
            Found::Other => return Err(MountError::NotDirectory { path: self.path.clone() }),
            Found::Nothing => return Err(self.io("open the target directory", Errno::NOENT)),
        };
        if self.is_mounted(&directory)? {
            return Err(MountError::AlreadyMounted { path: self.path.clone() });
        }
        if !attach::is_empty(directory.as_fd()).map_err(|source| self.io("list the target directory", source))? {
            return Err(MountError::NotEmpty { path: self.path.clone() });
        }
        let Inner { method, staging, .. } = &*self.inner;
        attach::attach(*method, staging.as_deref(), tree, directory.as_fd(), options)?;
        self.verify(options).inspect_err(|_| {
            // Not what was asked for: better no volume than a writable one.
            let _ = unmount(self.by_parent(), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        })
    }

    fn verify(&self, options: MountOptions) -> Result<(), MountError> {
        match self.look()? {
            Found::Directory(top) if self.is_mounted(&top)? => attach::check_flags(&top, options),
            _ => Err(MountError::Busy { path: self.path.clone() }),
        }
    }

    /// The topmost mount at the target, if there is any. A target that is missing has none.
    pub fn mounted(&self) -> Result<Option<Mount>, MountError> {
        let table = || mountinfo::read().map_err(|source| MountError::io("read the table of mounts", source));
        let directory = match self.look()? {
            Found::Nothing => return Ok(None),
            Found::Other => return Err(MountError::NotDirectory { path: self.path.clone() }),
            Found::Corpse => return Ok(topmost(table()?, &self.absolute()?)),
            Found::Directory(directory) => directory,
        };
        if !self.is_mounted(&directory)? {
            return Ok(None);
        }
        // By its number and not by its path: a path can be spelt in several ways, and mounted over.
        let id = mount_id(directory.as_fd()).map_err(|source| self.io("tell the mount at the target", source))?;
        Ok(table()?.into_iter().find(|mount| mount.id == id))
    }

    /// Unmounts whatever is mounted at the target, however often and in whatever state, and removes the directory.
    /// What is not there is success.
    ///
    /// Errors: [`MountError::NotDirectory`] and [`MountError::NotEmpty`], both with nothing touched below;
    /// [`MountError::Busy`].
    pub fn unmount_and_remove(&self) -> Result<(), MountError> {
        match self.look()? {
            Found::Nothing => return Ok(()),
            Found::Other => return Err(MountError::NotDirectory { path: self.path.clone() }),
            Found::Directory(_) | Found::Corpse => {}
        }
        self.unmount_all()?;
        match unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR) => Err(MountError::NotDirectory { path: self.path.clone() }),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(MountError::NotEmpty { path: self.path.clone() }),
            Err(Errno::BUSY) => Err(MountError::Busy { path: self.path.clone() }),
            Err(errno) => Err(self.io("remove the target directory", errno)),
        }
    }

    fn unmount_all(&self) -> Result<(), MountError> {
        let path = self.by_parent();
        for _ in 0..MOST_STACKED {
            let result = match unmount(&path, UnmountFlags::NOFOLLOW) {
                // In use, or dead: detached, it vanishes from here now and for good when its last user lets go.
                Err(Errno::BUSY | Errno::NOTCONN | Errno::STALE | Errno::IO) => {
                    unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                }
                result => result,
            };
            match result {
                Ok(()) => {}
                // Not a mount (any more), or not even a directory.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(self.io("unmount the target", errno)),
            }
        }
        Err(MountError::Busy { path: self.path.clone() })
    }

    fn look(&self) -> Result<Found, MountError> {
        const DEAD: [Errno; 3] = [Errno::NOTCONN, Errno::STALE, Errno::IO];
        match openat(&self.parent, &self.name, DIRECTORY, Mode::empty()) {
            Ok(directory) => match fstat(&directory) {
                Err(errno) if DEAD.contains(&errno) => Ok(Found::Corpse),
                _ => Ok(Found::Directory(directory)),
            },
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Found::Other),
            Err(errno) if DEAD.contains(&errno) => Ok(Found::Corpse),
            Err(Errno::NAMETOOLONG) => {
                Err(MountError::InvalidTarget { path: self.path.clone(), reason: "it is too long" })
            }
            Err(errno) => Err(self.io("open the target", errno)),
        }
    }

    fn is_mounted(&self, directory: &OwnedFd) -> Result<bool, MountError> {
        let of = |file: &OwnedFd| mount_id(file.as_fd()).map_err(|source| self.io("tell the target's mount", source));
        Ok(of(directory)? != of(&self.parent)?)
    }

    /// The target by way of the parent's descriptor, for system calls that take only a path.
    fn by_parent(&self) -> PathBuf {
        attach::of_descriptor(self.parent.as_fd()).join(&self.name)
    }

    /// The target's path as the table of mounts spells it.
    fn absolute(&self) -> Result<PathBuf, MountError> {
        let parent = fs::read_link(attach::of_descriptor(self.parent.as_fd()));
        Ok(parent.map_err(|source| self.io("tell the path of the target", source))?.join(&self.name))
    }

    fn io(&self, action: &str, source: impl Into<std::io::Error>) -> MountError {
        MountError::io(format!("{action} {:?}", self.path), source)
    }
}

/// The mount at `path` on which no other one at `path` lies.
fn topmost(mounts: Vec<Mount>, path: &Path) -> Option<Mount> {
    let here: Vec<_> = mounts.into_iter().filter(|mount| mount.mount_point == path).collect();
    here.iter().find(|mount| !here.iter().any(|other| other.parent == mount.id)).cloned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "/var/lib/kubelet";

    #[test]
    fn paths_below_the_root_are_taken_apart() {
        let root = Path::new(ROOT);
        assert_eq!(split(root, "/var/lib/kubelet/mount"), Ok((vec![], "mount")));
        assert_eq!(split(root, "/var/lib/kubelet/pods/u/mount/"), Ok((vec!["pods", "u"], "mount")));
        assert_eq!(split(Path::new("/var/lib/kubelet/"), "/var/lib/kubelet/a b/…"), Ok((vec!["a b"], "…")));
        assert_eq!(split(Path::new("/"), "/x"), Ok((vec![], "x")));
    }

    #[test]
    fn everything_else_is_refused() {
        for path in [
            "",
            "/",
            "relative",
            "some/path",
            "/etc/passwd",
            ROOT,
            "/var/lib/kubelet/",
            "/var/lib/kubelet//",
            "/var/lib/kubelet/x//",
            "/var/lib/kubelet2/x",
            "/var/lib/kubele/x",
            "/var//lib/kubelet/x",
            "//var/lib/kubelet/x",
            "/var/lib/kubelet/../etc",
            "/var/lib/kubelet/pods/..",
            "/var/lib/kubelet/./x",
            "/var/lib/kubelet/x/.",
            "/var/lib/kubelet/x\0y",
        ] {
            assert!(split(Path::new(ROOT), path).is_err(), "{path:?} was accepted");
        }
    }

    #[test]
    fn the_topmost_of_stacked_mounts_is_found_in_any_order() {
        let table = b"11 10 0:1 /b /t rw - ext4 x rw\n10 1 0:1 /a /t rw - ext4 x rw\n12 1 0:1 /c /u rw - ext4 x rw\n";
        let top = topmost(mountinfo::parse(table), Path::new("/t")).unwrap();
        assert_eq!(top.id, 11);
        assert_eq!(topmost(mountinfo::parse(table), Path::new("/v")), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_below_the_root_and_plain(path in "/?(var/lib/kubelet)?[a./\\x00 ]{0,12}") {
            if let Ok((above, name)) = split(Path::new(ROOT), &path) {
                let all = || above.iter().chain([&name]);
                prop_assert!(all().all(|part| !matches!(*part, "" | "." | "..") && !part.contains(['/', '\0'])));
                let spelt: String = all().flat_map(|part| ["/", *part]).collect();
                prop_assert_eq!(path.strip_suffix('/').unwrap_or(&path), format!("{ROOT}{spelt}"));
            }
        }
    }
}
