//! Fetches a model into a plain directory, without a cache: what KServe's storage-initializer does, but each file
//! appears only when it is complete, and what a killed run had fetched is not fetched again.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::job::{self, Arrived, Claim, Guard, Job, Sink};
use super::pace::Pace;
use super::{Limits, Progress, partial};
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Manifest};
use crate::model::Model;

/// Directory inside the destination where files on their way lie; removed at the end.
const WORK: &str = ".modelmount-pull";
/// Name of the note, in the place of a file's download, of what became of it.
const PLACED: &str = "placed";
/// Five seconds in all.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Fetches `manifest`'s files into `destination`, replacing files of the same name and leaving all others. How far it
/// has come can be read from `progress` meanwhile.
///
/// # Errors
/// Those of [`Model::read`] and of the file system; files that were complete by then stay.
pub async fn pull(
    manifest: &Manifest,
    model: impl Into<Model>,
    destination: &Path,
    limits: Limits,
    progress: Arc<Progress>,
) -> Result<Content> {
    let work = destination.join(WORK);
    let lock = lock(&work).await?;
    let job = Arc::new(Job::new(model.into(), Pace::new(limits.connections), limits, progress));
    let sink = Arc::new(Directory { destination: destination.to_owned(), work: work.clone(), lock });
    let entries = manifest.entries().iter().cloned().map(Arc::new).collect();
    let arrived = job::run(job, sink, entries).await?;
    partial::discard(&work);

    let files = arrived.into_iter().map(|file| (file.entry.path.clone(), file.digest, file.size));
    Ok(Content::new(files.collect()))
}

/// Makes the work directory and locks it. A pull that was given up lets go of it a moment later.
async fn lock(work: &Path) -> Result<Guard> {
    let failed = |error| Error::io(format!("can't make {}", work.display()), error);
    for _ in 0..LOCK_ATTEMPTS {
        fs::create_dir_all(work).map_err(failed)?;
        let directory = File::open(work).map_err(failed)?;
        let identity = directory.metadata().map_err(failed)?.ino();
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            // Another pull may have removed it at its end, and the lock would be one on nothing.
            Ok(lock) if fs::metadata(work).is_ok_and(|now| now.ino() == identity) => return Ok(Arc::new(lock)),
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) => tokio::time::sleep(LOCK_PAUSE).await,
            Err((_, errno)) => return Err(Error::io(format!("can't lock {}", work.display()), errno.into())),
        }
    }
    let text = format!("another pull writes to this directory ({} is locked); wait for its end", work.display());
    Err(Error::new(ErrorKind::FailedPrecondition, text))
}

struct Directory {
    destination: PathBuf,
    work: PathBuf,
    lock: Guard,
}

impl Directory {
    /// The file, if an earlier run that did not come to its end has placed it and nobody touched it since.
    fn placed(&self, entry: &Entry) -> Option<(Digest, u64)> {
        let noted = fs::read_to_string(self.directory(entry).join(PLACED)).ok()?;
        let digest: Digest = noted.split(' ').next()?.parse().ok()?;
        let file = fs::symlink_metadata(self.destination.join(entry.path.as_str())).ok()?;
        (noted == note(digest, &file)).then_some((digest, file.len()))
    }
}

/// What a file must be to be the one that was placed: all that moving it leaves as it is.
fn note(digest: Digest, file: &fs::Metadata) -> String {
    format!("{digest} {} {} {} {}.{}", file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

impl Sink for Directory {
    async fn claim(&self, entry: &Entry) -> Claim {
        Claim { guard: Arc::clone(&self.lock), have: self.placed(entry) }
    }

    fn directory(&self, entry: &Entry) -> PathBuf {
        self.work.join(entry.origin.hex())
    }

    fn commit(&self, arrived: &Arrived) -> Result<()> {
        let (entry, work) = (&arrived.entry, self.directory(&arrived.entry));
        let target = self.destination.join(entry.path.as_str());
        let place = || {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            let data = work.join("data");
            fs::set_permissions(&data, Permissions::from_mode(0o644))?;
            // First the note: without its file it means nothing.
            fs::write(work.join(PLACED), note(arrived.digest, &fs::metadata(&data)?))?;
            fs::rename(&data, &target)
        };
        place().map_err(|error: io::Error| Error::io(format!("can't place {}", target.display()), error))
    }
}
