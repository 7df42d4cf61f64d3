//! Fetches a model into a plain directory, without a cache: what KServe's storage-initializer does, but each file
//! appears only when it is complete, and what a killed run had fetched is not fetched again, if the source tells that it
//! has not changed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::assembly::{archive, assemble};
use super::file::blocking;
use super::job::{self, Arrival, Claim, Guard, Have, Job, Sink};
use super::pace::Pace;
use super::unpackers::Unpackers;
use super::{Limits, Progress, partial};
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Manifest, RelPath};
use crate::model::Model;
use crate::unpack::{Member, Unpack, Unpacked};

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
    let job = Arc::new(Job::new(model.into(), Pace::new(limits.connections), Unpackers::new(), limits, progress));
    let sink = Arc::new(Directory { destination: destination.to_owned(), work: work.clone(), lock });
    // A content may have two names. In a directory each is a download of its own. Of a file without a version, every run
    // has its own, and all have one place, so that runs that were killed leave no more than one of it.
    let own = |entry: &Entry| {
        let version = if entry.tells_versions() { entry.origin.to_string() } else { "no version".to_owned() };
        Entry { origin: Digest::of(format!("{version} {}", entry.path)), ..entry.clone() }
    };
    let entries = manifest.entries().iter().map(|entry| Arc::new(own(entry))).collect();
    let arrived = job::run(job, Arc::clone(&sink), entries).await?;
    let files = assemble(manifest, &arrived)?;
    let listed = files.iter().map(|(path, member)| (path.clone(), member.digest, member.size)).collect();
    let content = Content { archive: archive(&arrived), ..Content::new(listed) };
    blocking(move || {
        sink.place_members(&files)?;
        partial::discard(&sink.work);
        Ok(content)
    })
    .await
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

/// What became of an archive: its members, and for each what its file must be, by its origin.
#[derive(Serialize, Deserialize)]
struct Unpacking {
    members: Unpacked<Member>,
    notes: BTreeMap<Digest, String>,
}

impl Directory {
    /// The file, if an earlier run that did not come to its end has placed it and nobody touched it since.
    fn placed(&self, entry: &Entry) -> Option<Arrival> {
        let noted = fs::read_to_string(self.directory(entry.origin).join(PLACED)).ok()?;
        let digest: Digest = noted.split(' ').next()?.parse().ok()?;
        let file = fs::symlink_metadata(self.destination.join(entry.path.as_str())).ok()?;
        (noted == note(digest, &file)).then_some(Arrival::File { digest, size: file.len() })
    }

    /// The members, if an earlier run has unpacked them, each still in the work directory or where it was placed by then.
    fn unpacked(&self, entry: &Entry, unpack: &Unpack) -> Option<Arrival> {
        let record = fs::read(self.directory(unpack.key(entry.origin)).join(PLACED)).ok()?;
        let Unpacking { members, notes } = serde_json::from_slice(&record).ok()?;
        let is_there = |(path, member): (&RelPath, &Member)| {
            let is_it = |file: &Path| {
                fs::symlink_metadata(file)
                    .is_ok_and(|file| notes.get(&member.origin) == Some(&note(member.digest, &file)))
            };
            let inner = unpack.into.as_ref().map_or(Path::new(""), |into| Path::new(into.as_str()));
            is_it(&self.member(member)) || is_it(&self.destination.join(inner).join(path.as_str()))
        };
        members.files.iter().all(is_there).then_some(Arrival::Members(members))
    }

    fn member(&self, member: &Member) -> PathBuf {
        self.work.join(member.origin.hex())
    }

    /// Puts members where they belong, in the end, when it is known which of them the model keeps.
    fn place_members(&self, files: &BTreeMap<RelPath, Member>) -> Result<()> {
        let mut names: BTreeMap<Digest, usize> = BTreeMap::new();
        for member in files.values() {
            *names.entry(member.origin).or_default() += 1;
        }
        for (path, member) in files {
            let (source, target) = (self.member(member), self.destination.join(path.as_str()));
            // A file of its own, or a member that an earlier run has placed: the work directory has it no more.
            if !source.is_file() {
                continue;
            }
            let last = names.get_mut(&member.origin).is_none_or(|left| {
                *left -= 1;
                *left == 0
            });
            let place = || {
                make_parent(&target)?;
                // Two names of one file.
                if last { fs::rename(&source, &target) } else { fs::copy(&source, &target).map(drop) }
            };
            place().map_err(|error| Error::io(format!("can't place {}", target.display()), error))?;
        }
        Ok(())
    }
}

/// What a file must be to be the one that was placed: all that moving it leaves as it is.
fn note(digest: Digest, file: &fs::Metadata) -> String {
    format!("{digest} {} {} {} {}.{}", file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

fn make_parent(target: &Path) -> io::Result<()> {
    target.parent().map_or(Ok(()), fs::create_dir_all)
}

impl Sink for Directory {
    async fn claim(&self, entry: &Entry) -> Claim {
        let unpacked = || entry.unpack.as_ref().and_then(|unpack| self.unpacked(entry, unpack));
        // Without a version, what an earlier run has placed may be another one than the source has now.
        let found = entry.tells_versions().then(|| unpacked().or_else(|| self.placed(entry))).flatten();
        let have = found.map_or(Have::Nothing, Have::Arrival);
        Claim { guard: Arc::clone(&self.lock), have }
    }

    fn directory(&self, key: Digest) -> PathBuf {
        self.work.join(key.hex())
    }

    fn commit(&self, entry: &Entry, digest: Digest, _: u64) -> Result<()> {
        let work = self.directory(entry.origin);
        let target = self.destination.join(entry.path.as_str());
        let place = || {
            make_parent(&target)?;
            let data = work.join("data");
            fs::set_permissions(&data, Permissions::from_mode(0o644))?;
            // First the note: without its file it means nothing.
            fs::write(work.join(PLACED), note(digest, &fs::metadata(&data)?))?;
            fs::rename(&data, &target)
        };
        place().map_err(|error: io::Error| Error::io(format!("can't place {}", target.display()), error))
    }

    /// Members wait in the work directory, beside the downloads: what a model keeps of a layer is known in the end.
    fn commit_members(&self, entry: &Entry, key: Digest, members: &Unpacked<Member>) -> Result<()> {
        let scratch = self.directory(key);
        let keep = || {
            let mut notes = BTreeMap::new();
            for member in members.files.values() {
                let (from, to) = (scratch.join(member.origin.hex()), self.member(member));
                if notes.contains_key(&member.origin) {
                    continue;
                }
                fs::set_permissions(&from, Permissions::from_mode(0o644))?;
                notes.insert(member.origin, note(member.digest, &fs::metadata(&from)?));
                fs::rename(&from, &to)?;
            }
            // Last: a record that is torn is none.
            let record = serde_json::to_vec(&Unpacking { members: members.clone(), notes })?;
            fs::write(scratch.join(PLACED), record)
        };
        keep().map_err(|error: io::Error| {
            Error::io(format!("can't keep what was unpacked in {}", scratch.display()), error)
        })?;
        partial::discard(&self.directory(entry.origin));
        Ok(())
    }

    /// Whoever pulls into a directory minds its room.
    fn wrote(&self, _: u64) {}

    fn lost(&self, _: u64) {}

    fn make_room(&self, _: u64) -> Result<()> {
        Ok(())
    }
}
