//! Fetches all files of a manifest, several at a time, into wherever a [`Sink`] wants them.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::pace::{Pace, Slot};
use super::unpackers::Unpackers;
use super::{Limits, Progress, archive, file};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Digest, Entry, TOO_MANY};
use crate::model::Model;
use crate::source::{ByteStream, Portion};
use crate::unpack::{Member, Unpacked};

/// How many different credentials of those who joined a fetch are kept.
const MOST_CREDENTIALS: usize = 16;

/// What the files of one fetch share.
#[derive(Debug)]
pub(super) struct Job {
    /// Opened with the credentials of everybody who joined, the newest last; never empty.
    models: RwLock<Vec<Model>>,
    /// Shared by all fetches of the process.
    pub(super) pace: Arc<Pace>,
    /// As well.
    pub(super) unpackers: Arc<Unpackers>,
    pub(super) limits: Limits,
    pub(super) progress: Arc<Progress>,
    /// The request that it may make whatever others do.
    own: Arc<Semaphore>,
    renewed: watch::Sender<()>,
}

impl Job {
    pub(super) fn new(
        model: Model,
        pace: Arc<Pace>,
        unpackers: Arc<Unpackers>,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            models: RwLock::new(vec![model]),
            pace,
            unpackers,
            limits,
            progress,
            own: Arc::new(Semaphore::new(1)),
            renewed: watch::Sender::new(()),
        }
    }

    /// Waits for the right to make a request.
    pub(super) async fn slot(&self) -> Result<Slot> {
        self.pace.slot(&self.own).await
    }

    /// Reads with the newest credentials; and with older ones, of others who want the same model, when the source does not
    /// accept these any more.
    pub(super) async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        loop {
            let model = self.models.read().unwrap_or_else(PoisonError::into_inner).last().cloned();
            let model = model.ok_or_else(|| Error::new(ErrorKind::Internal, "a download without credentials"))?;
            match model.read(entry, portion.clone()).await {
                Err(error) if is_refusal(&error) && self.give_up(&model) => {
                    tracing::warn!(error = %error.report(), "a download goes on with other credentials");
                }
                answer => return answer,
            }
        }
    }

    /// Reads from here on with the credentials of `model`: those that the fetch began with may expire.
    pub(super) fn renew(&self, model: Model) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.retain(|known| !known.is_same_caller(&model));
        if models.len() == MOST_CREDENTIALS {
            models.remove(0);
        }
        models.push(model);
        drop(models);
        self.renewed.send_replace(());
    }

    /// Tells of credentials that are brought from here on.
    pub(super) fn renewals(&self) -> watch::Receiver<()> {
        self.renewed.subscribe()
    }

    /// Reads no more with these credentials, if there are others.
    fn give_up(&self, refused: &Model) -> bool {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let others = models.iter().any(|model| !model.is_same_caller(refused));
        if others {
            models.retain(|model| !model.is_same_caller(refused));
        }
        others
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied)
}

/// A file that has arrived and was verified.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) entry: Arc<Entry>,
    pub(super) arrival: Arrival,
}

/// What came of a file.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    /// Itself.
    File { digest: Digest, size: u64 },
    /// Those that were in it.
    Members(Unpacked<Member>),
}

/// The sole right to a file's download. Whoever may still touch the download holds it: tasks and blocking work end some
/// time after they were given up, and must not meet those of the next attempt.
pub(super) type Guard = Arc<dyn Any + Send + Sync>;

/// The right to fetch a file, and what is known of it.
pub(super) struct Claim {
    pub(super) guard: Guard,
    pub(super) have: Have,
}

/// What is there of a file before it is fetched.
pub(super) enum Have {
    Nothing,
    /// What is to come of it.
    Arrival(Arrival),
    /// The file, complete and verified, which is yet to be unpacked.
    Packed(PathBuf, Digest, u64),
}

