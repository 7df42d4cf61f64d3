//! Who may unpack: the bound on what all fetches of a process take for it together.
//!
//! An archive says how much memory it takes to read, and whoever made it may want this process to have none left. Most take
//! little, and are unpacked while they arrive, a few at a time. One that takes more, or that finds no turn, is unpacked when
//! all of it is there, alone: whoever has that turn waits for nobody, so that servers that stall keep nobody from unpacking.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::follow::Follow;
use crate::error::{Error, ErrorKind, Result};
use crate::unpack::Memory;

/// Files that are unpacked in [`Memory::Little`] at a time. Each takes a processor as well.
const FOLLOWING: usize = 4;

/// Turns to unpack, for all fetches of a process.
#[derive(Debug)]
pub(super) struct Unpackers {
    following: Arc<Semaphore>,
    alone: Arc<Semaphore>,
}

/// The right to unpack one file. Whoever holds it asks for no other right, so that it is given back some time.
#[derive(Debug)]
pub(super) struct Turn {
    memory: Memory,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// What the unpacking may take.
    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

impl Unpackers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { following: Arc::new(Semaphore::new(FOLLOWING)), alone: Arc::new(Semaphore::new(1)) })
    }

    /// Waits for a turn to unpack a file: in little memory while it arrives, or in much when it is complete.
    pub(super) async fn any(&self, follow: &Follow) -> Result<Turn> {
        let following = pin!(Arc::clone(&self.following).acquire_owned());
        let alone = pin!(self.alone(follow));
        match select(following, alone).await {
            Either::Left((permit, _)) => turn(Memory::Little, permit),
            Either::Right((turn, _)) => turn,
        }
    }

    /// Waits until a file is complete, and for the turn to unpack it in much memory.
    pub(super) async fn alone(&self, follow: &Follow) -> Result<Turn> {
        follow.completed().await;
        turn(Memory::Much, Arc::clone(&self.alone).acquire_owned().await)
    }
}

fn turn(memory: Memory, permit: Result<OwnedSemaphorePermit, AcquireError>) -> Result<Turn> {
    match permit {
        Ok(permit) => Ok(Turn { memory, _permit: permit }),
        Err(error) => Err(Error::with_source(ErrorKind::Cancelled, "closing", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// Polls once.
    fn now(turn: impl Future<Output = Result<Turn>>) -> Option<Turn> {
        turn.now_or_never().map(Result::unwrap)
    }

    #[test]
    fn much_memory_is_taken_once_at_a_time_and_never_while_a_file_arrives() {
        let unpackers = Unpackers::new();
        let (arriving, here) = (Follow::default(), Follow::default());
        here.complete(1);
        let stalled: Vec<_> = (0..FOLLOWING).map(|_| now(unpackers.any(&arriving)).unwrap()).collect();
        assert!(stalled.iter().all(|turn| turn.memory() == Memory::Little));
        assert!(now(unpackers.any(&arriving)).is_none() && now(unpackers.alone(&arriving)).is_none());

        let first = now(unpackers.any(&here)).expect("what is complete waits for no server");
        assert_eq!(first.memory(), Memory::Much);
        let mut second = pin!(unpackers.alone(&here));
        assert!(now(second.as_mut()).is_none(), "two would take twice as much");
        drop(first);
        assert_eq!(now(second.as_mut()).unwrap().memory(), Memory::Much);

        arriving.complete(1);
        let mut late = pin!(unpackers.any(&arriving));
        assert_eq!(now(late.as_mut()).unwrap().memory(), Memory::Much);
    }
}
