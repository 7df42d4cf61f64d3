//! Joins sources and storage: downloads a manifest's files, in parallel ranges, hashed on the way, resumable.
//!
//! [`Transfers`] fetches models into a [`crate::Cache`], each file once however many ask; [`pull`] fetches one into a
//! plain directory. Both run the same engine: at most [`Limits::connections`] requests at a time over all models, each of
//! which has one in any case, every chunk written where it belongs as it arrives, SHA-256 following the contiguous front,
//! and whoever unpacks it behind that.
//!
//! File writes and hashing happen inside the tasks, without a detour over a blocking pool for each chunk of a few
//! hundred kilobytes: run this module's futures on a runtime of their own, not on the one that answers requests.

mod archive;
mod assembly;
mod file;
mod follow;
mod hash;
mod job;
mod pace;
mod partial;
mod progress;
mod pull;
mod room;
mod scratch;
mod transfer;
mod unpackers;

pub use progress::{Amounts, Progress, Tally};
pub use pull::pull;
pub use transfer::{Transfer, Transfers};

/// How much a process may fetch at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests under way at the same time, over all models. Fewer are made where more would not help.
    pub connections: usize,
    /// Bytes of one ranged request; also what a crash may cost, per connection.
    pub part_size: u64,
}

impl Default for Limits {
    /// 32 connections and 16 MiB: one S3 connection brings 50 to 100 MB/s, and at that rate the time to the first
    /// byte is a small part of a 16 MiB request.
    fn default() -> Self {
        Self { connections: 32, part_size: 16 << 20 }
    }
}
