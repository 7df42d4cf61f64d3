//! Fetches one file: in parallel parts where the server serves parts, else in one piece.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::hash::OrderedHash;
use super::job::{Job, lost_task};
use super::partial::{self, PartSum, Partial};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry};
use crate::source::Portion;

/// Attempts at the same bytes; one that brings any bytes does not count.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Fetches `entry` into the partial at `directory`; returns its verified digest and its size.
pub(super) async fn fetch(job: &Arc<Job>, entry: &Arc<Entry>, directory: &Path) -> Result<(Digest, u64)> {
    let fetched = match entry.size {
        Some(size) if size > job.limits.part_size && entry.validator.is_some() => {
            match in_parts(job, entry, size, directory).await {
                Err(error) if error.kind() == ErrorKind::RangesUnsupported => whole(job, entry, directory).await,
                fetched => fetched,
            }
        }
        _ => whole(job, entry, directory).await,
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
async fn whole(job: &Job, entry: &Entry, directory: &Path) -> Result<(Digest, u64)> {
    let mut patience = Patience::new();
    loop {
        let mut size = 0;
        match one_piece(job, entry, directory, &mut size).await {
            Ok(digest) => return Ok((digest, size)),
            Err(error) => {
                job.progress.lost(if entry.size.is_some() { size } else { 0 });
                patience.after(error).await?;
            }
        }
    }
}

async fn one_piece(job: &Job, entry: &Entry, directory: &Path, size: &mut u64) -> Result<Digest> {
    let _slot =
        job.slots.acquire().await.map_err(|error| Error::with_source(ErrorKind::Cancelled, "closing", error))?;
    let partial = Partial::whole(directory)?;
    let mut sha = Sha256::new();
    let mut stream = job.source().read(entry, Portion::Whole).await?;
    while let Some(chunk) = stream.try_next().await? {
        partial.write(*size, &chunk)?;
        sha.update(&chunk);
        *size += chunk.len() as u64;
        if entry.size.is_some() {
            job.progress.fetched(chunk.len() as u64);
        }
    }
    Ok(Digest::from_hasher(sha))
}

/// What the tasks that fetch one file's parts share.
struct Parts {
    job: Arc<Job>,
    entry: Arc<Entry>,
    size: u64,
    partial: Partial,
    hash: OrderedHash,
    missing: Mutex<VecDeque<usize>>,
}

async fn in_parts(job: &Arc<Job>, entry: &Arc<Entry>, size: u64, directory: &Path) -> Result<(Digest, u64)> {
    let part_size = job.limits.part_size;
    let opened = directory.to_owned();
    let (partial, found) = blocking(move || Partial::in_parts(&opened, size, part_size)).await?;
    let hash = OrderedHash::new(size, part_size);
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
    let workers = missing.len().min(job.limits.connections.max(1));
    let missing = Mutex::new(missing);
    let parts = Arc::new(Parts { job: Arc::clone(job), entry: Arc::clone(entry), size, partial, hash, missing });

    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(worker(Arc::clone(&parts)));
    }
    let mut outcome = Ok(());
    while let Some(done) = running.join_next().await {
        outcome = done.map_err(lost_task).and_then(|done| done);
        if outcome.is_err() {
            break;
        }
    }
    // No task may write any more when the file is looked at, or begun anew.
    running.shutdown().await;
    if let Err(error) = outcome {
        if error.kind() == ErrorKind::RangesUnsupported {
            job.progress.lost(parts.hash.written());
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

async fn worker(parts: Arc<Parts>) -> Result<()> {
    loop {
        let slot = parts.job.slots.acquire().await;
        let _slot = slot.map_err(|error| Error::with_source(ErrorKind::Cancelled, "closing", error))?;
        let next = parts.missing.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(part) = next else { return Ok(()) };
        parts.fetch(part).await?;
    }
}

impl Parts {
    /// Fetches one part, going on from where a broken connection left it.
    async fn fetch(&self, part: usize) -> Result<()> {
        let part_size = self.job.limits.part_size;
        let mut offset = part as u64 * part_size;
        let end = (offset + part_size).min(self.size);
        let mut sum = PartSum::new();
        let mut patience = Patience::new();
        while offset < end {
            let before = offset;
            if let Err(error) = self.stream(&mut offset, end, &mut sum).await {
                if offset > before {
                    patience = Patience::new();
                }
                patience.after(error).await?;
            }
        }
        self.partial.finished(part, sum)
    }

    async fn stream(&self, offset: &mut u64, end: u64, sum: &mut PartSum) -> Result<()> {
        let mut stream = self.job.source().read(&self.entry, Portion::Range(*offset..end)).await?;
        while let Some(chunk) = stream.try_next().await? {
            self.partial.write(*offset, &chunk)?;
            sum.update(&chunk);
            self.hash
                .wrote(self.partial.data(), *offset, &chunk)
                .map_err(|error| Error::io("can't read back what was downloaded", error))?;
            *offset += chunk.len() as u64;
            self.job.progress.fetched(chunk.len() as u64);
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

    /// Waits before the next attempt, or gives the error back: it is no passing one, or was seen too often.
    async fn after(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Unavailable || self.left == 0 {
            return Err(error);
        }
        tracing::debug!(error = %error.report(), pause = ?self.pause, "a request failed and is repeated");
        // Spread, so that many nodes that failed together do not come back together.
        let spread = RandomState::new().build_hasher().finish() % 50;
        tokio::time::sleep(self.pause * (75 + u32::try_from(spread).unwrap_or(0)) / 100).await;
        self.left -= 1;
        self.pause *= 2;
        Ok(())
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(lost_task)?
}
