//! The node's cache: verified files, each stored once, and the models that are made of them.
//!
//! ```text
//! <root>/layout                     {"version": 1}
//! <root>/lock                       flock: one process per cache
//! <root>/boot                       boot id of the machine when the cache was last opened
//! <root>/blobs/sha256/ab/<hex>      one file's content, 0444, verified, immutable
//! <root>/origins/ab/<key>           symlink "sha256:<hex> <size>": which content one version of a file at a source has
//! <root>/unpacked/ab/<key>          JSON: which files one archive, or one layer of an image, was unpacked to
//! <root>/partial/<key>/             a file on its way, or one that is not known to be on the disk yet
//! <root>/snapshots/<id>/            manifest.json, tree/ (hard links to blobs): one model, ready to be mounted
//! <root>/leases/<key>.json          who has which model
//! <root>/grants/                    (reserved: who was found to have the right to what)
//! <root>/staging/                   mounts that are being made
//! <root>/trash/                     renamed first, unlinked later
//! ```
//!
//! **Keys.** An origin key is the digest of store, location, validator and size ([`crate::Entry::origin`]); a snapshot's
//! id is the digest of its files' paths and origins ([`crate::Manifest::id`]). A file whose source tells no versions gets a
//! key of its own whenever it is listed, and so is never found here. Content is found by origin only, never
//! by a digest that a source merely declares: naming a file's digest must not be enough to be given it.
//!
//! **Archives.** Their members are blobs like all others, with origins of their own; the archive itself does not stay. A
//! record of members says something only as long as all their blobs are there. Members on their way lie in
//! `partial/<key>/`; they are of no use to the next process, which finds the archive in its own partial.
//!
//! **Commit.** A blob and a snapshot appear by one atomic step (`link`, `rename`) after their content was verified.
//!
//! **Power loss.** Nobody waits for the disk. A blob is linked from its `partial/<key>/data`, and that directory goes
//! only after the content was flushed, in the background. A blob whose partial is still there when the cache is opened
//! under another boot id may have lost bytes: it is demoted to what it was, a partial, with every snapshot that has it.
//!
//! **Trust.** A snapshot is checked against its manifest, and its files against their blobs, when it is first used: what is not as
//! it should be is mended where it lies, since it may be mounted. A blob that has not the size of its file is none, and gives way
//! to the next one that is verified.
//!
//! **Roots.** What a lease names is in use. A blob is in use as long as a snapshot links it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Manifest};
use crate::unpack::{Member, Unpacked};

mod blob;
mod layout;
mod lease;
mod mend;
mod recover;
mod remove;
mod snapshot;
mod space;
mod sync;
mod unpacked;

pub use lease::{Lease, Leases};
pub use remove::remove;
pub use snapshot::{Snapshot, StoredFile, Summary};
pub use space::{KeepFree, Reservation};

use layout::Layout;
use snapshot::Contents;
use space::Space;
use sync::Syncer;

/// An open cache. One process has it at a time. Dropping it waits for a flush that is under way.
#[derive(Debug)]
pub struct Cache {
    layout: Layout,
    leases: Leases,
    space: Space,
    syncer: Syncer,
    /// Snapshots that this process has checked or made.
    checked: Mutex<HashMap<Digest, Arc<Contents>>>,
    // Last: the cache is unlocked when nothing works on it any more.
    _lock: Flock<File>,
}

impl Cache {
    /// Opens the cache at `root`, making it if there is none, and puts right what a crash left behind.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] when another process has it or another version wrote it; [`ErrorKind::Io`].
    pub fn open(root: &Path, keep_free: KeepFree) -> Result<Self> {
        let layout = Layout::create(root)?;
        let lock = lock(&layout.lock())?;
        layout.check_version()?;
        let committed = recover::recover(&layout)?;
        let leases = Leases::load(layout.leases())?;
        let syncer = Syncer::start(layout.clone());
        for partial in committed {
            syncer.enqueue(partial);
        }
        let space = Space::new(root.to_owned(), keep_free);
        Ok(Self { layout, leases, space, syncer, checked: Mutex::default(), _lock: lock })
    }

