//! What stands between a file and the libraries that decode it: keeps errors as they were, and bounds what comes out.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Memory, outgrown};
use crate::error::{Error, ErrorKind, Result};

/// Most bytes that come of one. Deflate can't do more than 1032; the weights of a model compress by less than 2.
const MOST_RATIO: u64 = 1000;
/// From here on the ratio counts: whatever is smaller does no harm.
const HARMLESS: u64 = 1 << 30;

/// What a reading of an archive has come to, shared by those who read, decode and take.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    memory: Memory,
    read: AtomicU64,
    made: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl Meter {
    pub(super) fn new(memory: Memory) -> Self {
        Self(Arc::new(Counts { memory, read: AtomicU64::new(0), made: AtomicU64::new(0), failure: Mutex::default() }))
    }

    /// What the reading may take.
    pub(super) fn memory(&self) -> Memory {
        self.0.memory
    }

    /// Counts bytes that were made of those read so far.
    pub(super) fn made(&self, bytes: u64) -> Result<()> {
        let made = self.0.made.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let read = self.0.read.load(Ordering::Relaxed);
        if made > HARMLESS && made / MOST_RATIO > read {
            let text = format!("it grows to more than {MOST_RATIO} times its size, as no model does");
            return Err(Error::new(ErrorKind::FailedPrecondition, text));
        }
        Ok(())
    }

    /// The error behind one that came through a library, each of which wraps errors in its own way.
    pub(super) fn failure(&self, error: io::Error) -> Error {
        if let Some(failure) = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return failure;
        }
        match error.kind() {
            io::ErrorKind::OutOfMemory if self.0.memory == Memory::Little => outgrown(),
            io::ErrorKind::UnexpectedEof => Error::new(ErrorKind::Corrupt, "it is cut short"),
            _ => Error::with_source(ErrorKind::Corrupt, "it is damaged", error),
        }
    }

    fn note(&self, error: io::Error) -> io::Error {
        let (kind, text) = (error.kind(), error.to_string());
        let failure = match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::io("can't read it", error),
        };
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        io::Error::new(kind, text)
    }
}

/// The bytes of the file itself.
#[derive(Debug)]
pub(super) struct Input<R> {
    inner: R,
    meter: Meter,
}

impl<R> Input<R> {
    pub(super) fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.meter.0.read.fetch_add(read as u64, Ordering::Relaxed);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.meter.note(error)),
        }
    }
}

impl<R: Seek> Seek for Input<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to).map_err(|error| self.meter.note(error))
    }
}

/// Fills `buffer` as far as there are bytes.
pub(super) fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
