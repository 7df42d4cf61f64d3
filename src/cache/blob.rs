//! Blobs: one file's content each, under its digest; and origins: which content a version of a file has, and how long it is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::layout::Layout;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;

/// Whether this version of a file, of this size where the source tells it, is here: its digest and size.
pub(super) fn known(layout: &Layout, origin: Digest, size: Option<u64>) -> Option<(Digest, u64)> {
    let (digest, verified) = content(layout, origin)?;
    // The blob may be gone by now: then the link means nothing.
    let blob = fs::symlink_metadata(layout.blob(digest)).ok()?;
    // One of another size is damaged, and not the content that was verified.
    let is_it = blob.is_file() && blob.len() == verified && size.is_none_or(|size| size == verified);
    is_it.then_some((digest, verified))
}

/// The content that this version of a file had when it was verified, and its size, whether or not it is still here.
pub(super) fn content(layout: &Layout, origin: Digest) -> Option<(Digest, u64)> {
    let target = fs::read_link(layout.origin(origin)).ok()?;
    let (digest, size) = target.to_str()?.split_once(' ')?;
    Some((digest.parse().ok()?, size.parse().ok()?))
}

/// Makes a blob of the verified content in the origin's partial, which has `size` bytes. The partial stays, until the content
/// is on the disk.
pub(super) fn commit(layout: &Layout, origin: Digest, digest: Digest, size: u64) -> Result<()> {
    let (partial, blob) = (layout.partial(origin), layout.blob(digest));
    let data = partial.join("data");
    let failed = |error| Error::io(format!("can't store {}", blob.display()), error);
    let written = fs::symlink_metadata(&data).map_err(failed)?.len();
    if written != size {
        layout.discard(&partial)?;
        let text = format!("{} has {written} bytes, and {size} were verified", data.display());
        return Err(Error::new(ErrorKind::Corrupt, text));
    }
    let link = || {
        fs::set_permissions(&data, Permissions::from_mode(0o444))?;
        make_parent(&blob)?;
        // Before the blob: a link without its blob means nothing, but a blob that nobody knows by its origin would be
        // fetched again after a crash between the two.
        point(layout, origin, digest, size)?;
        let was_there = match fs::hard_link(&data, &blob) {
            // Another file of the same content was here first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => !replace_damaged(layout, &data, &blob)?,
            linked => linked.map(|()| false)?,
        };
        Ok(was_there)
    };
    let was_there = link().map_err(failed)?;
    if was_there { layout.discard(&partial) } else { Ok(()) }
}

/// Puts verified content in the place of a blob that has another length, and so has lost its own; tells whether it did.
fn replace_damaged(layout: &Layout, data: &Path, blob: &Path) -> io::Result<bool> {
    if fs::symlink_metadata(blob)?.len() == fs::metadata(data)?.len() {
        return Ok(false);
    }
    tracing::warn!(blob = %blob.display(), "a file in the cache is damaged and is replaced");
    let scratch = layout.scratch();
    fs::hard_link(data, &scratch)?;
    fs::rename(&scratch, blob)?;
    Ok(true)
}

/// Notes which content a version of a file has. A symlink is made whole or not at all, and holds its text in its inode.
fn point(layout: &Layout, origin: Digest, digest: Digest, size: u64) -> io::Result<()> {
    let path = layout.origin(origin);
    make_parent(&path)?;
    let scratch = layout.scratch();
    symlink(format!("{digest} {size}"), &scratch)?;
    fs::rename(&scratch, &path)
}

pub(super) fn make_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Whether two paths are the same file.
pub(super) fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_is_not_as_long_as_what_was_verified_becomes_no_blob() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        let (origin, digest) = (Digest::of("origin"), Digest::of("content"));
        fs::create_dir(layout.partial(origin)).unwrap();
        fs::write(layout.partial(origin).join("data"), "conte").unwrap();
        let error = commit(&layout, origin, digest, 7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.report().contains("has 5 bytes, and 7 were verified"), "{error:?}");
        assert_eq!((known(&layout, origin, None), layout.blob(digest).exists()), (None, false));

        fs::create_dir(layout.partial(origin)).unwrap();
        fs::write(layout.partial(origin).join("data"), "content").unwrap();
        commit(&layout, origin, digest, 7).unwrap();
        assert_eq!(known(&layout, origin, Some(7)), Some((digest, 7)));
    }
}
