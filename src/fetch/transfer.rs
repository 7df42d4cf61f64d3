//! Fetches models into the cache: each model once, and each file once, however many ask at the same time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::assembly::{archive, assemble};
use super::job::{self, Arrival, Claim, Have, Job, Sink};
use super::pace::Pace;
use super::progress::Totals;
use super::unpackers::Unpackers;
use super::{Amounts, Limits, Progress, Tally};
use crate::cache::{Cache, Reservation, Snapshot, StoredFile};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Manifest};
use crate::model::Model;
use crate::unpack::{Member, Unpacked};

/// The transfers of one cache.
#[derive(Debug)]
pub struct Transfers {
    cache: Arc<Cache>,
    limits: Limits,
    pace: Arc<Pace>,
    unpackers: Arc<Unpackers>,
    runtime: Handle,
    running: Mutex<HashMap<Digest, Weak<Transfer>>>,
    files: Arc<FileLocks>,
    totals: Arc<Totals>,
}

impl Transfers {
    /// Transfers into `cache`, whose work is done on `runtime`: not the one that answers requests.
    pub fn new(cache: Arc<Cache>, limits: Limits, runtime: Handle) -> Self {
        let pace = Pace::new(limits.connections);
        Self {
            cache,
            limits,
            pace,
            unpackers: Unpackers::new(),
            runtime,
            running: Mutex::default(),
            files: Arc::default(),
            totals: Arc::default(),
        }
    }

    /// Joins the transfer of this model, or begins one. It goes on for as long as anybody holds it. Whoever joins
    /// brings the newest credentials, which the transfer reads with from then on: they must have been tried
    /// ([`Model::authorize`]). When the source does not accept them any more, it goes on with those of the others.
    pub fn join(&self, manifest: Manifest, model: impl Into<Model>) -> Arc<Transfer> {
        let id = manifest.id();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, transfer| transfer.strong_count() > 0);
        if let Some(transfer) = running.get(&id).and_then(Weak::upgrade).filter(|transfer| !transfer.has_failed()) {
            transfer.renew(model);
            return transfer;
        }
        let progress = Arc::new(Progress::within(Arc::clone(&self.totals)));
        let (pace, unpackers) = (Arc::clone(&self.pace), Arc::clone(&self.unpackers));
        let job = Arc::new(Job::new(model.into(), pace, unpackers, self.limits, progress));
        let (done, outcome) = watch::channel(None);
        let work = fetch(Arc::clone(&self.cache), Arc::clone(&self.files), Arc::clone(&job), manifest);
        let counted = Arc::clone(&self.totals).begin();
        let task = self.runtime.spawn(async move {
            let result = work.await;
            counted.end(result.is_ok());
            // Nobody may be waiting any more.
            let _ = done.send(Some(result));
        });
        let transfer = Arc::new(Transfer { job, outcome, task: task.abort_handle() });
        running.insert(id, Arc::downgrade(&transfer));
        transfer
    }

    /// What all transfers have done so far.
    pub fn tally(&self) -> Tally {
        self.totals.tally()
    }
}

/// A model on its way into the cache. Dropping the last handle stops it; what has been fetched stays.
#[derive(Debug)]
pub struct Transfer {
    job: Arc<Job>,
    outcome: watch::Receiver<Option<Result<Snapshot>>>,
    task: AbortHandle,
}

impl Transfer {
    /// How far it has come.
    pub fn amounts(&self) -> Amounts {
        self.job.progress.amounts()
    }

    /// Waits for the end. May be called, and given up, any number of times.
    ///
    /// # Errors
    /// The transfer's error.
    pub async fn wait(&self) -> Result<Snapshot> {
        let mut outcome = self.outcome.clone();
        let lost = || Error::new(ErrorKind::Internal, "the download ended without a result");
        let result = outcome.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        result.unwrap_or_else(|| Err(lost()))
    }

    /// Reads from here on with the credentials of `model`, which has been seen to accept them.
    pub fn renew(&self, model: impl Into<Model>) {
        self.job.renew(model.into());
    }

    fn has_failed(&self) -> bool {
        matches!(&*self.outcome.borrow(), Some(Err(_)))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn fetch(cache: Arc<Cache>, files: Arc<FileLocks>, job: Arc<Job>, manifest: Manifest) -> Result<Snapshot> {
    if let Some(snapshot) = cache.snapshot(manifest.id()) {
        return Ok(snapshot);
    }
    let missing = manifest.entries().iter().filter(|entry| matches!(have(&cache, entry), Have::Nothing));
    let rest = missing.filter_map(|entry| Some(entry.size?.saturating_sub(cache.begun(entry.origin))));
    let room = cache.reserve(rest.fold(0, u64::saturating_add))?;
    let sink = Arc::new(CacheSink { cache: Arc::clone(&cache), files, room });
    let entries = manifest.entries().to_vec();
    let arrived = job::run(job, sink, entries).await?;
    let files = assemble(&manifest, &arrived)?;
    let stored = |(path, Member { digest, size, origin })| StoredFile { path, size, digest, origin };
    cache.assemble(&manifest, files.into_iter().map(stored).collect(), archive(&arrived))
}

/// What is in the cache of a file, or of what it is to be unpacked to.
fn have(cache: &Cache, entry: &Entry) -> Have {
    let members = entry.unpack.as_ref().and_then(|unpack| cache.unpacked(unpack.key(entry.origin)));
    match (members, cache.known(entry.origin, entry.size)) {
        (Some(members), _) => Have::Arrival(Arrival::Members(members)),
        // Fetched for somebody who wanted it as it is.
        (None, Some((digest, size))) if entry.unpack.is_some() => Have::Packed(cache.blob(digest), digest, size),
        (None, Some((digest, size))) => Have::Arrival(Arrival::File { digest, size }),
        (None, None) => Have::Nothing,
    }
}

struct CacheSink {
    cache: Arc<Cache>,
    files: Arc<FileLocks>,
    room: Reservation,
}

impl Sink for CacheSink {
    async fn claim(&self, entry: &Entry) -> Claim {
        let file = self.files.lock(entry.origin).await;
        // With the cache, which stays locked until nothing touches the download any more: the next process has other locks.
        Claim { guard: Arc::new((file, Arc::clone(&self.cache))), have: have(&self.cache, entry) }
    }

    fn directory(&self, key: Digest) -> PathBuf {
        self.cache.partial(key)
    }

    fn commit(&self, entry: &Entry, digest: Digest, size: u64) -> Result<()> {
        self.cache.commit(entry.origin, digest, size)
    }

    fn commit_members(&self, entry: &Entry, key: Digest, members: &Unpacked<Member>) -> Result<()> {
        self.cache.commit_members(entry.origin, key, members)
    }

    fn wrote(&self, bytes: u64) {
        self.room.used(bytes);
    }

    fn lost(&self, bytes: u64) {
        self.room.lost(bytes);
    }

    fn make_room(&self, bytes: u64) -> Result<()> {
        self.room.more(bytes)
    }
}

/// One lock for each file that somebody is fetching.
#[derive(Debug, Default)]
struct FileLocks(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl FileLocks {
    async fn lock(&self, origin: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if locks.len() > 1024 {
                locks.retain(|_, lock| lock.strong_count() > 0);
            }
            let known = locks.get(&origin).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(origin, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
