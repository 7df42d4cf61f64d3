//! One file on its way, on disk, so that a crash costs the parts in flight and no more.
//!
//! ```text
//! <directory>/data     the bytes so far, sparse
//! <directory>/parts    header, then for each finished part its CRC-32C; only for files of several parts
//! ```
//!
//! A part's mark is written after its bytes. After a kill both are in the page cache, in this order. After a power loss
//! either may be missing, which is why the mark is a checksum of the bytes: a part is believed when its bytes match.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, Digest as Crc};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"mmparts1";
const HEADER: usize = 24;
const MARK: usize = 8;
/// Set in each mark, so that a hole is not taken for the checksum zero.
const FINISHED: u64 = 1 << 32;

/// The running checksum of one part.
pub(super) struct PartSum(Crc);

impl PartSum {
    pub(super) fn new() -> Self {
        Self(Crc::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub(super) fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    fn mark(self) -> [u8; MARK] {
        (self.0.finalize() | FINISHED).to_le_bytes()
    }
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Partial {
    data: File,
    parts: Option<File>,
    directory: PathBuf,
}

impl Partial {
    /// Begins a file that is fetched in one piece: nothing of an earlier attempt is kept.
    pub(super) fn whole(directory: &Path) -> Result<Self> {
        let failed = |error| Error::io(format!("can't create {}", directory.display()), error);
        fs::create_dir_all(directory).map_err(failed)?;
        remove_if_there(&directory.join("parts")).map_err(failed)?;
        let data = directory.join("data");
        // Truncating would empty a blob that was already linked to this file.
        remove_if_there(&data).map_err(failed)?;
        let data = File::options().read(true).write(true).create_new(true).open(data).map_err(failed)?;
        Ok(Self { data, parts: None, directory: directory.to_owned() })
    }

    /// Begins or resumes a file of known size that is fetched in parts. Returns which parts are there already, having
    /// read them again; this blocks.
    pub(super) fn in_parts(directory: &Path, size: u64, part_size: u64) -> Result<(Self, Vec<bool>)> {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&size.to_le_bytes());
        header[16..].copy_from_slice(&part_size.to_le_bytes());

        let failed = |error| Error::io(format!("can't open {}", directory.display()), error);
        // Bytes that a blob already shares are never written to again, whatever the marks say.
        let shared = fs::metadata(directory.join("data")).is_ok_and(|data| data.nlink() > 1);
        let resumable = fs::read(directory.join("parts")).ok().filter(|parts| !shared && parts.starts_with(&header));
        let Some(marks) = resumable else {
            let mut partial = Self::whole(directory)?;
            let parts = directory.join("parts");
            let parts = File::options().write(true).create_new(true).open(parts).map_err(failed)?;
            parts.write_all_at(&header, 0).map_err(failed)?;
            partial.parts = Some(parts);
            return Ok((partial, vec![false; size.div_ceil(part_size) as usize]));
        };
        // A commit that was interrupted has made it read-only.
        let data = directory.join("data");
        match fs::set_permissions(&data, Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let open =
            |name: &str| File::options().read(true).write(true).create(true).truncate(false).open(directory.join(name));
        let data = open("data").map_err(failed)?;
        let found = (0..size.div_ceil(part_size))
            .map(|part| {
                let at = HEADER + part as usize * MARK;
                let mark = marks.get(at..at + MARK).unwrap_or_default();
                let start = part * part_size;
                !mark.is_empty() && sum(&data, start, part_size.min(size - start)).is_ok_and(|sum| sum.mark() == mark)
            })
            .collect();
        let parts = Some(open("parts").map_err(failed)?);
        Ok((Self { data, parts, directory: directory.to_owned() }, found))
    }

    /// The bytes.
    pub(super) fn data(&self) -> &File {
        &self.data
    }

    /// Puts a chunk where it belongs.
    pub(super) fn write(&self, offset: u64, chunk: &[u8]) -> Result<()> {
        self.data
            .write_all_at(chunk, offset)
            .map_err(|error| Error::io(format!("can't write to {}", self.directory.display()), error))
    }

    /// Marks a part as finished: all its bytes have been written.
    pub(super) fn finished(&self, part: usize, sum: PartSum) -> Result<()> {
        let Some(parts) = &self.parts else { return Ok(()) };
        parts
            .write_all_at(&sum.mark(), (HEADER + part * MARK) as u64)
            .map_err(|error| Error::io(format!("can't write to {}", self.directory.display()), error))
    }
}

/// Removes a file's download with all that belongs to it.
pub(super) fn discard(directory: &Path) {
    // Whatever stays is found, and removed, by the next start.
    let _ = fs::remove_dir_all(directory);
}

/// A download that nothing could resume, and that therefore goes, whatever ends it, unless it is kept.
#[derive(Debug)]
pub(super) struct Unresumable<'a>(Option<&'a Path>);

impl<'a> Unresumable<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self(Some(directory))
    }

