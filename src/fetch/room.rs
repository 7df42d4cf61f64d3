//! Room for what nobody knows the size of: asked for as it arrives, in steps.

use super::job::Sink;
use crate::error::Result;

/// How much room is asked for at a time.
const STEP: u64 = 4 << 20;

/// Room that was asked for and not used yet.
pub(super) struct Room<'a, S> {
    sink: &'a S,
    left: u64,
}

impl<'a, S: Sink> Room<'a, S> {
    pub(super) fn new(sink: &'a S) -> Self {
        Self { sink, left: 0 }
    }

    /// Takes room for `bytes` that are written next; asks for more when none is left.
    ///
    /// # Errors
    /// [`crate::ErrorKind::ResourceExhausted`], with the figures.
    pub(super) fn take(&mut self, bytes: u64) -> Result<()> {
        while self.left < bytes {
            self.sink.make_room(STEP)?;
            self.left += STEP;
        }
        self.left -= bytes;
        Ok(())
    }
}
