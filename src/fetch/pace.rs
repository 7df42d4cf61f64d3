//! How many requests are under way at a time: as many as help, and no more than allowed.
//!
//! One connection to an object store brings 50 to 100 MB/s, so a fast network wants many; a server nearby, or a busy
//! processor, is at its limit with a few, and each further one only costs memory, and has more of a file arrive out of
//! order. So the number starts low and is doubled for as long as that brings clearly more; when it does not, the last
//! step is taken back, and tried again some time later.
//!
//! One of them belongs to each fetch, and the others to all, so that servers that answer slowly, or not at all, hold up nobody
//! but who waits for them.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};

/// Requests at the beginning: enough for a server nearby.
const START: usize = 4;
/// How long a number is tried.
const TRIAL: Duration = Duration::from_millis(400);
/// How long a number is kept that more would not have bettered.
const REST: Duration = Duration::from_secs(4);
/// By how much more requests must better the rate.
const BETTER: f64 = 1.15;
/// What a request counts for beside its bytes: small files are a matter of round trips.
const REQUEST: u64 = 1 << 20;

/// The pace of all fetches of a process.
#[derive(Debug)]
pub(super) struct Pace {
    slots: Arc<Semaphore>,
    most: usize,
    files: AtomicUsize,
    brought: AtomicU64,
    trial: Mutex<Trial>,
}

#[derive(Debug)]
struct Trial {
    /// Requests that may be under way, if there is one fetch.
    target: usize,
    /// Slots that are in use and are not to be used again.
    surplus: usize,
    began: Instant,
    brought: u64,
    rate: f64,
    raised: bool,
    rest_until: Instant,
}

impl Pace {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let (target, now) = (most.min(START), Instant::now());
        let trial = Trial { target, surplus: 0, began: now, brought: 0, rate: 0.0, raised: false, rest_until: now };
        Arc::new(Self {
            // A fetch has one of its own.
            slots: Arc::new(Semaphore::new(target - 1)),
            most,
            files: AtomicUsize::new(0),
            brought: AtomicU64::new(0),
            trial: Mutex::new(trial),
        })
    }

    /// Waits for the right to make a request: one that `own` gives, or one of those that all share.
    pub(super) async fn slot(self: &Arc<Self>, own: &Arc<Semaphore>) -> Result<Slot> {
        let own = pin!(Arc::clone(own).acquire_owned());
        let shared = pin!(Arc::clone(&self.slots).acquire_owned());
        let (permit, is_shared) = match select(own, shared).await {
            Either::Left((permit, _)) => (permit, false),
            Either::Right((permit, _)) => (permit, true),
        };
        let permit = permit.map_err(|error| Error::with_source(ErrorKind::Cancelled, "closing", error))?;
        self.brought(REQUEST);
        Ok(Slot { pace: Arc::clone(self), permit: Some(permit), is_shared })
    }

    /// Counts a file that is fetched in parts, for as long as the value lives.
    pub(super) fn file(self: &Arc<Self>) -> ActiveFile {
        self.files.fetch_add(1, Ordering::Relaxed);
        ActiveFile(Arc::clone(self))
    }

    /// How many requests one file may have under way, when all that are fetched in parts have the same.
    pub(super) fn share(&self) -> usize {
        let target = self.trial.lock().unwrap_or_else(PoisonError::into_inner).target;
        target.div_ceil(self.files.load(Ordering::Relaxed).max(1))
    }

    /// Tells of bytes that have arrived.
    pub(super) fn brought(&self, bytes: u64) {
        let brought = self.brought.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Whoever comes second has nothing to add.
        if let Ok(mut trial) = self.trial.try_lock()
            && trial.began.elapsed() >= TRIAL
        {
            self.judge(&mut trial, brought, Instant::now());
        }
    }

    fn judge(&self, trial: &mut Trial, brought: u64, now: Instant) {
        let took = now.saturating_duration_since(trial.began);
        let rate = (brought - trial.brought) as f64 / took.as_secs_f64();
        let idle = took > 3 * TRIAL;
        let better = rate >= trial.rate * BETTER;
        (trial.began, trial.brought) = (now, brought);
        if trial.raised && !better && !idle {
            self.lower(trial);
            trial.raised = false;
            trial.rest_until = now + REST;
            return;
        }
        trial.rate = rate;
        // After a pause the rate says nothing, and is only noted.
        trial.raised = !idle && now >= trial.rest_until && self.raise(trial);
    }

    fn raise(&self, trial: &mut Trial) -> bool {
        let step = trial.target.min(self.most - trial.target);
        trial.target += step;
        let taken_back = step.min(trial.surplus);
        trial.surplus -= taken_back;
        self.slots.add_permits(step - taken_back);
        step > 0
    }

    fn lower(&self, trial: &mut Trial) {
        let step = trial.target / 2;
        trial.target -= step;
        trial.surplus += step - self.slots.forget_permits(step);
    }
}

