//! Puts right what a crash left behind, before anything else uses the cache.

use std::collections::{BTreeSet, HashSet};
use std::error::Error as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::layout::{Layout, named_after};
use super::{snapshot, unpacked};
use crate::error::{Error, Result};
use crate::manifest::Digest;

/// Linux's name for the time since the machine was started (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Recovers the cache. Returns the origins of committed content that is yet to be flushed.
pub(super) fn recover(layout: &Layout) -> Result<Vec<Digest>> {
    let failed = |error| Error::io(format!("can't put the cache at {} right", layout.root().display()), error);
    // On a disk that takes no more writes, what is mounted from it has to be unmounted all the same. What is tidied away
    // here is no content that is given to anybody, and may stay.
    let mut unwritable = None;
    let mut tidied = |result: Result<()>| match result {
        Err(error) if is_read_only(&error) => {
            unwritable.get_or_insert(error);
            Ok(())
        }
        result => result,
    };
    tidied(empty_trash(layout).map_err(failed))?;

    let boot = fs::read_to_string(BOOT_ID).map_err(failed)?;
    // An unreadable note means that nobody knows: the careful answer is "another".
    let same_boot = fs::read_to_string(layout.boot()).is_ok_and(|noted| noted == boot);

    let mut committed = Vec::new();
    for entry in fs::read_dir(layout.partials()).map_err(failed)? {
        let partial = entry.map_err(failed)?.path();
        let (Some(origin), Ok(data)) = (named_after(&partial), fs::symlink_metadata(partial.join("data"))) else {
            tidied(layout.discard(&partial))?;
            continue;
        };
        if data.nlink() > 1 {
            committed.push(origin);
        } else if unpacked::is_done(layout, &partial) {
            tidied(layout.discard(&partial))?;
        } else if !partial.join("parts").exists() {
            // Fetched in one piece, which can't be resumed.
            tidied(layout.discard(&partial))?;
        }
    }
    if let Some(error) = unwritable {
        tracing::error!(error = %error.report(), "the cache's disk is read-only, and what an earlier process left stays");
    }
    if !same_boot && !committed.is_empty() {
        tracing::warn!(
            files = committed.len(),
            "the machine stopped before these were on the disk; they are checked again"
        );
        let partials: Vec<PathBuf> = committed.drain(..).map(|origin| layout.partial(origin)).collect();
        // Never tolerated: these blobs would be served.
        withdraw(layout, &partials)?;
        for partial in partials.iter().filter(|partial| !partial.join("parts").exists()) {
            layout.discard(partial)?;
        }
    }
    if !same_boot && let Err(error) = layout.replace(&layout.boot(), boot.as_bytes()) {
        // Then the next process is careful too.
        tracing::error!(error = %error.report(), "the cache can't note that the machine was started anew");
    }
    Ok(committed)
}

/// Takes the blobs that were made of these partials out of the cache, and with them every snapshot that has one. The
/// partials stay, and can be resumed.
pub(super) fn withdraw(layout: &Layout, partials: &[PathBuf]) -> Result<()> {
    let failed =
        |error| Error::io(format!("can't take content out of the cache at {}", layout.root().display()), error);
    let inodes: HashSet<u64> = partials
        .iter()
        .filter_map(|partial| fs::symlink_metadata(partial.join("data")).ok())
        .map(|m| m.ino())
        .collect();
    let mut digests = BTreeSet::new();
    for directory in fs::read_dir(layout.blobs()).map_err(failed)? {
        let directory = directory.map_err(failed)?;
        if !directory.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        for blob in fs::read_dir(directory.path()).map_err(failed)? {
            let blob = blob.map_err(failed)?;
            if inodes.contains(&blob.ino()) {
                digests.extend(named_after(&blob.path()));
            }
        }
    }
    // Snapshots first: there is never one whose blob is gone.
    for directory in snapshot::containing(layout, &digests).map_err(failed)? {
        layout.discard(&directory)?;
    }
    for digest in digests {
        layout.discard(&layout.blob(digest))?;
    }
    for partial in partials {
        match fs::set_permissions(partial.join("data"), Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

fn is_read_only(error: &Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn empty_trash(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.trash())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}
