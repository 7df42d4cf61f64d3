//! Models for tests: content that is the same every time and need not be kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use modelmount::Digest;
use sha2::{Digest as _, Sha256};

/// Names that are legal in every source and go wrong in careless ones: they must be percent-encoded in URLs, escaped in
/// XML, and left alone by everything else.
pub const ODD_NAMES: &[&str] = &[
    "with space.txt",
    "ünï/模型.bin",
    "a+b.bin",
    "100%.txt",
    "per%20cent.txt",
    "hash#tag.txt",
    "a&b=c;d.txt",
    "<what>?.json",
    "it's \"quoted\".txt",
    "~tilde (1)!*@$,[x].txt",
];

/// A model as its paths and their bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Endless pseudo-random bytes, any range of which can be made at once: what a large file holds, without the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

impl Pattern {
    /// The pattern of `seed`. Two seeds have nothing in common.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6d6f_6465_6c6d_6e74))
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        let skip = (offset % 8) as usize;
        let mut index = offset / 8;
        let head = if skip == 0 { 0 } else { (8 - skip).min(buffer.len()) };
        let (start, rest) = buffer.split_at_mut(head);
        if !start.is_empty() {
            start.copy_from_slice(&self.word(index)[skip..skip + start.len()]);
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.word(index));
            index += 1;
        }
        let end = words.into_remainder();
        let length = end.len();
        end.copy_from_slice(&self.word(index)[..length]);
    }

    /// `length` bytes from `offset` on.
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(offset, &mut bytes);
        bytes
    }

    /// Calls `sink` with the first `size` bytes, piece by piece.
    ///
    /// # Errors
    /// The first error of `sink`.
    pub fn stream(&self, size: u64, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(buffer.len() as u64);
            let piece = &mut buffer[..length as usize];
            self.fill(offset, piece);
            sink(piece)?;
            offset += length;
        }
        Ok(())
    }

    /// Writes the first `size` bytes into a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let mut file = File::create(path)?;
        self.stream(size, |piece| file.write_all(piece))
    }

    /// SHA-256 of the first `size` bytes.
    pub fn sha256(&self, size: u64) -> Digest {
        let mut hasher = Sha256::new();
        self.stream(size, |piece| {
            hasher.update(piece);
            Ok(())
        })
        .expect("hashing can't fail");
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest::from_hex(&hex).expect("64 digits are a digest")
    }

    fn word(&self, index: u64) -> [u8; 8] {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A small model: weights of some ten kilobytes, a configuration, a sub-directory, and an empty file.
pub fn small(seed: u64) -> Files {
    let pattern = Pattern::new(seed);
    [
        ("config.json", format!("{{\"seed\": {seed}}}\n").into_bytes()),
        ("model.safetensors", pattern.bytes(0, 70_001)),
        ("tokenizer/vocab.txt", pattern.bytes(1 << 32, 300)),
        ("tokenizer/deep/er/merges.txt", pattern.bytes(2 << 32, 1)),
        ("empty", Vec::new()),
    ]
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .into()
}

/// One file under each of [`ODD_NAMES`].
pub fn odd(seed: u64) -> Files {
    let content = |i: usize| Pattern::new(seed).bytes((i as u64) << 32, 10 + i);
    ODD_NAMES.iter().enumerate().map(|(i, name)| ((*name).to_owned(), content(i))).collect()
}

/// `count` files of a few bytes each, a hundred to a directory: more than one page of any store's listing when 5,000.
pub fn many(seed: u64, count: usize) -> Files {
    let content = |i: usize| Pattern::new(seed).bytes((i as u64) << 32, i % 40);
    (0..count).map(|i| (format!("part-{:03}/{i:06}.bin", i / 100), content(i))).collect()
}

/// Lays a model out below `directory`.
///
/// # Errors
/// Those of the file system.
pub fn write(files: &Files, directory: &Path) -> io::Result<()> {
    for (path, bytes) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// All files below a directory, by their paths; links are followed.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::InvalidData`] for a name that is not UTF-8.
pub fn read(directory: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut below = vec![directory.to_owned()];
    while let Some(next) = below.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                below.push(path);
            } else {
                let name = path.strip_prefix(directory).ok().and_then(Path::to_str);
                let name = name.ok_or(io::ErrorKind::InvalidData)?.to_owned();
                files.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_the_same_bytes_as_the_whole() {
        let pattern = Pattern::new(7);
        let whole = pattern.bytes(0, 4096);
        for start in 0..40 {
            for length in [0, 1, 2, 7, 8, 9, 31, 100] {
                assert_eq!(pattern.bytes(start as u64, length), whole[start..start + length], "{start}+{length}");
            }
        }
        assert_ne!(whole, Pattern::new(8).bytes(0, 4096));
    }

    #[test]
    fn files_and_digests_agree_and_are_the_same_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        let size = (1 << 20) + 5;
        Pattern::new(1).write_file(&path, size).unwrap();
        assert_eq!(Pattern::new(1).sha256(size), Digest::of(std::fs::read(path).unwrap()));
        assert_eq!(Pattern::new(1).bytes(3, 5), KNOWN);
    }
    const KNOWN: [u8; 5] = [138, 189, 129, 152, 88];

    #[test]
    fn models_have_what_they_promise() {
        assert!(small(1)["empty"].is_empty() && small(1) != small(2));
        assert_eq!(odd(1).len(), ODD_NAMES.len());
        assert_eq!(many(1, 5000).len(), 5000);
        let directory = tempfile::tempdir().unwrap();
        write(&odd(1), directory.path()).unwrap();
        assert_eq!(std::fs::read(directory.path().join("ünï/模型.bin")).unwrap(), odd(1)["ünï/模型.bin"]);
    }
}
