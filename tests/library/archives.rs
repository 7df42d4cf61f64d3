//! Archives and layers through the whole of the library: fetched, unpacked on the way, kept once, refused without a trace.
//! What the formats are held to by themselves is tested beside `src/unpack.rs`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use modelmount::unpack::{Kind, Unpack};
use modelmount::{RelPath, Selection};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{Pattern, tools};

use crate::memory::Memory;
use crate::node::{Node, PART, walk};

mod arrival;
mod crash;
mod hostile;
mod images;
mod pulled;
#[cfg(all(feature = "s3", feature = "http"))]
mod servers;

/// How archives are made: a name, and what makes it of a directory, on its standard output.
const FORMATS: &[(&str, &str)] = &[
    ("model.tar", "tar -cf - ."),
    ("model.tar.gz", "tar -cf - . | gzip -1"),
    ("model.tar.bz2", "tar -cf - . | bzip2 -1"),
    ("model.tar.xz", "tar -cf - . | xz -0"),
    ("model.tar.zst", "tar -cf - . | zstd -q -1"),
    ("model.zip", "zip -q -r -1 - ."),
];

/// An archive of these files; `None`, reported as a skip, when a program for it is missing.
fn pack(files: &Files, how: &str) -> Option<Vec<u8>> {
    for program in how.split('|').filter_map(|part| part.split_whitespace().next()) {
        tools::require(program)?;
    }
    let directory = tempfile::tempdir().unwrap();
    model::write(files, directory.path()).unwrap();
    let shell = format!("set -o pipefail; {how}");
    let output = Command::new("bash").arg("-c").arg(shell).current_dir(directory.path()).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

fn tar(files: &Files) -> Option<Vec<u8>> {
    pack(files, "tar -cf - .")
}

/// Members of several parts each, and small ones.
fn files() -> Files {
    let mut files = model::small(4);
    for i in 0..4 {
        files.insert(format!("shards/part-{i}"), Pattern::new(50 + i).bytes(0, 5 * PART as usize + i as usize));
    }
    files
}

fn archive() -> Unpack {
    Unpack { kind: Kind::Archive, below: None, into: None, selection: Selection::default() }
}

fn layer(number: u32) -> Unpack {
    Unpack::layer(number, Some(RelPath::parse("models").unwrap()))
}

fn one(name: &str, bytes: Vec<u8>) -> Files {
    [(name.to_owned(), bytes)].into()
}

fn size(files: &Files) -> u64 {
    files.values().map(|bytes| bytes.len() as u64).sum()
}

fn memory(name: &str, bytes: &[u8]) -> Arc<Memory> {
    Memory::new(&one(name, bytes.to_vec()))
}

/// Lets a node forget its models, but not what they are made of.
fn forget_snapshots(root: &Path) {
    let snapshots = root.join("snapshots");
    fs::remove_dir_all(&snapshots).unwrap();
    fs::create_dir(&snapshots).unwrap();
}

/// Bytes of all blobs.
fn stored(node: &Node) -> u64 {
    walk(&node.root().join("blobs")).iter().map(|(_, blob)| blob.len()).sum()
}
