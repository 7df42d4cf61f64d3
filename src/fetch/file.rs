//! Fetches one file: in parallel parts where the server serves parts, else in one piece.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::follow::Follow;
use super::hash::OrderedHash;
use super::job::{Guard, Job, Sink, lost_task};
use super::pace::{ActiveFile, Slot};
use super::partial::{self, PartSum, Partial, Unresumable};
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry};
use crate::source::Portion;

/// Attempts at the same bytes; one that brings any bytes does not count.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of one request, about, where a file has one request at a time.
const LONG_REQUEST: u64 = 256 << 20;
/// How often it is looked at whether a file may have more requests.
const REVIEW: Duration = Duration::from_millis(100);

/// Fetches `entry` into its directory in `sink`; returns its verified digest and its size. `follow` is told how far it has
/// come.
pub(super) async fn fetch<S: Sink>(
    job: &Arc<Job>,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    guard: &Guard,
    follow: Option<&Arc<Follow>>,
) -> Result<(Digest, u64)> {
    let directory = &sink.directory(entry.origin);
    let fetched = match entry.size {
        Some(size) if size > job.limits.part_size && entry.validator.is_some() => {
            match in_parts(job, sink, entry, size, directory, guard, follow).await {
                Err(error) if error.kind() == ErrorKind::RangesUnsupported => {
                    whole(job, &**sink, entry, directory, follow).await
                }
                fetched => fetched,
            }
        }
        _ => whole(job, &**sink, entry, directory, follow).await,
    };
    let (digest, size) = match fetched {
        // Bytes of a version that is gone are good for nothing.
        Err(error) if error.kind() == ErrorKind::Changed => {
            partial::discard(directory);
            return Err(error);
        }
        fetched => fetched?,
    };
    match entry.digest {
        Some(expected) if expected != digest => {
            partial::discard(directory);
            let text =
                format!("\"{}\" arrived with the digest {digest} where the source declares {expected}", entry.path);
            Err(Error::new(ErrorKind::Corrupt, text))
        }
        _ => Ok((digest, size)),
    }
}

/// One request for everything, again from the beginning when it fails.
async fn whole<S: Sink>(
    job: &Job,
    sink: &S,
    entry: &Entry,
    directory: &Path,
    follow: Option<&Arc<Follow>>,
) -> Result<(Digest, u64)> {
    // On a disk that is full it would keep the room.
    let unfinished = Unresumable::new(directory);
    let mut patience = Patience::new();
    loop {
        let mut renewals = job.renewals();
        let mut size = 0;
        match one_piece(job, sink, entry, directory, follow, &mut size).await {
            Ok(digest) => {
                unfinished.keep();
                return Ok((digest, size));
            }
            Err(error) => {
                if entry.size.is_some() {
                    job.progress.lost(size);
                    sink.lost(size);
                }
                pause(patience.after(&error).ok_or(error)?, &mut renewals).await;
            }
        }
    }
}

async fn one_piece<S: Sink>(
    job: &Job,
    sink: &S,
    entry: &Entry,
    directory: &Path,
    follow: Option<&Arc<Follow>>,
    size: &mut u64,
) -> Result<Digest> {
    let _slot = job.slot().await?;
    let partial = Partial::whole(directory)?;
    begin(follow, &partial)?;
    let mut sha = Sha256::new();
    // Room was set aside for a known size alone.
    let mut room = entry.size.is_none().then(|| Room::new(sink));
    let mut stream = job.read(entry, Portion::Whole).await?;
    while let Some(chunk) = stream.try_next().await? {
        if let Some(room) = &mut room {
            room.take(chunk.len() as u64)?;
        }
        partial.write(*size, &chunk)?;
        sha.update(&chunk);
        *size += chunk.len() as u64;
        if let Some(follow) = follow {
            follow.advance(*size);
        }
        job.pace.brought(chunk.len() as u64);
        if entry.size.is_some() {
            job.progress.fetched(chunk.len() as u64);
            sink.wrote(chunk.len() as u64);
        }
    }
    Ok(Digest::from_hasher(sha))
}

