//! How far a fetch has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that a running fetch moves and anybody may read.
#[derive(Debug, Default)]
pub struct Progress {
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_fetched: AtomicU64,
    files_total: AtomicU64,
    files_done: AtomicU64,
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
}
