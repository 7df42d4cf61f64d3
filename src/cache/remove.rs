//! The end of a cache: everything that it has made on the disk goes, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use super::layout::{DIRECTORIES, Layout, STAGING};
use super::lease::Leases;
use super::lock;
use crate::error::{Error, ErrorKind, Result};

/// Removes the cache at `root`, and `root` itself unless something foreign lies in it. Repeated after an interruption,
/// it goes on.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::FailedPrecondition`] when a plugin has it open, or volumes
/// have models of it and `in_use_too` is not set; [`ErrorKind::Io`].
pub fn remove(root: &Path, in_use_too: bool) -> Result<()> {
    let layout = Layout::existing(root)?;
    let lock = lock(&layout.lock())?;
    layout.check_version()?;
    let leases = if layout.leases().is_dir() { Leases::load(layout.leases())?.count() } else { 0 };
    if leases > 0 && !in_use_too {
        let text = format!(
            "{leases} volume(s) still have models of the cache at {}: delete their pods while the plugin runs, or give \
             --force if those pods are gone",
            root.display()
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, text));
    }
    let failed = |error| Error::io(format!("can't remove the cache at {}", root.display()), error);
    for name in DIRECTORIES.iter().chain([&STAGING]) {
        // The first component: "blobs", not "blobs/sha256".
        let directory = root.join(name.split('/').next().unwrap_or(name));
        absent(fs::remove_dir_all(directory)).map_err(failed)?;
    }
    absent(fs::remove_file(layout.boot())).map_err(failed)?;
    // That a cache is here is forgotten only now: until then an interrupted removal can be repeated.
    absent(fs::remove_file(layout.mark())).map_err(failed)?;
    absent(fs::remove_file(layout.lock())).map_err(failed)?;
    drop(lock);
    match fs::remove_dir(root) {
        Ok(()) => Ok(()),
        // Something that is not the cache's, or a disk of the operator's is mounted there.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
