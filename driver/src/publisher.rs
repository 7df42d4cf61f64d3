//! Publishing and unpublishing volumes: what is mounted where, what is on its way, and in which order things happen.
//!
//! ```text
//! publish:    lease --> preparation (resolve, authorize, fetch) --> mount --> OK
//!                            '-- deadline --> ABORTED with progress; the preparation goes on
//! unpublish:  give the preparation up --> unmount, rmdir --> drop the lease
//! ```
//!
//! - A lease is there before anything is fetched or mounted, and until after it was unmounted.
//! - Changes to one volume happen one after another ([`Publisher::volumes`]); waiting for a download is no change, so
//!   an unpublish never waits for one. It wins: a publish that finds its lease gone mounts nothing.
//! - Before a final code is returned, everything that the call did is undone: kubelet will not unpublish.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use modelmount::cache::Lease;
use modelmount::{Digest, Snapshot};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::mount::{Location, Mount, MountError, Mounter, snapshots_shown};
use crate::preparation::{Preparation, Workshop};
use crate::status::{is_final, message, status};
use crate::volume::Volume;

/// Metadata of an ABORTED answer, for clients that show a progress bar: bytes that are there, and bytes in all.
pub const PROGRESS_METADATA: [&str; 2] = ["modelmount-bytes-done", "modelmount-bytes-total"];

type Key = (String, String);

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Publisher {
    workshop: Workshop,
    mounter: Mounter,
    /// Volumes on their way. Held, for a moment, whenever a lease is written or dropped.
    pending: Mutex<HashMap<Key, Arc<Preparation>>>,
    /// One lock for each volume that is being changed.
    volumes: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files.
    pub bytes: u64,
    /// Number of files.
    pub files: u64,
}