/// Lets a follower read this partial, from its beginning.
fn begin(follow: Option<&Arc<Follow>>, partial: &Partial) -> Result<()> {
    let Some(follow) = follow else { return Ok(()) };
    let failed = |error| Error::io("can't read what is being downloaded", error);
    follow.begin(partial.data().try_clone().map_err(failed)?);
    Ok(())
}

/// What the tasks that fetch one file's parts share.
struct Parts<S> {
    job: Arc<Job>,
    sink: Arc<S>,
    entry: Arc<Entry>,
    size: u64,
    partial: Partial,
    hash: OrderedHash,
    missing: Mutex<VecDeque<usize>>,
    /// Its share of the requests; given up while it waits for its server.
    active: Mutex<Option<ActiveFile>>,
    _guard: Guard,
}

async fn in_parts<S: Sink>(
    job: &Arc<Job>,
    sink: &Arc<S>,
    entry: &Arc<Entry>,
    size: u64,
    directory: &Path,
    guard: &Guard,
    follow: Option<&Arc<Follow>>,
) -> Result<(Digest, u64)> {
    let part_size = job.limits.part_size;
    let (opened, held) = (directory.to_owned(), Arc::clone(guard));
    let (partial, found) = blocking(move || {
        let opened = Partial::in_parts(&opened, size, part_size);
        drop(held);
        opened
    })
    .await?;
    begin(follow, &partial)?;
    let hash = OrderedHash::new(size, part_size, follow.cloned());
    let mut missing = VecDeque::new();
    for (part, found) in found.into_iter().enumerate() {
        if found {
            hash.found(part);
            let start = part as u64 * part_size;
            job.progress.found(part_size.min(size - start));
        } else {
            missing.push_back(part);
        }
    }
    let missing = Mutex::new(missing);
    let parts = Parts {
        job: Arc::clone(job),
        sink: Arc::clone(sink),
        entry: Arc::clone(entry),
        size,
        partial,
        hash,
        missing,
        active: Mutex::new(Some(job.pace.file())),
        _guard: Arc::clone(guard),
    };
    let parts = Arc::new(parts);

    let mut running = JoinSet::new();
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let wanted = job.pace.share().min(parts.missing().len());
        while running.len() < wanted {
            running.spawn(next_run(Arc::clone(&parts)));
        }
        // The share changes as other files come and go, and as the pace does.
        let turn = tokio::time::timeout(REVIEW, running.join_next());
        match turn.await {
            Ok(None) => break,
            Ok(Some(done)) => outcome = done.map_err(lost_task).and_then(|done| done),
            Err(_) => {}
        }
    }
    // No task may write any more when the file is looked at, or begun anew.
    running.shutdown().await;
    if let Err(error) = outcome {
        if error.kind() == ErrorKind::RangesUnsupported {
            job.progress.lost(parts.hash.written());
            sink.lost(parts.hash.written());
        }
        return Err(error);
    }
    let digest = blocking(move || {
        let failed = |error| Error::io("can't read back what was downloaded", error);
        parts.hash.finish(parts.partial.data()).map_err(failed)
    })
    .await?;
    Ok((digest, size))
}

/// Fetches what is missing next, if anything still is.
async fn next_run<S: Sink>(parts: Arc<Parts<S>>) -> Result<()> {
    let slot = parts.job.slot().await?;
    match parts.take() {
        Some(run) => parts.fetch(run, slot).await,
        None => Ok(()),
    }
}

