//! How far a fetch has come, and how much all fetches have done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that a running fetch moves and anybody may read.
#[derive(Debug, Default)]
pub struct Progress {
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_fetched: AtomicU64,
    files_total: AtomicU64,
    files_done: AtomicU64,
    totals: Arc<Totals>,
}

/// A reading of [`Progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Bytes of the model, as far as sizes are known.
    pub bytes_total: u64,
    /// Bytes that are there, whether fetched now or earlier.
    pub bytes_done: u64,
    /// Bytes that came from the source in this run, repeated ones included.
    pub bytes_fetched: u64,
    /// Files of the model.
    pub files_total: u64,
    /// Files that are complete and verified.
    pub files_done: u64,
}

impl Amounts {
    /// Share of the bytes that are there, 0 to 100; 100 only when every file is complete.
    pub fn percent(&self) -> u64 {
        if self.files_total > 0 && self.files_done == self.files_total {
            return 100;
        }
        let share = u128::from(self.bytes_done) * 100 / u128::from(self.bytes_total.max(1));
        u64::try_from(share).unwrap_or(99).min(99)
    }
}

impl Progress {
    /// A fetch that adds to `totals`.
    pub(super) fn within(totals: Arc<Totals>) -> Self {
        Self { totals, ..Self::default() }
    }

    /// A reading of all counters.
    pub fn amounts(&self) -> Amounts {
        Amounts {
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_fetched: self.bytes_fetched.load(Ordering::Relaxed),
            files_total: self.files_total.load(Ordering::Relaxed),
            files_done: self.files_done.load(Ordering::Relaxed),
        }
    }

    pub(super) fn expect(&self, bytes: u64, files: u64) {
        self.bytes_total.store(bytes, Ordering::Relaxed);
        self.files_total.store(files, Ordering::Relaxed);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
        self.totals.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn found(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was counted as done must be fetched again.
    pub(super) fn lost(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counters of all transfers of a process, which only ever grow.
#[derive(Debug, Default)]
pub(super) struct Totals {
    started: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    bytes_fetched: AtomicU64,
}

/// What all transfers have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transfers that were begun.
    pub started: u64,
    /// Those that brought their model.
    pub completed: u64,
    /// Those that ended with an error.
    pub failed: u64,
    /// Those that nobody wanted any more.
    pub given_up: u64,
    /// Bytes that came from sources, repeated ones included.
    pub bytes_fetched: u64,
}

impl Tally {
    /// Transfers under way.
    pub fn running(&self) -> u64 {
        self.started.saturating_sub(self.completed + self.failed + self.given_up)
    }
}

impl Totals {
    /// A reading of all counters.
    pub(super) fn tally(&self) -> Tally {
        // What has ended is read before what has begun, so that no transfer ends that never began.
        let ended = [&self.completed, &self.failed, &self.given_up].map(|counter| counter.load(Ordering::Acquire));
        let [completed, failed, given_up] = ended;
        let started = self.started.load(Ordering::Acquire);
        Tally { started, completed, failed, given_up, bytes_fetched: self.bytes_fetched.load(Ordering::Relaxed) }
    }

    /// Counts a transfer, from now until the answer is dropped.
    pub(super) fn begin(self: Arc<Self>) -> Counted {
        self.started.fetch_add(1, Ordering::AcqRel);
        Counted { totals: self, succeeded: None }
    }
}

/// A transfer that is counted. Dropped without an outcome, it was given up.
pub(super) struct Counted {
    totals: Arc<Totals>,
    succeeded: Option<bool>,
}

impl Counted {
    /// It has ended.
    pub(super) fn end(mut self, succeeded: bool) {
        self.succeeded = Some(succeeded);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counter = match self.succeeded {
            Some(true) => &self.totals.completed,
            Some(false) => &self.totals.failed,
            None => &self.totals.given_up,
        };
        counter.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_means_every_file() {
        let progress = Progress::default();
        assert_eq!(progress.amounts().percent(), 0);
        progress.expect(200, 2);
        progress.fetched(150);
        assert_eq!(progress.amounts().percent(), 75);
        progress.found(50);
        progress.file_done();
        assert_eq!(progress.amounts().percent(), 99);
        progress.file_done();
        assert_eq!(progress.amounts().percent(), 100);
        progress.lost(50);
        assert_eq!(progress.amounts().bytes_done, 150);
        assert_eq!(progress.amounts().bytes_fetched, 150);
    }

    #[test]
    fn transfers_are_counted_by_their_end() {
        let totals = Arc::new(Totals::default());
        let [won, lost, dropped, running] = [(); 4].map(|()| Arc::clone(&totals).begin());
        won.end(true);
        lost.end(false);
        drop(dropped);
        Progress::within(Arc::clone(&totals)).fetched(7);
        Progress::within(Arc::clone(&totals)).fetched(3);
        let tally = totals.tally();
        assert_eq!(tally, Tally { started: 4, completed: 1, failed: 1, given_up: 1, bytes_fetched: 10 });
        assert_eq!(tally.running(), 1);
        drop(running);
        assert_eq!(totals.tally().running(), 0);
    }
}
