//! Room on the disk: set aside before a download begins, so that it does not die half-way and take the node with it.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::statvfs;

use crate::error::{Error, ErrorKind, Result};
use crate::size::{Size, parse_size};

/// What downloads must leave free on the cache's file system.
///
/// Kubelet evicts pods when less than 10 % of the node's file system is free, and collects images from 85 % use on
/// (kubelet's defaults for `nodefs.available` and `imageGCHighThresholdPercent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepFree {
    /// That many bytes.
    Bytes(u64),
    /// That share of the file system, in percent.
    Percent(u8),
}

impl Default for KeepFree {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl FromStr for KeepFree {
    type Err = Error;

    /// Reads `10%`, or a size such as `20GiB`.
    fn from_str(text: &str) -> Result<Self> {
        let percent = text.strip_suffix('%').map(|number| number.trim().parse().ok().filter(|percent| *percent <= 100));
        match percent {
            Some(percent) => percent.map(Self::Percent),
            None => parse_size(text).map(Self::Bytes),
        }
        .ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("{text:?} is neither a share (10%) nor a size (20GiB)"))
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Space {
    root: PathBuf,
    keep_free: KeepFree,
    /// Bytes that running downloads have yet to write.
    promised: Arc<AtomicU64>,
}

impl Space {
    pub(super) fn new(root: PathBuf, keep_free: KeepFree) -> Self {
        Self { root, keep_free, promised: Arc::default() }
    }

    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation> {
        // First promised, then compared: of two at once, both see the other.
        let reservation = Reservation { space: self.clone(), left: AtomicU64::new(bytes) };
        let promised = self.promised.fetch_add(bytes, Ordering::Relaxed);
        self.check(bytes, promised)?;
        Ok(reservation)
    }

    /// Whether there is room for so many bytes beside those that were promised.
    fn check(&self, bytes: u64, promised: u64) -> Result<()> {
        let disk = statvfs(&self.root)
            .map_err(|errno| Error::io(format!("can't ask for the room in {}", self.root.display()), errno.into()))?;
        let unit = disk.fragment_size();
        let (total, free) = (disk.blocks().saturating_mul(unit), disk.blocks_available().saturating_mul(unit));
        let keep = match self.keep_free {
            KeepFree::Bytes(bytes) => bytes,
            KeepFree::Percent(percent) => total / 100 * u64::from(percent),
        };
        if bytes > 0 && promised.saturating_add(bytes).saturating_add(keep) > free {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "no room for {}: {} has {} free, of which {} are kept free and {} are promised to other downloads",
                    Size(bytes),
                    self.root.display(),
                    Size(free),
                    Size(keep),
                    Size(promised)
                ),
            ));
        }
        Ok(())
    }
}

/// Room set aside for one download, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    space: Space,
    left: AtomicU64,
}

impl Reservation {
    /// Tells that so much of it has been written, and shows in the disk's own figures now.
    pub fn used(&self, bytes: u64) {
        let before =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
        self.space.promised.fetch_sub(before.unwrap_or(0).min(bytes), Ordering::Relaxed);
    }

    /// Tells that so much of what was written is gone from the disk, and is yet to be written again.
    pub fn lost(&self, bytes: u64) {
        self.space.promised.fetch_add(bytes, Ordering::Relaxed);
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Asks for room beside what was set aside: for what is written next, and whose size nobody knew.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`], with the figures.
    pub fn more(&self, bytes: u64) -> Result<()> {
        self.space.check(bytes, self.space.promised.load(Ordering::Relaxed))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.promised.fetch_sub(*self.left.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes_are_read() {
        assert_eq!("10%".parse::<KeepFree>().unwrap(), KeepFree::Percent(10));
        assert_eq!("5GiB".parse::<KeepFree>().unwrap(), KeepFree::Bytes(5 << 30));
        assert!("101%".parse::<KeepFree>().is_err() && "ten".parse::<KeepFree>().is_err());
    }

    #[test]
    fn what_is_promised_is_not_promised_again() {
        let root = tempfile::tempdir().unwrap();
        let disk = statvfs(root.path()).unwrap();
        let free = disk.blocks_available() * disk.fragment_size();
        // Other tests write to this disk as well: leave them a margin.
        let space = Space::new(root.path().into(), KeepFree::Bytes(free / 4));
        let first = space.reserve(free / 2).unwrap();
        let error = space.reserve(free / 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().contains("no room for"), "{error}");
        first.used(free / 4);
        first.lost(free / 4);
        assert!(space.reserve(free / 2).is_err(), "it is to be written again");
        first.used(free / 4);
        first.used(u64::MAX);
        space.reserve(free / 2).unwrap();
        let second = space.reserve(free / 2).unwrap();
        second.more(free / 8).unwrap();
        assert_eq!(second.more(free / 2).unwrap_err().kind(), ErrorKind::ResourceExhausted);
        drop((first, second));
        assert_eq!(space.promised.load(Ordering::Relaxed), 0);
        assert!(space.reserve(u64::MAX / 2).is_err());
        space.reserve(0).unwrap();
    }
}