/// Where files go.
pub(super) trait Sink: Send + Sync + 'static {
    /// Waits for whoever else fetches this very file, then looks whether it is there.
    fn claim(&self, entry: &Entry) -> impl Future<Output = Claim> + Send;

    /// The directory for a download: of a file by its origin (see [`super::partial`]), of what it is unpacked to by
    /// [`crate::unpack::Unpack::key`].
    fn directory(&self, key: Digest) -> PathBuf;

    /// Takes a complete, verified file from its directory. On failure the file is fetched again some day.
    fn commit(&self, entry: &Entry, digest: Digest, size: u64) -> Result<()>;

    /// Takes the members of a complete, verified file from the directory of their key, where each is named by its origin. The
    /// file itself is not needed any more.
    fn commit_members(&self, entry: &Entry, key: Digest, members: &Unpacked<Member>) -> Result<()>;

    /// So many bytes of files of known size have been written.
    fn wrote(&self, bytes: u64);

    /// So many bytes of them are written again.
    fn lost(&self, bytes: u64);

    /// Asks for room for so many bytes that nobody could expect.
    fn make_room(&self, bytes: u64) -> Result<()>;
}

/// Fetches `entries`; returns what arrived, in no particular order. The first error ends it all, and what has been
/// fetched by then stays where it is, for the next attempt.
pub(super) async fn run<S: Sink>(job: Arc<Job>, sink: Arc<S>, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arrived>> {
    let bytes = entries.iter().filter_map(|entry| entry.size).fold(0, u64::saturating_add);
    job.progress.expect(bytes, entries.len() as u64);
    // The largest first, so that none of them is left alone at the end; `pop` takes from the back.
    entries.sort_by_key(|entry| entry.size);

    let mut running = JoinSet::new();
    let (mut arrived, mut members) = (Vec::with_capacity(entries.len()), Count::default());
    loop {
        while running.len() < job.limits.connections.max(1)
            && let Some(entry) = entries.pop()
        {
            running.spawn(one(Arc::clone(&job), Arc::clone(&sink), entry));
        }
        match running.join_next().await {
            Some(done) => {
                let done: Arrived = done.map_err(lost_task)??;
                // An image may name its largest layer again and again.
                if matches!(&done.arrival, Arrival::Members(unpacked) if !unpacked.count(&mut members)) {
                    let text =
                        format!("what is unpacked to the model {TOO_MANY}, with those of \"{}\"", done.entry.path);
                    return Err(Error::new(ErrorKind::ResourceExhausted, text));
                }
                arrived.push(done);
            }
            None => return Ok(arrived),
        }
    }
}

async fn one<S: Sink>(job: Arc<Job>, sink: Arc<S>, entry: Arc<Entry>) -> Result<Arrived> {
    let Claim { guard, have } = sink.claim(&entry).await;
    if !matches!(have, Have::Nothing) {
        job.progress.found(entry.size.unwrap_or(0));
    }
    let arrival = match (have, &entry.unpack) {
        (Have::Arrival(arrival), _) => arrival,
        (Have::Packed(path, digest, size), Some(unpack)) => {
            archive::unpack_here(&job, &sink, &entry, unpack, &guard, (path, digest, size)).await?
        }
        (Have::Packed(_, digest, size), None) => Arrival::File { digest, size },
        (Have::Nothing, Some(unpack)) => archive::fetch(&job, &sink, &entry, unpack, &guard).await?,
        (Have::Nothing, None) => {
            let (digest, size) = file::fetch(&job, &sink, &entry, &guard, None).await?;
            sink.commit(&entry, digest, size)?;
            Arrival::File { digest, size }
        }
    };
    job.progress.file_done();
    drop(guard);
    Ok(Arrived { entry, arrival })
}

pub(super) fn lost_task(error: tokio::task::JoinError) -> Error {
    let kind = if error.is_cancelled() { ErrorKind::Cancelled } else { ErrorKind::Internal };
    Error::with_source(kind, "the download was given up", error)
}