/// The right to one request.
#[derive(Debug)]
pub(super) struct Slot {
    pace: Arc<Pace>,
    permit: Option<OwnedSemaphorePermit>,
    is_shared: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut trial = self.pace.trial.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_shared
            && trial.surplus > 0
            && let Some(permit) = self.permit.take()
        {
            trial.surplus -= 1;
            permit.forget();
        }
    }
}

/// See [`Pace::file`].
#[derive(Debug)]
pub(super) struct ActiveFile(Arc<Pace>);

impl Drop for ActiveFile {
    fn drop(&mut self) {
        self.0.files.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Runs trials in a world in which `rate` tells what so many requests bring in a second.
    fn settle(pace: &Pace, rate: impl Fn(usize) -> u64, trials: u32) -> Vec<usize> {
        let mut trial = pace.trial.lock().unwrap();
        let mut brought = trial.brought;
        (0..trials)
            .map(|_| {
                brought += rate(trial.target) * TRIAL.as_millis() as u64 / 1000;
                let now = trial.began + TRIAL;
                pace.judge(&mut trial, brought, now);
                trial.target
            })
            .collect()
    }

    #[test]
    fn grows_while_it_helps_and_stops_at_the_limit() {
        let pace = Pace::new(40);
        assert_eq!(settle(&pace, |n| n as u64 * 80_000_000, 6), [8, 16, 32, 40, 40, 40]);
        assert_eq!(pace.slots.available_permits(), 39);
    }

    #[test]
    fn a_step_that_does_not_help_is_taken_back_and_tried_again_later() {
        let pace = Pace::new(64);
        let seen = settle(&pace, |n| n.min(8) as u64 * 80_000_000, 30);
        assert_eq!(seen[..4], [8, 16, 8, 8]);
        assert_eq!(seen.iter().filter(|n| **n == 16).count(), 3, "{seen:?}");
        assert!(seen.iter().all(|n| *n <= 16));
        let trial = pace.trial.lock().unwrap();
        assert_eq!(pace.slots.available_permits() - trial.surplus, trial.target - 1);
    }

    #[tokio::test]
    async fn slots_in_use_are_not_used_again_after_a_step_back() {
        let pace = Pace::new(8);
        settle(&pace, |_| 1_000_000_000, 1);
        let mut slots = Vec::new();
        let own = Arc::new(Semaphore::new(1));
        for _ in 0..8 {
            slots.push(pace.slot(&own).await.unwrap());
        }
        assert_eq!(settle(&pace, |_| 1_000_000_000, 1), [4]);
        // Another fetch waits for nobody.
        let other = pace.slot(&Arc::new(Semaphore::new(1))).await.unwrap();
        assert!(pace.slot(&own).now_or_never().is_none());
        drop((slots, other));
        assert_eq!((pace.slots.available_permits(), own.available_permits()), (3, 1));
    }

    #[test]
    fn files_share() {
        let pace = Pace::new(16);
        assert_eq!(pace.share(), 4);
        let files: Vec<_> = (0..3).map(|_| pace.file()).collect();
        assert_eq!(pace.share(), 2);
        drop(files);
        assert_eq!(pace.share(), 4);
    }
}