impl Publisher {
    /// A publisher over `workshop`'s cache. Mounts that an earlier process left are taken over: leases that are missing
    /// for them are written anew, and those of volumes that are gone are dropped.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(workshop: Workshop, mounter: Mounter) -> Result<Arc<Self>, Status> {
        let publisher = Arc::new(Self { workshop, mounter, pending: Mutex::default(), volumes: Mutex::default() });
        publisher.adopt_mounts()?;
        publisher.drop_orphans();
        Ok(publisher)
    }

    /// Publishes a volume: mounts its model at its target, or says how far that has come.
    ///
    /// # Errors
    /// See [`crate::status`]; ABORTED at `answer_by` when the model is not there yet.
    pub async fn publish(self: &Arc<Self>, volume: Volume, answer_by: Instant) -> Result<(), Status> {
        let key = (volume.id.clone(), volume.target.clone());
        // Whether the path is one to mount at is known before anything is asked of the source.
        let preparation = match self.change(&volume, Self::begin).await? {
            None => return Ok(()),
            Some(preparation) => preparation,
        };
        let outcome = match timeout_at(answer_by, preparation.wait()).await {
            Err(_) => return Err(still_going(&preparation)),
            Ok(outcome) => outcome.map_err(|error| {
                tracing::warn!(volume = %volume.id, uri = %volume.request.name(), error = %error.report(), "publishing failed");
                status(&error)
            }),
        };
        let result = match outcome {
            Ok(snapshot) => self.change(&volume, move |this, volume| this.finish(volume, &snapshot)).await,
            Err(status) => Err(status),
        };
        let this = Arc::clone(self);
        let settled = move || {
            this.settle(&key, &preparation, &result);
            result
        };
        detached(blocking(settled)).await
    }

    /// Runs a change to a volume, after those that came before it, and to its end even if the caller has gone.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        volume: &Volume,
        work: impl FnOnce(&Self, &Volume) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let (this, volume) = (Arc::clone(self), volume.clone());
        let turn = self.turn(&volume.id);
        detached(async move {
            let _turn = turn.lock_owned().await;
            blocking(move || work(&this, &volume)).await
        })
        .await
    }

    /// The first half: nothing to do, or a preparation, whether new or found.
    fn begin(&self, volume: &Volume) -> Result<Option<Arc<Preparation>>, Status> {
        self.try_begin(volume).inspect_err(|status| {
            let key = (volume.id.clone(), volume.target.clone());
            // What is on its way is settled at its own end.
            let pending = self.pending();
            if is_final(status.code()) && pending.get(&key).is_none_or(|found| found.has_failed()) {
                self.drop_unmounted(&key, volume.arguments);
            }
        })
    }

    fn try_begin(&self, volume: &Volume) -> Result<Option<Arc<Preparation>>, Status> {
        let leases = self.workshop.cache.leases();
        let lease = leases.get(&volume.id, &volume.target);
        if lease.as_ref().is_some_and(|lease| lease.arguments != volume.arguments) {
            return Err(Status::already_exists(message(&format!(
                "volume {} is published at {} with other attributes: unpublish it first",
                volume.id, volume.target
            ))));
        }
        let target = self.mounter.target(&volume.target)?;
        let shown = target.mounted()?;
        if let Some(lease) = &lease {
            match (&shown, lease.snapshot) {
                // Kubelet repeats every publish after its restart, also when the source is down.
                (Some(mount), Some(id)) if self.shows(mount, id)? => {
                    // The process was killed after it had mounted, before the lease was told what it holds.
                    if lease.files == 0
                        && let Some(snapshot) = self.workshop.cache.snapshot(id)
                    {
                        return self.finish(volume, &snapshot).map(|()| None);
                    }
                    return Ok(None);
                }
                // After a reboot: the volume had been given this model, and the model is here.
                (None, Some(id)) if lease.files > 0 => {
                    if let Some(snapshot) = self.workshop.cache.snapshot(id) {
                        return self.finish(volume, &snapshot).map(|()| None);
                    }
                }
                _ => {}
            }
        }
        let mut pending = self.pending();
        let key = (volume.id.clone(), volume.target.clone());
        if let Some(found) = pending.get(&key).filter(|found| !found.has_failed()) {
            found.renew(&volume.credentials);
            return Ok(Some(Arc::clone(found)));
        }
        if lease.is_none() {
            let (volume_id, target) = key.clone();
            let arguments = volume.arguments;
            let lease = Lease { volume_id, target, arguments, snapshot: None, bytes: 0, files: 0 };
            leases.put(lease).map_err(|error| status(&error))?;
        }
        let cache = Arc::clone(&self.workshop.cache);
        let (volume_id, target) = key.clone();
        let resolved = move |id: Digest| {
            let held = cache.leases().update(&volume_id, &target, |lease| lease.snapshot = Some(id))?;
            if held { Ok(()) } else { Err(unpublished_meanwhile()) }
        };
        let preparation = Arc::new(Preparation::begin(
            &self.workshop,
            volume.request.clone(),
            volume.arguments,
            volume.credentials.clone(),
            resolved,
        ));
        pending.insert(key, Arc::clone(&preparation));
        Ok(Some(preparation))
    }

    /// The second half: the model is there, and is mounted.
    fn finish(&self, volume: &Volume, snapshot: &Snapshot) -> Result<(), Status> {
        let leases = self.workshop.cache.leases();
        let lease = leases.get(&volume.id, &volume.target);
        if lease.is_none_or(|lease| lease.arguments != volume.arguments) {
            return Err(status(&unpublished_meanwhile()));
        }
        let target = self.mounter.target(&volume.target)?;
        let was_there = match target.mounted()? {
            Some(mount) if self.shows(&mount, snapshot.id())? => true,
            Some(_) => return Err(MountError::AlreadyMounted { path: volume.target.clone() }.into()),
            None => {
                target.mount_read_only(&snapshot.tree(), volume.options)?;
                false
            }
        };
        let held = leases.update(&volume.id, &volume.target, |lease| {
            lease.snapshot = Some(snapshot.id());
            lease.bytes = snapshot.bytes();
            lease.files = snapshot.files().len() as u64;
        });
        if let Err(error) = held {
            // Without a lease the model could be evicted under the pod. An earlier call's mount has one that names the
            // model already, and a pod may be reading from it.
            if !was_there {
                target.unmount_and_remove()?;
            }
            return Err(status(&error));
        }
        tracing::info!(volume = %volume.id, uri = %volume.request.name(), snapshot = %snapshot.id(), "published");
        Ok(())
    }

    /// After the end of a preparation: forgets it, and after a final error all else that the call had done.
    fn settle(&self, key: &Key, preparation: &Arc<Preparation>, result: &Result<(), Status>) {
        let mut pending = self.pending();
        if pending.get(key).is_some_and(|found| Arc::ptr_eq(found, preparation)) {
            pending.remove(key);
            if result.as_ref().is_err_and(|status| is_final(status.code())) {
                self.drop_unmounted(key, preparation.arguments());
            }
        }
    }

    /// Drops the lease of a volume that is not mounted: after a final code kubelet does not unpublish, and the lease
    /// would hold its model for ever. One that was mounted before a reboot is such a volume too.
    fn drop_unmounted(&self, (volume_id, target): &Key, arguments: Digest) {
        let leases = self.workshop.cache.leases();
        let Some(lease) = leases.get(volume_id, target).filter(|lease| lease.arguments == arguments) else { return };
        let mounted = match self.mounter.target(target).and_then(|target| target.mounted()) {
            Ok(None) => false,
            // One that was never told what it holds may stand for an earlier call's mount, but not for somebody else's.
            Ok(Some(mount)) => {
                lease.files > 0 || lease.snapshot.is_some_and(|id| self.shows(&mount, id).unwrap_or(true))
            }
            // Not a place for a mount, so none is there. Otherwise nobody knows, and the model is kept.
            Err(error) => lease.files > 0 && matches!(error, MountError::Io { .. }),
        };
        if !mounted {
            leases.remove(volume_id, target);
        }
    }

    /// Takes a volume away from a target. That there is none is success.
    ///
    /// # Errors
    /// See [`crate::mount::MountError`]; nothing has then been given up that is still mounted.
    pub async fn unpublish(self: &Arc<Self>, volume_id: String, target: String) -> Result<(), Status> {
        let turn = self.turn(&volume_id);
        let this = Arc::clone(self);
        detached(async move {
            let _turn = turn.lock_owned().await;
            blocking(move || {
                let key = (volume_id, target);
                if let Some(preparation) = this.pending().remove(&key) {
                    preparation.give_up();
                }
                this.mounter.unmount_and_remove(&key.1)?;
                let _pending = this.pending();
                let leases = this.workshop.cache.leases();
                for lease in leases.at_target(&key.1) {
                    leases.remove(&lease.volume_id, &lease.target);
                }
                tracing::info!(volume = %key.0, target = %key.1, "unpublished");
                Ok(())
            })
            .await
        })
        .await
    }

    /// What a published volume holds. Takes the same time for every model.
    ///
    /// # Errors
    /// NOT_FOUND when this volume is not mounted at this path.
    pub async fn usage(self: &Arc<Self>, volume_id: String, path: String) -> Result<Usage, Status> {
        let this = Arc::clone(self);
        blocking(move || {
            let missing = || Status::not_found(message(&format!("volume {volume_id} is not published at {path}")));
            let lease = this.workshop.cache.leases().get(&volume_id, &path).filter(|lease| lease.files > 0);
            let Lease { bytes, files, snapshot, .. } = lease.ok_or_else(missing)?;
            let mount = this.mounter.target(&path).map_err(|_| missing())?.mounted()?;
            match (mount, snapshot) {
                (Some(mount), Some(id)) if this.shows(&mount, id)? => Ok(Usage { bytes, files }),
                _ => Err(missing()),
            }
        })
        .await
    }

    /// Whether a mount shows this model.
    fn shows(&self, mount: &Mount, id: Digest) -> Result<bool, Status> {
        let location = Location::of(&self.workshop.cache.snapshots_dir())?;
        Ok(location.below(mount) == Some(&Path::new(&id.hex()).join("tree")))
    }

    /// Writes leases for mounts that have none, so that what pods read is not evicted.
    fn adopt_mounts(&self) -> Result<(), Status> {
        let leases = self.workshop.cache.leases();
        for (name, mount) in snapshots_shown(&self.workshop.cache.snapshots_dir())? {
            let target = self.mounter.as_kubelet_writes(&mount.mount_point);
            let (Some(id), Some(target)) = (Digest::from_hex(&name), target.to_str().map(str::to_owned)) else {
                continue;
            };
            // A container's mount of a directory of the model (`subPath`) is kubelet's own: it goes with the container, and
            // nobody unpublishes it.
            if leases.at_target(&target).iter().any(|lease| lease.snapshot == Some(id)) || !self.shows(&mount, id)? {
                continue;
            }
            tracing::warn!(target, snapshot = %id, "a model is mounted that no lease names; it is kept");
            // No request has these arguments, so a publish of the volume resolves it anew and then finds it mounted.
            let volume_id = format!("adopted-{}", id.hex());
            let lease = Lease { volume_id, target, arguments: id, snapshot: Some(id), bytes: 0, files: 0 };
            if let Err(error) = leases.put(lease) {
                tracing::error!(error = %error.report(), "the model is not held in the cache");
            }
        }
        Ok(())
    }

    /// Drops the leases of volumes whose directory is gone: kubelet makes it before it publishes and removes it after it has
    /// unpublished, so nobody will ever ask for these to be unpublished.
    fn drop_orphans(&self) {
        let leases = self.workshop.cache.leases();
        for lease in leases.all() {
            if matches!(self.mounter.target(&lease.target), Err(MountError::MissingParent { .. })) {
                tracing::warn!(volume = %lease.volume_id, target = %lease.target, "the volume's directory is gone; its lease is dropped");
                leases.remove(&lease.volume_id, &lease.target);
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Key, Arc<Preparation>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, volume_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|_, turn| turn.strong_count() > 0);
        let known = volumes.get(volume_id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            volumes.insert(volume_id.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

fn unpublished_meanwhile() -> modelmount::Error {
    modelmount::Error::new(modelmount::ErrorKind::Cancelled, "the volume was unpublished while it was being published")
}

fn still_going(preparation: &Preparation) -> Status {
    let mut status = Status::aborted(message(&preparation.progress()));
    if let Some((done, total)) = preparation.bytes() {
        for (name, bytes) in PROGRESS_METADATA.into_iter().zip([done, total]) {
            status.metadata_mut().insert(name, bytes.into());
        }
    }
    status
}

/// Work that goes on when the call is dropped: half a mount is worse than one that nobody waits for.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(broken(&error)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(broken(&error)))
}

fn broken(error: &tokio::task::JoinError) -> Status {
    tracing::error!(%error, "a task broke");
    Status::internal("the plugin has a defect, which its log describes")
}
