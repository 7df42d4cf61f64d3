//! SHA-256 of a file that arrives out of order, in the same pass as its download.
//!
//! The hash follows the front up to which the file is complete. A chunk that lands exactly there is hashed from
//! memory; what other connections wrote beyond it is read back from the page cache, moments after it was written, once
//! the front gets there. No chunk is ever kept for reordering. Each arriving chunk pays for hashing about twice its own
//! length, so the front keeps up and no task hashes for long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::follow::Follow;
use crate::manifest::Digest;

const BUFFER: usize = 256 << 10;

/// The hash of one file, shared by the tasks that fetch its parts.
#[derive(Debug)]
pub(super) struct OrderedHash {
    size: u64,
    part_size: u64,
    /// Bytes written of each part, from its beginning.
    written: Vec<AtomicU64>,
    front: Mutex<Front>,
    /// Whoever reads behind the front.
    follow: Option<Arc<Follow>>,
}

#[derive(Debug)]
struct Front {
    at: u64,
    sha: Sha256,
    buffer: Vec<u8>,
}

impl OrderedHash {
    pub(super) fn new(size: u64, part_size: u64, follow: Option<Arc<Follow>>) -> Self {
        let written = (0..size.div_ceil(part_size)).map(|_| AtomicU64::new(0)).collect();
        let front = Front { at: 0, sha: Sha256::new(), buffer: Vec::new() };
        Self { size, part_size, written, front: Mutex::new(front), follow }
    }

    /// Tells that this chunk is in the file now, and hashes as far as that allows without waiting for anybody.
    /// Chunks of one part come in order, each part's from its beginning.
    pub(super) fn wrote(&self, file: &File, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let part = offset / self.part_size;
        let end = offset + chunk.len() as u64;
        // Release: whoever sees the new length may read the bytes.
        self.written[part as usize].store(end - part * self.part_size, Ordering::Release);
        // Somebody else is hashing: these bytes will be read back.
        let Ok(mut front) = self.front.try_lock() else { return Ok(()) };
        if (offset..end).contains(&front.at) {
            let known = (front.at - offset) as usize;
            front.sha.update(&chunk[known..]);
            front.at = end;
            self.tell(end);
        }
        self.catch_up(file, &mut front, 2 * chunk.len() as u64)
    }

    /// Tells that a part was found complete.
    pub(super) fn found(&self, part: usize) {
        let start = part as u64 * self.part_size;
        self.written[part].store(self.part_size.min(self.size - start), Ordering::Release);
    }

    /// Bytes of all parts that are in the file.
    pub(super) fn written(&self) -> u64 {
        self.written.iter().map(|written| written.load(Ordering::Relaxed)).sum()
    }

    /// The digest, once every part is there. Blocks while it hashes what is left.
    pub(super) fn finish(&self, file: &File) -> io::Result<Digest> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        self.catch_up(file, &mut front, u64::MAX)?;
        if front.at != self.size {
            return Err(io::Error::other(format!(
                "the file is complete up to {} of {} bytes only",
                front.at, self.size
            )));
        }
        Ok(Digest::from_hasher(std::mem::take(&mut front.sha)))
    }

    fn catch_up(&self, file: &File, front: &mut MutexGuard<'_, Front>, mut budget: u64) -> io::Result<()> {
        let front = &mut **front;
        while budget > 0 {
            let length = (self.complete_from(front.at)).min(BUFFER as u64).min(budget) as usize;
            if length == 0 {
                return Ok(());
            }
            // Most files never read back, so the buffer is made when first needed.
            front.buffer.resize(BUFFER, 0);
            let buffer = &mut front.buffer[..length];
            file.read_exact_at(buffer, front.at)?;
            front.sha.update(buffer);
            front.at += length as u64;
            budget -= length as u64;
            self.tell(front.at);
        }
        Ok(())
    }

    fn tell(&self, front: u64) {
        if let Some(follow) = &self.follow {
            follow.advance(front);
        }
    }

    /// How many bytes from `at` on are in the file, up to the end of the part.
    fn complete_from(&self, at: u64) -> u64 {
        let part = at / self.part_size;
        let written = self.written.get(part as usize).map_or(0, |written| written.load(Ordering::Acquire));
        (part * self.part_size + written).saturating_sub(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(file: &File, hash: &OrderedHash, content: &[u8], part: usize, step: usize) {
        let start = part * hash.part_size as usize;
        let end = (start + hash.part_size as usize).min(content.len());
        for offset in (start..end).step_by(step) {
            let chunk = &content[offset..(offset + step).min(end)];
            file.write_all_at(chunk, offset as u64).unwrap();
            hash.wrote(file, offset as u64, chunk).unwrap();
        }
    }

    proptest! {
        #[test]
        fn equals_the_plain_hash_in_any_order(
            content in proptest::collection::vec(any::<u8>(), 1..5000),
            part_size in 1u64..700,
            step in 1usize..300,
            order in any::<u64>(),
        ) {
            let file = tempfile::tempfile().unwrap();
            let hash = OrderedHash::new(content.len() as u64, part_size, None);
            let mut parts: Vec<usize> = (0..hash.written.len()).collect();
            parts.sort_by_key(|part| (*part as u64).wrapping_mul(order | 1));
            for part in parts {
                fill(&file, &hash, &content, part, step);
            }
            prop_assert_eq!(hash.finish(&file).unwrap(), Digest::of(&content));
        }
    }

    #[test]
    fn parallel_writers_and_found_parts() {
        let content: Vec<u8> = (0..4_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        let hash = OrderedHash::new(content.len() as u64, 300_000, None);
        file.write_all_at(&content[600_000..900_000], 600_000).unwrap();
        hash.found(2);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (file, hash, content) = (&file, &hash, &content);
                scope.spawn(move || {
                    for part in (0..hash.written.len()).filter(|part| part % 4 == worker && *part != 2) {
                        fill(file, hash, content, part, 7_001);
                    }
                });
            }
        });
        assert_eq!(hash.finish(&file).unwrap(), Digest::of(&content));
    }

    #[test]
    fn a_hole_is_an_error_and_never_a_digest() {
        let file = tempfile::tempfile().unwrap();
        let hash = OrderedHash::new(20, 10, None);
        fill(&file, &hash, &[7; 20], 1, 5);
        assert!(hash.finish(&file).unwrap_err().to_string().contains("up to 0 of 20"));
    }
}
