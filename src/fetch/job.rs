//! Fetches all files of a manifest, several at a time, into wherever a [`Sink`] wants them.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::task::JoinSet;

use super::pace::Pace;
use super::{Limits, Progress, file};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry};
use crate::model::Model;

/// What the files of one fetch share.
#[derive(Debug)]
pub(super) struct Job {
    model: RwLock<Model>,
    /// Shared by all fetches of the process.
    pub(super) pace: Arc<Pace>,
    pub(super) limits: Limits,
    pub(super) progress: Arc<Progress>,
}

impl Job {
    pub(super) fn new(model: Model, pace: Arc<Pace>, limits: Limits, progress: Arc<Progress>) -> Self {
        Self { model: RwLock::new(model), pace, limits, progress }
    }

    /// The model to read from, with the newest credentials.
    pub(super) fn model(&self) -> Model {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from here on with the credentials of `model`: those that the fetch began with may expire.
    pub(super) fn renew(&self, model: Model) {
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = model;
    }
}

/// A file that has arrived and was verified.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) entry: Arc<Entry>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// The sole right to a file's download. Whoever may still touch the download holds it: tasks and blocking work end some
/// time after they were given up, and must not meet those of the next attempt.
pub(super) type Guard = Arc<dyn Any + Send + Sync>;

/// The right to fetch a file, and what is known of it.
pub(super) struct Claim {
    pub(super) guard: Guard,
    /// The file, if it is there already.
    pub(super) have: Option<(Digest, u64)>,
}

/// Where files go.
pub(super) trait Sink: Send + Sync + 'static {
    /// Waits for whoever else fetches this very file, then looks whether it is there.
    fn claim(&self, entry: &Entry) -> impl Future<Output = Claim> + Send;

    /// The directory for the file's download: see [`super::partial`].
    fn directory(&self, entry: &Entry) -> PathBuf;

    /// Takes a complete, verified file from its directory. On failure the file is fetched again some day.
    fn commit(&self, arrived: &Arrived) -> Result<()>;
}

/// Fetches `entries`; returns what arrived, in no particular order. The first error ends it all, and what has been
/// fetched by then stays where it is, for the next attempt.
pub(super) async fn run<S: Sink>(job: Arc<Job>, sink: Arc<S>, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arrived>> {
    let bytes = entries.iter().filter_map(|entry| entry.size).fold(0, u64::saturating_add);
    job.progress.expect(bytes, entries.len() as u64);
    // The largest first, so that none of them is left alone at the end; `pop` takes from the back.
    entries.sort_by_key(|entry| entry.size);

    let mut running = JoinSet::new();
    let mut arrived = Vec::with_capacity(entries.len());
    loop {
        while running.len() < job.limits.connections.max(1)
            && let Some(entry) = entries.pop()
        {
            running.spawn(one(Arc::clone(&job), Arc::clone(&sink), entry));
        }
        match running.join_next().await {
            Some(done) => arrived.push(done.map_err(lost_task)??),
            None => return Ok(arrived),
        }
    }
}

async fn one<S: Sink>(job: Arc<Job>, sink: Arc<S>, entry: Arc<Entry>) -> Result<Arrived> {
    let Claim { guard, have } = sink.claim(&entry).await;
    let arrived = match have {
        Some((digest, size)) => {
            job.progress.found(entry.size.unwrap_or(0));
            Arrived { entry, digest, size }
        }
        None => {
            let (digest, size) = file::fetch(&job, &entry, &sink.directory(&entry), &guard).await?;
            let arrived = Arrived { entry, digest, size };
            sink.commit(&arrived)?;
            arrived
        }
    };
    job.progress.file_done();
    drop(guard);
    Ok(arrived)
}

pub(super) fn lost_task(error: tokio::task::JoinError) -> Error {
    let kind = if error.is_cancelled() { ErrorKind::Cancelled } else { ErrorKind::Internal };
    Error::with_source(kind, "the download was given up", error)
}
