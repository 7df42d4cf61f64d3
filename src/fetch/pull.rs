//! Fetches a model into a plain directory, without a cache: what KServe's storage-initializer does, but each file
//! appears only when it is complete, and what a killed run had fetched is not fetched again.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::job::{self, Arrived, Claim, Job, Sink};
use super::pace::Pace;
use super::{Limits, Progress, partial};
use crate::error::{Error, Result};
use crate::manifest::{Digest, Entry, Manifest, RelPath, content_digest};
use crate::source::Source;

/// Directory inside the destination where files on their way lie; removed at the end.
const WORK: &str = ".modelmount-pull";

/// A pulled model.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Digest of the content: see [`content_digest`].
    pub digest: Digest,
    /// Path, digest and size of each file, sorted by path.
    pub files: Vec<(RelPath, Digest, u64)>,
}

impl Pulled {
    /// Whether the model is what a user demands: its content digest, or for a model of one file that file's.
    pub fn has_digest(&self, demanded: Digest) -> bool {
        self.digest == demanded || matches!(&*self.files, [(_, digest, _)] if *digest == demanded)
    }
}

/// Fetches `manifest`'s files into `destination`, replacing files of the same name and leaving all others. How far it
/// has come can be read from `progress` meanwhile.
///
/// # Errors
/// Those of [`Source::read`] and of the file system; files that were complete by then stay.
pub async fn pull(
    manifest: &Manifest,
    source: Arc<dyn Source>,
    destination: &Path,
    limits: Limits,
    progress: Arc<Progress>,
) -> Result<Pulled> {
    let work = destination.join(WORK);
    let failed = |error| Error::io(format!("can't make {}", work.display()), error);
    fs::create_dir_all(&work).map_err(failed)?;

    let job = Arc::new(Job::new(source, Pace::new(limits.connections), limits, progress));
    let sink = Arc::new(Directory { destination: destination.to_owned(), work: work.clone() });
    let entries = manifest.entries().iter().cloned().map(Arc::new).collect();
    let arrived = job::run(job, sink, entries).await?;
    partial::discard(&work);

    let mut files: Vec<_> = arrived.into_iter().map(|file| (file.entry.path.clone(), file.digest, file.size)).collect();
    files.sort_unstable();
    Ok(Pulled { digest: content_digest(files.iter().map(|(path, digest, _)| (path, *digest))), files })
}

struct Directory {
    destination: PathBuf,
    work: PathBuf,
}

impl Sink for Directory {
    async fn claim(&self, _: &Entry) -> Claim {
        Claim { guard: None, have: None }
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
            fs::set_permissions(work.join("data"), Permissions::from_mode(0o644))?;
            fs::rename(work.join("data"), &target)
        };
        place().map_err(|error: io::Error| Error::io(format!("can't place {}", target.display()), error))?;
        partial::discard(&work);
        Ok(())
    }
}
