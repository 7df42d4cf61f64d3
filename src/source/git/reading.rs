//! What a server sends of a repository, while it arrives: a pack, and the one blob in it.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::Response;

use super::message;
use super::object::{Hasher, Id, Kind};
use super::pack::{Body, Event, Parser};
use super::packet::{self, Packet, Packets};
use super::remote::Remote;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{network_error, origin_text};
use crate::uri::ModelUri;

/// Bytes that are inflated at once, to a thousand times as many at most.
const AT_ONCE: usize = 1 << 10;
const MISMATCH: &str = "has a file whose bytes are not those of its object id";

/// A pack as it arrives, out of the packets that it comes in.
pub(super) struct Pack {
    answer: Response,
    pub(super) host: String,
    packets: Packets,
    begun: bool,
    ended: bool,
}

impl Pack {
    pub(super) fn new(answer: Response) -> Self {
        let host = origin_text(answer.url());
        Self { answer, host, packets: Packets::default(), begun: false, ended: false }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self, uri: &ModelUri) -> Result<Option<Bytes>> {
        let wrong = |host: &str, problem: String| {
            let kind = if problem.contains("not our ref") { ErrorKind::NotFound } else { ErrorKind::Unavailable };
            Error::new(kind, format!("{uri} can't be fetched from {host}: {problem}"))
        };
        while !self.ended {
            let next = self.packets.next().map_err(|problem| wrong(&self.host, problem))?;
            match next {
                Some(Packet::Data(data)) if self.begun => match data.split_first() {
                    Some((1, _)) => return Ok(Some(data.slice(1..))),
                    Some((2, _)) => {}
                    Some((3, words)) => return Err(wrong(&self.host, message::refusal(&packet::text(words)))),
                    _ => return Err(wrong(&self.host, "its answer is not git's protocol".to_owned())),
                },
                Some(Packet::Data(data)) => match packet::text(&data) {
                    text if text == "packfile" => self.begun = true,
                    text => {
                        if let Some(words) = text.strip_prefix("ERR ") {
                            return Err(wrong(&self.host, message::refusal(words)));
                        }
                    }
                },
                Some(Packet::Flush) => self.ended = true,
                Some(_) => {}
                None => match self.answer.chunk().await {
                    Ok(Some(chunk)) => self.packets.push(&chunk),
                    Ok(None) => return Err(wrong(&self.host, "its answer breaks off".to_owned())),
                    Err(error) => return Err(network_error(&self.host, error).within(uri)),
                },
            }
        }
        Ok(None)
    }
}

/// A blob on its way.
pub(super) struct Reading {
    remote: Remote,
    pack: Pack,
    parser: Parser,
    /// Of the last piece of the pack, what is not inflated yet.
    rest: Bytes,
    id: Id,
    hasher: Option<Hasher>,
    /// What has arrived. The last piece is held back until all is verified.
    ready: VecDeque<Bytes>,
    complete: bool,
}

impl Reading {
    /// The blob `id`, which is all that `pack` has.
    pub(super) fn new(remote: Remote, pack: Pack, id: Id) -> Self {
        let (parser, ready) = (Parser::new(id.format()), VecDeque::new());
        Self { remote, pack, parser, rest: Bytes::new(), id, hasher: None, ready, complete: false }
    }

    /// The next bytes, and what reads those after them.
    pub(super) async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        while !self.complete && self.ready.len() < 2 {
            if self.rest.is_empty() {
                let Some(piece) = self.pack.next(&self.remote.uri).await? else {
                    return Err(self.remote.nonsense(&self.pack.host, "its pack breaks off"));
                };
                self.rest = piece;
            }
            let piece = self.rest.split_to(self.rest.len().min(AT_ONCE));
            self.take(&piece)?;
        }
        Ok(self.ready.pop_front().map(|bytes| (bytes, self)))
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        let Self { parser, id, hasher, ready, complete, .. } = self;
        let result = parser.push(piece, &mut |event| {
            match event {
                Event::Begin { body: Body::Whole(Kind::Blob), size, .. } if hasher.is_none() && !*complete => {
                    *hasher = Some(Hasher::new(id.format(), Kind::Blob, size));
                }
                Event::Begin { .. } => return Err("it sent something else than the file that was asked for".to_owned()),
                Event::Bytes(bytes) => {
                    if let Some(hasher) = hasher {
                        hasher.update(bytes);
                    }
                    ready.push_back(Bytes::copy_from_slice(bytes));
                }
                Event::End => {
                    if hasher.take().and_then(Hasher::finish).as_ref() != Some(id) {
                        return Err(MISMATCH.to_owned());
                    }
                    *complete = true;
                }
            }
            Ok(())
        });
        result.map_err(|problem| match problem.as_str() {
            MISMATCH => self.remote.error(ErrorKind::Corrupt, format!("{MISMATCH}: {}", self.id)),
            _ => self.remote.nonsense(&self.pack.host, &problem),
        })
    }
}
