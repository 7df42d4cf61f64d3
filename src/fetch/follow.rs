//! A file that is read from its beginning while it is still being downloaded.
//!
//! The download tells how far the file is complete; the reader, on a thread of its own, waits there. It sees the file's end
//! only after the whole file was verified. When the download begins anew, so must the reader, whose next read fails.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};

/// What download and reader share.
#[derive(Debug, Default)]
pub(super) struct Follow {
    state: Mutex<State>,
    changed: Condvar,
    /// [`State::complete`], for those who may not block.
    completed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes from the beginning on that are there.
    front: u64,
    /// How often the download was begun.
    attempt: u32,
    /// The file is whole and verified: its size is `front`.
    complete: bool,
    abandoned: bool,
}

impl Follow {
    /// A file that is complete already.
    pub(super) fn complete_file(file: File, size: u64) -> Arc<Self> {
        let follow = Arc::new(Self::default());
        follow.begin(file);
        follow.complete(size);
        follow
    }

    /// The download begins, or begins anew, in `file`.
    pub(super) fn begin(&self, file: File) {
        let mut state = self.lock();
        (state.file, state.front) = (Some(Arc::new(file)), 0);
        state.attempt += 1;
        self.changed.notify_all();
    }

    /// The file is there up to `front`.
    pub(super) fn advance(&self, front: u64) {
        let mut state = self.lock();
        state.front = state.front.max(front);
        self.changed.notify_all();
    }

    /// All of it is there and verified.
    pub(super) fn complete(&self, size: u64) {
        let mut state = self.lock();
        (state.front, state.complete) = (size, true);
        self.changed.notify_all();
        self.completed.send_replace(true);
    }

    /// Waits until all of it is there and verified, if ever.
    pub(super) async fn completed(&self) {
        // It lives as long as its sender, which is here.
        let _ = self.completed.subscribe().wait_for(|completed| *completed).await;
    }

    /// Nobody wants it any more.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.changed.notify_all();
    }

    /// An error, when nobody wants it any more.
    pub(super) fn check(&self) -> Result<()> {
        if self.lock().abandoned { Err(given_up()) } else { Ok(()) }
    }

    /// A reader of the attempt that is under way, or of the first.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let attempt = self.lock().attempt.max(1);
        Reader { follow: Arc::clone(self), attempt, position: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads behind the download. Blocks.
#[derive(Debug)]
pub(super) struct Reader {
    follow: Arc<Follow>,
    attempt: u32,
    position: u64,
}

impl Reader {
    /// Whether the download has begun anew, so that what was read must be read again.
    pub(super) fn is_stale(&self) -> bool {
        self.follow.lock().attempt > self.attempt
    }

    /// Waits until the file is complete, and returns its size.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when it was given up, or begun anew.
    pub(super) fn wait_complete(&self) -> Result<u64> {
        self.wait(|state| state.complete).map(|(_, size)| size)
    }

    /// Waits until something is true of the file; returns it and how far it is there.
    fn wait(&self, until: impl Fn(&State) -> bool) -> Result<(Arc<File>, u64)> {
        let mut state = self.follow.lock();
        loop {
            if state.abandoned || state.attempt > self.attempt {
                return Err(given_up());
            }
            match &state.file {
                Some(file) if until(&state) => return Ok((Arc::clone(file), state.front)),
                _ => state = self.follow.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        let (file, front) = self.wait(|state| state.complete || state.front > position).map_err(io::Error::other)?;
        let length = (buffer.len() as u64).min(front.saturating_sub(position)) as usize;
        let read = file.read_at(&mut buffer[..length], position)?;
        if read == 0 && length > 0 {
            return Err(io::Error::other(Error::new(ErrorKind::Io, "what was downloaded is gone from the disk")));
        }
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.wait_complete().map_err(io::Error::other)?.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Cancelled, "the download was given up")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    #[test]
    fn a_reader_sees_what_is_there_and_the_end_when_it_is_complete() {
        let follow = Arc::new(Follow::default());
        let mut reader = follow.reader();
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).map(|_| all)
            });
            follow.begin(file(b"0123456789"));
            for front in [1, 4, 4, 10] {
                follow.advance(front);
            }
            assert!(!read.is_finished(), "its end is not known");
            follow.complete(10);
            assert_eq!(read.join().unwrap().unwrap(), b"0123456789");
        });
        let mut late = follow.reader();
        assert_eq!(late.seek(SeekFrom::End(-3)).unwrap(), 7);
        let mut rest = String::new();
        late.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "789");
    }

    #[test]
    fn a_reader_never_mixes_two_attempts() {
        let follow = Arc::new(Follow::default());
        follow.begin(file(b"old"));
        follow.advance(3);
        let (mut reader, mut buffer) = (follow.reader(), [0; 2]);
        assert_eq!(reader.read(&mut buffer).unwrap(), 2);
        follow.begin(file(b"new"));
        follow.complete(3);
        let error = reader.read(&mut buffer).unwrap_err().downcast::<Error>().unwrap();
        assert!(error.kind() == ErrorKind::Cancelled && reader.is_stale());
        let mut again = String::new();
        follow.reader().read_to_string(&mut again).unwrap();
        assert_eq!(again, "new");
    }

    #[test]
    fn a_reader_ends_when_nobody_wants_the_file() {
        let follow = Arc::new(Follow::default());
        let mut reader = follow.reader();
        std::thread::scope(|scope| {
            let read = scope.spawn(move || reader.read(&mut [0; 1]).is_err());
            follow.abandon();
            assert!(read.join().unwrap());
        });
        assert!(follow.check().is_err());
    }
}