impl<S: Sink> Parts<S> {
    fn missing(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, Option<ActiveFile>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next missing part; with those that follow it when this file has one request at a time only, since
    /// then a longer one saves round trips and keeps the bytes in order.
    fn take(&self) -> Option<Range<usize>> {
        let longest = match self.job.pace.share() {
            1 => LONG_REQUEST.div_ceil(self.job.limits.part_size),
            _ => 1,
        };
        let mut missing = self.missing();
        let first = missing.pop_front()?;
        let mut end = first + 1;
        while missing.front() == Some(&end) && ((end - first) as u64) < longest {
            missing.pop_front();
            end += 1;
        }
        Some(first..end)
    }

    /// Fetches a run of parts, going on from where a broken connection left it.
    async fn fetch(&self, run: Range<usize>, mut slot: Slot) -> Result<()> {
        let part_size = self.job.limits.part_size;
        let mut offset = run.start as u64 * part_size;
        let end = (run.end as u64 * part_size).min(self.size);
        let mut sum = PartSum::new();
        let mut patience = Patience::new();
        while offset < end {
            let (before, mut renewals) = (offset, self.job.renewals());
            if let Err(error) = self.stream(&mut offset, end, &mut sum).await {
                if offset > before {
                    patience = Patience::new();
                }
                let waits = error.wait().is_some();
                let length = patience.after(&error).ok_or(error)?;
                // Somebody else may ask another server meanwhile.
                drop(slot);
                if waits {
                    self.active().take();
                }
                pause(length, &mut renewals).await;
                if waits {
                    self.active().get_or_insert_with(|| self.job.pace.file());
                }
                slot = self.job.slot().await?;
            }
        }
        Ok(())
    }

    async fn stream(&self, offset: &mut u64, end: u64, sum: &mut PartSum) -> Result<()> {
        let mut stream = self.job.read(&self.entry, Portion::Range(*offset..end)).await?;
        while let Some(chunk) = stream.try_next().await? {
            self.partial.write(*offset, &chunk)?;
            self.job.pace.brought(chunk.len() as u64);
            self.job.progress.fetched(chunk.len() as u64);
            self.sink.wrote(chunk.len() as u64);
            self.account(offset, &chunk, sum)?;
        }
        Ok(())
    }

    /// Sums and hashes what was written, and marks each part that it completes.
    fn account(&self, offset: &mut u64, mut chunk: &[u8], sum: &mut PartSum) -> Result<()> {
        let part_size = self.job.limits.part_size;
        while !chunk.is_empty() {
            let part = *offset / part_size;
            let part_end = ((part + 1) * part_size).min(self.size);
            let (piece, rest) = chunk.split_at(chunk.len().min((part_end - *offset) as usize));
            sum.update(piece);
            self.hash
                .wrote(self.partial.data(), *offset, piece)
                .map_err(|error| Error::io("can't read back what was downloaded", error))?;
            *offset += piece.len() as u64;
            if *offset == part_end {
                self.partial.finished(part as usize, std::mem::replace(sum, PartSum::new()))?;
            }
            chunk = rest;
        }
        Ok(())
    }
}

/// How often, and after what pauses, a failing request is repeated.
struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { left: ATTEMPTS - 1, pause: FIRST_PAUSE }
    }

    /// The pause before the next attempt, or none: the error is no passing one, or was seen too often.
    fn after(&mut self, error: &Error) -> Option<Duration> {
        // Spread, so that many nodes that failed together do not come back together.
        let spread = u32::try_from(RandomState::new().build_hasher().finish() % 50).unwrap_or(0);
        // With a time to wait, the server was not asked.
        if let Some(wait) = error.wait() {
            tracing::info!(error = %error.report(), ?wait, "a download waits for its server");
            return Some(wait + FIRST_PAUSE * spread / 10);
        }
        if error.kind() != ErrorKind::Unavailable || self.left == 0 {
            return None;
        }
        let pause = self.pause * (75 + spread) / 100;
        self.left -= 1;
        self.pause *= 2;
        tracing::debug!(error = %error.report(), ?pause, "a request failed and is repeated");
        Some(pause)
    }
}

/// Waits before a request is repeated, or until somebody has brought credentials with which it may be answered.
async fn pause(length: Duration, renewals: &mut watch::Receiver<()>) {
    // An error of the latter: there is nobody left who could.
    if let Ok(Err(_)) = tokio::time::timeout(length, renewals.changed()).await {
        tokio::time::sleep(length).await;
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(lost_task)?
}
