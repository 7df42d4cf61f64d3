//! Brings committed content to the disk, in the background, and then removes the partial that stood for its being
//! underway: see "Power loss" in the [cache's documentation](super).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::layout::Layout;
use super::recover::withdraw;
use crate::manifest::Digest;

/// From so many files on, flushing the file system is cheaper than flushing each.
const MANY: usize = 32;

/// A thread that flushes. Dropping it waits for the file that is being flushed, and leaves the others to the next start.
#[derive(Debug)]
pub(super) struct Syncer {
    queue: Option<Sender<Digest>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(layout: Layout) -> Self {
        let (queue, committed) = channel();
        let closing = Arc::<AtomicBool>::default();
        let told = Arc::clone(&closing);
        let thread = std::thread::Builder::new().name("flush".into());
        let thread = thread.spawn(move || run(&layout, &committed, &told));
        let thread = thread.inspect_err(|error| {
            // Nothing is lost: the partials stay, and the next start flushes them.
            tracing::error!(%error, "no thread to flush the cache's content to the disk");
        });
        Self { queue: Some(queue), closing, thread: thread.ok() }
    }

    /// Asks for the content of this origin, which was committed, to be brought to the disk.
    pub(super) fn enqueue(&self, origin: Digest) {
        if let Some(queue) = &self.queue {
            // Without a thread nobody listens: see above.
            let _ = queue.send(origin);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue = None;
        // Whoever opens the cache next must not meet a thread that still tidies up. One that panicked has ended as well.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(layout: &Layout, committed: &Receiver<Digest>, closing: &AtomicBool) {
    while let Ok(first) = committed.recv() {
        let batch: Vec<Digest> = std::iter::once(first).chain(committed.try_iter()).collect();
        let together = batch.len() >= MANY && !closing.load(Ordering::Relaxed) && flush_all(layout).is_ok();
        for origin in batch {
            if closing.load(Ordering::Relaxed) {
                return;
            }
            let flushed = if together { Ok(()) } else { flush(layout, origin) };
            match flushed {
                Ok(()) => tidy(layout, origin),
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

/// Removes the partial of a blob that is on the disk. One without a blob is another download, begun since.
fn tidy(layout: &Layout, origin: Digest) {
    let partial = layout.partial(origin);
    if !fs::symlink_metadata(partial.join("data")).is_ok_and(|data| data.nlink() > 1) {
        return;
    }
    if let Err(error) = layout.discard(&partial) {
        tracing::warn!(error = %error.report(), "a finished download can't be tidied up");
    }
}

fn flush(layout: &Layout, origin: Digest) -> io::Result<()> {
    File::open(layout.partial(origin).join("data"))?.sync_data()?;
    let blob = fs::read_link(layout.origin(origin)).ok().and_then(|target| target.to_str()?.parse().ok());
    if let Some(directory) = blob.map(|digest| layout.blob(digest)).as_deref().and_then(|blob| blob.parent()) {
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