    /// It is complete.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unresumable<'_> {
    fn drop(&mut self) {
        if let Some(directory) = self.0 {
            discard(directory);
        }
    }
}

fn sum(file: &File, mut offset: u64, length: u64) -> io::Result<PartSum> {
    let mut sum = PartSum::new();
    let mut buffer = vec![0; 256 << 10];
    let end = offset + length;
    while offset < end {
        let wanted = (end - offset).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..wanted], offset)?;
        sum.update(&buffer[..wanted]);
        offset += wanted as u64;
    }
    Ok(sum)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(partial: &Partial, part: usize, bytes: &[u8], part_size: usize) {
        partial.write((part * part_size) as u64, bytes).unwrap();
        let mut sum = PartSum::new();
        sum.update(bytes);
        partial.finished(part, sum).unwrap();
    }

    #[test]
    fn finished_parts_are_found_again_and_torn_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("key");
        let (partial, found) = Partial::in_parts(&directory, 25, 10).unwrap();
        assert_eq!(found, [false; 3]);
        put(&partial, 0, &[1; 10], 10);
        put(&partial, 2, &[3; 5], 10);
        partial.write(10, &[2; 4]).unwrap();
        drop(partial);
        assert_eq!(Partial::in_parts(&directory, 25, 10).unwrap().1, [true, false, true]);

        // Power loss: the mark reached the disk, the bytes did not.
        File::options().write(true).open(directory.join("data")).unwrap().write_all_at(&[0], 3).unwrap();
        assert_eq!(Partial::in_parts(&directory, 25, 10).unwrap().1, [false, false, true]);
        // The other way round, and a file cut short.
        File::options().write(true).open(directory.join("parts")).unwrap().set_len(HEADER as u64 + 20).unwrap();
        assert_eq!(Partial::in_parts(&directory, 25, 10).unwrap().1, [false; 3]);
    }

    #[test]
    fn another_size_or_part_size_begins_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("key");
        for (size, part_size) in [(20, 10), (20, 5), (21, 5)] {
            let (partial, found) = Partial::in_parts(&directory, size, part_size).unwrap();
            assert!(found.iter().all(|found| !found));
            put(&partial, 0, &vec![1; part_size as usize], part_size as usize);
        }
        fs::write(directory.join("parts"), b"garbage").unwrap();
        assert_eq!(Partial::in_parts(&directory, 21, 5).unwrap().1, [false; 5]);
    }

    #[test]
    fn beginning_anew_never_touches_a_blob_that_was_linked_from_here() {
        let root = tempfile::tempdir().unwrap();
        let (directory, blob) = (root.path().join("key"), root.path().join("blob"));
        Partial::whole(&directory).unwrap().write(0, b"content").unwrap();
        fs::hard_link(directory.join("data"), &blob).unwrap();
        Partial::whole(&directory).unwrap().write(0, b"other").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"content");

        put(&Partial::in_parts(&directory, 20, 10).unwrap().0, 0, &[1; 10], 10);
        fs::remove_file(&blob).unwrap();
        fs::hard_link(directory.join("data"), &blob).unwrap();
        let (partial, found) = Partial::in_parts(&directory, 20, 10).unwrap();
        assert_eq!(found, [false; 2]);
        put(&partial, 0, &[2; 10], 10);
        assert_eq!(fs::read(&blob).unwrap(), [1; 10]);
    }
}
