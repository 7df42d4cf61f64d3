//! Where everything lies: see the [cache's documentation](super).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;

/// Version of the layout that this code reads and writes.
const VERSION: u32 = 1;

/// The directories that every cache has.
pub(super) const DIRECTORIES: [&str; 8] =
    ["blobs/sha256", "origins", "unpacked", "partial", "snapshots", "leases", "grants", "trash"];
/// The directory that is left to whoever mounts models.
pub(super) const STAGING: &str = "staging";

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The paths of one cache.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout at `root`, with all directories made. Nobody but the owner may enter the cache; pods see their own
    /// model alone, through its mount.
    pub(super) fn create(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        for directory in DIRECTORIES.map(|name| root.join(name)) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| {
                Error::with_source(
                    ErrorKind::FailedPrecondition,
                    format!("can't make the cache directory {}", directory.display()),
                    error,
                )
            })?;
        }
        Ok(layout)
    }

    /// The layout at `root`, where a cache must be.
    pub(super) fn existing(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_owned() };
        if !layout.mark().exists() {
            let text = format!("there is no cache at {}: give the plugin's --cache-dir", root.display());
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        Ok(layout)
    }

    /// Refuses a cache of another version, and marks a new one.
    pub(super) fn check_version(&self) -> Result<()> {
        let path = self.mark();
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.mark_version(&path);
            }
            Err(error) => return Err(Error::io(format!("can't read {}", path.display()), error)),
        };
        match serde_json::from_slice(&found) {
            Ok(Version { version: VERSION }) => Ok(()),
            Ok(Version { version }) => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "the cache at {} has layout version {version}, and this modelmount knows version {VERSION}: give it \
                     another --cache-dir, or empty this one",
                    self.root.display()
                ),
            )),
            // A power loss can leave it without its content; that a cache lies here the directories tell.
            Err(_) if found.iter().all(|byte| *byte == 0) => self.mark_version(&path),
            Err(error) => Err(Error::with_source(
                ErrorKind::FailedPrecondition,
                format!("{} is not a cache's: give modelmount another --cache-dir, or empty this one", path.display()),
                error,
            )),
        }
    }

    fn mark_version(&self, path: &Path) -> Result<()> {
        self.replace(path, format!("{{\"version\":{VERSION}}}").as_bytes())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that says that a cache is here, and of which version.
    pub(super) fn mark(&self) -> PathBuf {
        self.root.join("layout")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn boot(&self) -> PathBuf {
        self.root.join("boot")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        fanned_out(self.blobs(), digest)
    }

    pub(super) fn origin(&self, origin: Digest) -> PathBuf {
        fanned_out(self.root.join("origins"), origin)
    }

    pub(super) fn unpacked(&self, key: Digest) -> PathBuf {
        fanned_out(self.root.join("unpacked"), key)
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, origin: Digest) -> PathBuf {
        self.partials().join(origin.hex())
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(super) fn snapshot(&self, id: Digest) -> PathBuf {
        self.snapshots().join(id.hex())
    }

    pub(super) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// A name in the trash that nobody else has: for things to be built or to be thrown away.
    pub(super) fn scratch(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.trash().join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Removes a file or directory: out of sight in one step, then for good.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        let scratch = self.scratch();
        match fs::rename(path, &scratch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(format!("can't remove {}", path.display()), error)),
        }
        let removed = if scratch.is_dir() { fs::remove_dir_all(&scratch) } else { fs::remove_file(&scratch) };
        // Out of sight already; the next start empties the trash.
        removed.or_else(|error| {
            tracing::warn!(path = %scratch.display(), %error, "the trash can't be emptied");
            Ok(())
        })
    }

    /// Writes a small file in one step.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let scratch = self.scratch();
        let write = || {
            fs::write(&scratch, content)?;
            fs::rename(&scratch, path)
        };
        write().map_err(|error| Error::io(format!("can't write {}", path.display()), error))
    }
}

/// Hundreds of thousands of names in one directory are slow to list: 256 directories hold them.
fn fanned_out(base: PathBuf, digest: Digest) -> PathBuf {
    let hex = digest.hex();
    base.join(&hex[..2]).join(hex)
}

/// The digest that a path is named after.
pub(super) fn named_after(path: &Path) -> Option<Digest> {
    path.file_name().and_then(|name| name.to_str()).and_then(Digest::from_hex)
}
