//! Fetches a file that holds others, and unpacks it while it arrives.
//!
//! A blocking thread reads behind the download's front and writes members to scratch files. Nothing of them counts before the
//! archive itself was verified: the reader sees its end only then.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{self, blocking};
use super::follow::Follow;
use super::job::{Arrival, Guard, Job, Sink};
use super::partial::{self, Unresumable};
use super::scratch::{Abandon, Scratch};
use super::unpackers::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry};
use crate::unpack::{Member, Memory, Unpack, Unpacked, is_outgrown, read_members};

/// Fetches and unpacks. What arrives has been committed.
pub(super) async fn fetch<S: Sink>(
    job: &Arc<Job>,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    unpack: &Unpack,
    guard: &Guard,
) -> Result<Arrival> {
    let directory = sink.directory(entry.origin);
    // Of a file without a version, nobody asks for this very download again.
    let unfinished = (!entry.tells_versions()).then(|| Unresumable::new(&directory));
    let follow = Arc::new(Follow::default());
    let abandon = Abandon(Arc::clone(&follow));
    let unpacking = start(job, sink, entry, unpack, guard, &follow);
    let fetching = async {
        let (digest, size) = file::fetch(job, sink, entry, guard, Some(&follow)).await?;
        follow.complete(size);
        Ok((digest, size))
    };
    // The first error ends the other one as well.
    let arrived = futures_util::future::try_join(fetching, unpacking).await;
    drop(abandon);
    match arrived {
        Ok(((digest, size), unpacked)) => {
            if let Some(complete) = unfinished {
                complete.keep();
            }
            finish(sink, entry, unpack, guard, unpacked, (digest, size)).await
        }
        Err(error) => {
            // Of an archive that is refused, nothing is worth keeping. One that could not be fetched or unpacked for another
            // reason goes on where it was.
            if matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::Corrupt) {
                partial::discard(&directory);
            }
            Err(error)
        }
    }
}

/// Unpacks a file that is here already: `size` bytes at `path`, with this digest.
pub(super) async fn unpack_here<S: Sink>(
    job: &Arc<Job>,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    unpack: &Unpack,
    guard: &Guard,
    (path, digest, size): (PathBuf, Digest, u64),
) -> Result<Arrival> {
    let file = File::open(&path).map_err(|error| Error::io(format!("can't read {}", path.display()), error))?;
    let follow = Follow::complete_file(file, size);
    let _abandon = Abandon(Arc::clone(&follow));
    match start(job, sink, entry, unpack, guard, &follow).await? {
        None => Ok(Arrival::File { digest, size }),
        unpacked => finish(sink, entry, unpack, guard, unpacked, (digest, size)).await,
    }
}

async fn finish<S: Sink>(
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    unpack: &Unpack,
    guard: &Guard,
    unpacked: Option<Unpacked<Member>>,
    (digest, size): (Digest, u64),
) -> Result<Arrival> {
    let (sink, entry, key, held) = (Arc::clone(sink), Arc::clone(entry), unpack.key(entry.origin), Arc::clone(guard));
    // Many members are many files.
    blocking(move || {
        let arrival = match unpacked {
            Some(mut members) => {
                members.whole = Some(digest);
                sink.commit_members(&entry, key, &members)?;
                Arrival::Members(members)
            }
            None => {
                sink.commit(&entry, digest, size)?;
                Arrival::File { digest, size }
            }
        };
        drop(held);
        Ok(arrival)
    })
    .await
}

/// Waits for its turn, then unpacks. `None` when it is a file like any other.
async fn start<S: Sink>(
    job: &Arc<Job>,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    unpack: &Unpack,
    guard: &Guard,
    follow: &Arc<Follow>,
) -> Result<Option<Unpacked<Member>>> {
    let turn = job.unpackers.any(follow).await?;
    match take(turn, sink, entry, unpack, guard, follow).await {
        // What was told by its first bytes, as a rule, or else is on the disk and is read again.
        Err(error) if is_outgrown(&error) => {
            let turn = job.unpackers.alone(follow).await?;
            take(turn, sink, entry, unpack, guard, follow).await
        }
        taken => taken,
    }
}

/// Unpacks on a thread of its own, which has the turn for as long as it runs.
async fn take<S: Sink>(
    turn: Turn,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    unpack: &Unpack,
    guard: &Guard,
    follow: &Arc<Follow>,
) -> Result<Option<Unpacked<Member>>> {
    let (sink, entry, unpack) = (Arc::clone(sink), Arc::clone(entry), unpack.clone());
    let (guard, follow) = (Arc::clone(guard), Arc::clone(follow));
    blocking(move || {
        // Nobody may be waiting any more.
        follow.check()?;
        let directory = sink.directory(unpack.key(entry.origin));
        let unpacked = run(&*sink, &entry, &unpack, &follow, &directory, turn.memory());
        if !matches!(unpacked, Ok(Some(_))) {
            partial::discard(&directory);
        }
        drop((turn, guard));
        unpacked
    })
    .await
}

fn run<S: Sink>(
    sink: &S,
    entry: &Entry,
    unpack: &Unpack,
    follow: &Arc<Follow>,
    directory: &Path,
    memory: Memory,
) -> Result<Option<Unpacked<Member>>> {
    let key = unpack.key(entry.origin);
    loop {
        let mut reader = follow.reader();
        let mut scratch = Scratch::new(directory, key, sink, follow)?;
        let unpacked = read_members(&mut reader, unpack, &mut scratch, memory);
        // That it is no archive is told by its first bytes, which may be others in the next attempt.
        let complete = if unpacked.is_ok() { reader.wait_complete().map(drop) } else { Ok(()) };
        if reader.is_stale() {
            continue;
        }
        complete?;
        let unpacked = unpacked.map_err(|error| error.within(format!("\"{}\"", entry.path)))?;
        let Some(unpacked) = unpacked else { return Ok(None) };
        let members = scratch.into_members();
        let lost = || Error::new(ErrorKind::Internal, "a member was not counted");
        let known = unpacked.files.values().all(|number| *number < members.len());
        return if known { Ok(Some(unpacked.map(|number| members[number]))) } else { Err(lost()) };
    }
}