    /// The directory of the cache.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// The directory below which each model has its directory, named by its id, with the files in `tree`.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.layout.snapshots()
    }

    /// A directory for whoever mounts models, on the cache's file system. Nothing in it outlives a mount.
    pub fn staging_dir(&self) -> PathBuf {
        self.layout.root().join(layout::STAGING)
    }

    /// Who has which model.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Sets room aside for a download.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`], with the figures.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        self.space.reserve(bytes)
    }

    /// The model with this id, if it is complete. Takes constant time once this process knows the model; the first
    /// time, each of its files is looked at. One that is not as its manifest says does not count, and stays for those
    /// who have it mounted, until it is mended by being fetched again.
    pub fn snapshot(&self, id: Digest) -> Option<Snapshot> {
        let directory = self.layout.snapshot(id);
        let known = self.checked.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone);
        if let Some(contents) = known.filter(|_| directory.join(snapshot::TREE).is_dir()) {
            return Some(Snapshot::new(id, directory, contents));
        }
        if !directory.exists() {
            return None;
        }
        match snapshot::check(&self.layout, id) {
            Ok(contents) => Some(self.remember(id, contents)),
            Err(error) => {
                tracing::warn!(snapshot = %id, error = %error.report(), "a model in the cache is damaged");
                self.checked.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                None
            }
        }
    }

    /// Whether this version of a file, of this size where the source tells it, is here: its digest and size.
    pub(crate) fn known(&self, origin: Digest, size: Option<u64>) -> Option<(Digest, u64)> {
        blob::known(&self.layout, origin, size)
    }

    /// The directory in which a file is downloaded.
    pub(crate) fn partial(&self, origin: Digest) -> PathBuf {
        self.layout.partial(origin)
    }

    /// Bytes on the disk of a file whose download was interrupted.
    pub(crate) fn begun(&self, origin: Digest) -> u64 {
        fs::metadata(self.layout.partial(origin).join("data")).map_or(0, |data| data.blocks() * 512)
    }

    /// Makes a blob of a downloaded file of `size` bytes.
    pub(crate) fn commit(&self, origin: Digest, digest: Digest, size: u64) -> Result<()> {
        blob::commit(&self.layout, origin, digest, size)?;
        self.syncer.enqueue(origin);
        Ok(())
    }

    /// What was unpacked under this key, if all of it is still here.
    pub(crate) fn unpacked(&self, key: Digest) -> Option<Unpacked<Member>> {
        unpacked::known(&self.layout, key)
    }

    /// Makes blobs of the members of a verified archive, which lie in the key's partial, named by their origins.
    pub(crate) fn commit_members(&self, archive: Digest, key: Digest, unpacked: &Unpacked<Member>) -> Result<()> {
        unpacked::commit(&self.layout, archive, key, unpacked, |origin| self.syncer.enqueue(origin))
    }

    /// The verified file with this content.
    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        self.layout.blob(digest)
    }

    /// Makes a snapshot of blobs that are all here.
    pub(crate) fn assemble(
        &self,
        manifest: &Manifest,
        files: Vec<StoredFile>,
        archive: Option<Digest>,
    ) -> Result<Snapshot> {
        let contents = snapshot::assemble(&self.layout, manifest, files, archive)?;
        Ok(self.remember(manifest.id(), contents))
    }

    /// What is in the cache at `root`, which another process may have open: complete models, by id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no cache at `root`.
    pub fn list(root: &Path) -> Result<Vec<Summary>> {
        let layout = Layout::existing(root)?;
        layout.check_version()?;
        let leases = Leases::load(layout.leases())?;
        snapshot::list(&layout, &leases)
    }

    /// Whether the cache can take another model: its disk is there and writable.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::ResourceExhausted`], saying why not.
    pub fn probe(&self) -> Result<()> {
        let probe = self.layout.trash().join("probe");
        let failed = |error| Error::io(format!("the cache at {} can't be written", self.root().display()), error);
        // One block: an empty file can be made on a disk that is full.
        let written = fs::write(&probe, [0; 4096]);
        // What a failed write leaves would take the last room.
        let removed = fs::remove_file(&probe);
        written.and(removed).map_err(failed)
    }

    fn remember(&self, id: Digest, contents: Contents) -> Snapshot {
        let contents = Arc::new(contents);
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&contents));
        Snapshot::new(id, self.layout.snapshot(id), contents)
    }
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let failed = |error| Error::io(format!("can't open {}", path.display()), error);
    let file = match File::options().create(true).truncate(false).write(true).open(path) {
        // A disk that takes no more writes: what is mounted from it has to be unmounted all the same.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        opened => opened,
    };
    let file = file.map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "another modelmount has the cache open ({} is locked); one plugin per cache directory",
                path.display()
            ),
        ),
        errno => Error::io(format!("can't lock {}", path.display()), io::Error::from(errno)),
    })
}
