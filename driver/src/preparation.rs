//! A volume's model on its way: resolved with the volume's own credentials, then fetched.
//!
//! A preparation belongs to the plugin, not to the call that began it: it goes on when the call's deadline passes, and
//! the next call for the same volume finds it again. Dropping it gives it up.

use std::sync::{Arc, Mutex, PoisonError};

use modelmount::cache::Cache;
use modelmount::fetch::{Transfer, Transfers};
use modelmount::size::Size;
use modelmount::{Context, Credentials, Digest, Entry, Error, ErrorKind, Model, ModelRequest, Snapshot};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How often a model that changes while it is fetched is begun anew.
const RESTARTS: u32 = 3;

/// What all preparations share.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// Where models end up.
    pub cache: Arc<Cache>,
    /// What brings them there.
    pub transfers: Arc<Transfers>,
    /// Policy and connections.
    pub context: Context,
    /// Where the work is done: not where calls are answered.
    pub runtime: Handle,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Preparation {
    request: ModelRequest,
    arguments: Digest,
    /// The last that the source has accepted or refused. Locked while newer ones are tried.
    credentials: Arc<tokio::sync::Mutex<Credentials>>,
    stage: Arc<Mutex<Stage>>,
    outcome: watch::Receiver<Option<Result<Snapshot, Error>>>,
    task: AbortHandle,
    workshop: Workshop,
}

#[derive(Debug)]
enum Stage {
    Resolving,
    Fetching { transfer: Arc<Transfer>, witnesses: Arc<[Arc<Entry>]> },
}

impl Preparation {
    /// Begins one. `resolved` is told which model it is before any of it is fetched, so that it is not evicted; when it
    /// says no, the preparation ends.
    pub fn begin(
        workshop: &Workshop,
        request: ModelRequest,
        arguments: Digest,
        credentials: Credentials,
        resolved: impl Fn(Digest) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        let stage = Arc::new(Mutex::new(Stage::Resolving));
        let (done, outcome) = watch::channel(None);
        let work = {
            let (workshop, request, credentials) = (workshop.clone(), request.clone(), credentials.clone());
            let stage = Arc::clone(&stage);
            async move {
                let result = prepare(&workshop, &request, &credentials, &stage, &resolved).await;
                // Nobody may be waiting any more.
                let _ = done.send(Some(result));
            }
        };
        let task = workshop.runtime.spawn(work).abort_handle();
        let credentials = Arc::new(tokio::sync::Mutex::new(credentials));
        Self { request, arguments, credentials, stage, outcome, task, workshop: workshop.clone() }
    }

    /// What it was begun with.
    pub fn arguments(&self) -> Digest {
        self.arguments
    }

    /// Whether it has ended without a model: whoever still wants one begins anew.
    pub fn has_failed(&self) -> bool {
        matches!(&*self.outcome.borrow(), Some(Err(_)))
    }

    /// Waits for its end; may be given up and called again.
    ///
    /// # Errors
    /// What resolving and fetching failed with.
    pub async fn wait(&self) -> Result<Snapshot, Error> {
        let mut outcome = self.outcome.clone();
        let lost = || Error::new(ErrorKind::Cancelled, "the volume was unpublished while its model was being fetched");
        let result = outcome.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        result.unwrap_or_else(|| Err(lost()))
    }

    /// Takes newer credentials of the same volume: tokens expire while large models are fetched. They are tried before
    /// they are used, since the download may be shared; and tried again by the next call if the source gave no answer.
    pub fn renew(&self, newest: &Credentials) {
        let Ok(mut known) = Arc::clone(&self.credentials).try_lock_owned() else { return };
        if *known == *newest {
            return;
        }
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let Stage::Fetching { transfer, witnesses } = &*stage else { return };
        let (transfer, witnesses) = (Arc::downgrade(transfer), Arc::clone(witnesses));
        let opened = self.request.open(newest, &self.workshop.context);
        let newest = newest.clone();
        self.workshop.runtime.spawn(async move {
            let renewed = async {
                let model = opened?;
                model.authorize(&witnesses).await?;
                Ok::<_, Error>(model)
            };
            let renewed = renewed.await;
            if renewed.as_ref().err().is_none_or(|error| is_refusal(error.kind())) {
                *known = newest;
            }
            match (renewed, transfer.upgrade()) {
                (Ok(model), Some(transfer)) => transfer.renew(model),
                (Err(error), _) => tracing::warn!(error = %error.report(), "newer credentials are not accepted"),
                (Ok(_), None) => {}
            }
        });
    }

    /// Ends it, for all who wait as well.
    pub fn give_up(&self) {
        self.task.abort();
    }

    /// How far it is, for the pod's events: the same text from call to call until there is something new to tell, so
    /// that kubelet can fold repeated events into one.
    pub fn progress(&self) -> String {
        let uri = self.request.name();
        match &*self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Resolving => format!("{uri} is being resolved; its source has not answered yet"),
            Stage::Fetching { transfer, .. } => {
                let amounts = transfer.amounts();
                let tens = amounts.percent() / 10 * 10;
                format!(
                    "{uri} is being downloaded, {tens} % of {} so far; the pod starts when it is complete",
                    Size(amounts.bytes_total)
                )
            }
        }
    }

    /// Bytes that are there, and bytes in all, once they are known.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        match &*self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Resolving => None,
            Stage::Fetching { transfer, .. } => {
                let amounts = transfer.amounts();
                Some((amounts.bytes_done, amounts.bytes_total))
            }
        }
    }
}

/// Whether the same credentials would be refused again.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unauthenticated | ErrorKind::PermissionDenied | ErrorKind::InvalidArgument)
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn prepare(
    workshop: &Workshop,
    request: &ModelRequest,
    credentials: &Credentials,
    stage: &Mutex<Stage>,
    resolved: &(impl Fn(Digest) -> Result<(), Error> + Send + Sync),
) -> Result<Snapshot, Error> {
    let model = request.open(credentials, &workshop.context)?;
    let mut restarts = RESTARTS;
    loop {
        match attempt(workshop, request, &model, stage, resolved).await {
            Err(error) if error.kind() == ErrorKind::Changed && restarts > 0 => {
                tracing::info!(uri = %request.name(), error = %error.report(), "resolving again");
                restarts -= 1;
            }
            outcome => return outcome,
        }
    }
}

async fn attempt(
    workshop: &Workshop,
    request: &ModelRequest,
    model: &Model,
    stage: &Mutex<Stage>,
    resolved: &(impl Fn(Digest) -> Result<(), Error> + Send + Sync),
) -> Result<Snapshot, Error> {
    *stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Resolving;
    let manifest = request.resolve(model).await?;
    // That the model can be listed does not say that these credentials may read it. The question is put for every
    // volume, also for a model that is in the cache already or is being fetched for another volume.
    let witnesses: Arc<[Arc<Entry>]> = model.witnesses(&manifest).into();
    model.authorize(&witnesses).await?;
    resolved(manifest.id())?;
    let snapshot = match workshop.cache.snapshot(manifest.id()) {
        Some(snapshot) => snapshot,
        None => {
            let transfer = workshop.transfers.join(manifest, model.clone());
            let waiting = Arc::clone(&transfer);
            *stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Fetching { transfer, witnesses };
            waiting.wait().await?
        }
    };
    match request.digest() {
        Some(demanded) if !snapshot.has_digest(demanded) => Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "{} has the digest {}, and the attribute digest demands {demanded}: correct one of the two",
                request.name(),
                snapshot.digest()
            ),
        )),
        _ => Ok(snapshot),
    }
}
