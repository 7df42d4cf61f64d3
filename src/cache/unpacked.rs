//! What archives were unpacked to, so that they are fetched and unpacked once, for all volumes that want them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::blob;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::manifest::Digest;
use crate::unpack::{Member, Unpacked};

/// In the partial of an archive: the key of the record that makes the archive superfluous.
const DONE: &str = "unpacked";

/// What the record says, if all its blobs are here. A power loss may have left it empty: then it says nothing.
pub(super) fn known(layout: &Layout, key: Digest) -> Option<Unpacked<Member>> {
    let record = fs::read(layout.unpacked(key)).ok()?;
    let unpacked: Unpacked<Member> = serde_json::from_slice(&record).ok()?;
    let is_here = |member: &Member| {
        fs::symlink_metadata(layout.blob(member.digest)).is_ok_and(|blob| blob.is_file() && blob.len() == member.size)
    };
    unpacked.files.values().all(is_here).then_some(unpacked)
}

/// Makes blobs of members, notes them, and removes the archive's partial. Killed at any step, it leaves either the archive
/// or the record; what it had committed by then is found by its content when it is repeated.
pub(super) fn commit(
    layout: &Layout,
    archive: Digest,
    key: Digest,
    unpacked: &Unpacked<Member>,
    flush: impl Fn(Digest),
) -> Result<()> {
    let scratch = layout.partial(key);
    let failed = |error| Error::io(format!("can't store what was unpacked in {}", scratch.display()), error);
    let mut committed = BTreeSet::new();
    for member in unpacked.files.values() {
        // Two names of one file.
        if !committed.insert(member.origin) {
            continue;
        }
        // The member's own partial, in which it waits for being flushed: see "Power loss" in the cache's documentation.
        let partial = layout.partial(member.origin);
        layout.discard(&partial)?;
        fs::create_dir(&partial).map_err(failed)?;
        fs::rename(scratch.join(member.origin.hex()), partial.join("data")).map_err(failed)?;
        blob::commit(layout, member.origin, member.digest, member.size)?;
        flush(member.origin);
    }
    // The mark first: alone it means nothing.
    match fs::write(layout.partial(archive).join(DONE), key.hex()) {
        // The archive was a blob, or the download left no trace.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let record = layout.unpacked(key);
    blob::make_parent(&record).map_err(failed)?;
    let text = serde_json::to_vec(unpacked).map_err(|error| failed(error.into()))?;
    layout.replace(&record, &text)?;
    layout.discard(&scratch)?;
    layout.discard(&layout.partial(archive))
}

/// Whether this partial is an archive's whose members are all noted.
pub(super) fn is_done(layout: &Layout, partial: &Path) -> bool {
    let key = fs::read_to_string(partial.join(DONE)).ok().and_then(|hex| Digest::from_hex(&hex));
    key.is_some_and(|key| layout.unpacked(key).exists())
}
