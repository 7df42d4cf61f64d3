//! Members of an archive on their way: files in a directory, hashed as they are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::follow::Follow;
use super::job::Sink;
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;
use crate::unpack::{Member, Receiver};

/// What an empty file costs, about.
const FILE: u64 = 4 << 10;

/// Takes members, each into a file of its own that is named by [`Member::origin`].
pub(super) struct Scratch<'a, S> {
    directory: &'a Path,
    key: Digest,
    follow: &'a Follow,
    current: Option<Current>,
    done: Vec<Member>,
    room: Room<'a, S>,
}

struct Current {
    path: PathBuf,
    file: File,
    sha: Sha256,
    size: u64,
}

impl<'a, S: Sink> Scratch<'a, S> {
    /// Empties `directory`.
    pub(super) fn new(directory: &'a Path, key: Digest, sink: &'a S, follow: &'a Follow) -> Result<Self> {
        let empty = || {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::create_dir_all(directory)
        };
        empty().map_err(|error| Error::io(format!("can't make {}", directory.display()), error))?;
        Ok(Self { directory, key, follow, current: None, done: Vec::new(), room: Room::new(sink) })
    }

    /// What was taken, by number.
    pub(super) fn into_members(self) -> Vec<Member> {
        self.done
    }
}

impl<S: Sink> Receiver for Scratch<'_, S> {
    fn begin(&mut self) -> Result<()> {
        self.follow.check()?;
        self.room.take(FILE)?;
        let path = self.directory.join(Member::origin(self.key, self.done.len()).hex());
        let file = File::options().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io(format!("can't create {}", path.display()), error))?;
        self.current = Some(Current { path, file, sha: Sha256::new(), size: 0 });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.follow.check()?;
        self.room.take(bytes.len() as u64)?;
        let Some(current) = &mut self.current else { return Err(out_of_order()) };
        let written = current.file.write_all(bytes);
        written.map_err(|error| Error::io(format!("can't write to {}", current.path.display()), error))?;
        current.sha.update(bytes);
        current.size += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(Current { sha, size, .. }) = self.current.take() else { return Err(out_of_order()) };
        self.done.push(Member::new(self.key, self.done.len(), Digest::from_hasher(sha), size));
        Ok(())
    }
}

fn out_of_order() -> Error {
    Error::new(ErrorKind::Internal, "content of no member")
}

/// Ends the following of a download when it is dropped.
pub(super) struct Abandon(pub(super) Arc<Follow>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
