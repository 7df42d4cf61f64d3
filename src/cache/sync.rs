//! Brings committed content to the disk, in the background, and then removes the partial that stood for its being
//! underway: see "Power loss" in the [cache's documentation](super).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::blob;
use super::layout::Layout;
use super::recover::withdraw;
use crate::manifest::Digest;

/// From so many files on, flushing the file system is cheaper than flushing each.
const MANY: usize = 32;

/// A thread that flushes. It ends with the cache: nothing of it may meet the next one to be opened.
#[derive(Debug)]
pub(super) struct Syncer {
    queue: Option<Sender<Digest>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(layout: Layout) -> Self {
        let (queue, committed) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::Builder::new().name("flush".into()).spawn(move || run(&layout, &committed, &stop));
        match thread {
            Ok(thread) => Self { queue: Some(queue), stopped, thread: Some(thread) },
            Err(error) => {
                // Nothing is lost: the partials stay, and the next start flushes them.
                tracing::error!(%error, "no thread to flush the cache's content to the disk");
                Self { queue: None, stopped, thread: None }
            }
        }
    }

    /// Asks for the content of this origin, which was committed, to be brought to the disk.
    pub(super) fn enqueue(&self, origin: Digest) {
        if let Some(queue) = &self.queue {
            // The thread ends only with this.
            let _ = queue.send(origin);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        // What is left in the queue stays as partials, which the next start flushes.
        self.stopped.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // That it panicked has been reported by then.
            let _ = thread.join();
        }
    }
}

fn run(layout: &Layout, committed: &Receiver<Digest>, stopped: &AtomicBool) {
    while let Ok(first) = committed.recv() {
        let batch: Vec<Digest> = std::iter::once(first).chain(committed.try_iter()).collect();
        let together = batch.len() >= MANY && !stopped.load(Ordering::Relaxed) && flush_all(layout).is_ok();
        for origin in batch {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            if !is_committed(layout, origin) {
                continue;
            }
            let flushed = if together { Ok(()) } else { flush(layout, origin) };
            match flushed {
                Ok(()) => {
                    if let Err(error) = layout.discard(&layout.partial(origin)) {
                        tracing::warn!(error = %error.report(), "a finished download can't be tidied up");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // The kernel has dropped the pages that it could not write: what is read from now on may be
                    // anything, and a second fsync would report success.
                    tracing::error!(%error, "the disk failed to take downloaded content, which is given up");
                    give_up(layout, origin);
                }
            }
        }
    }
}

/// Whether the partial is still the one that a blob was made of, and not the file's next download.
fn is_committed(layout: &Layout, origin: Digest) -> bool {
    fs::symlink_metadata(layout.partial(origin).join("data")).is_ok_and(|data| data.nlink() > 1)
}

fn flush(layout: &Layout, origin: Digest) -> io::Result<()> {
    File::open(layout.partial(origin).join("data"))?.sync_data()?;
    let blob = blob::content(layout, origin).map(|(digest, _)| layout.blob(digest));
    if let Some(directory) = blob.as_deref().and_then(Path::parent) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn flush_all(layout: &Layout) -> io::Result<()> {
    nix::unistd::syncfs(&File::open(layout.root())?).map_err(io::Error::from)
}

fn give_up(layout: &Layout, origin: Digest) {
    let partial = layout.partial(origin);
    let result = withdraw(layout, std::slice::from_ref(&partial)).and_then(|()| layout.discard(&partial));
    if let Err(error) = result {
        tracing::error!(error = %error.report(), "content that the disk lost can't be removed from the cache");
    }
}
