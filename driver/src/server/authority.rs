//! Lets clients in that send the path of the socket as `:authority`.
//!
//! Over a unix socket there is no authority; grpc-java and older releases of grpc-go send the socket's path, and grpc's
//! C core (Python, C++) sends it percent-encoded. Neither is a valid authority, so the `h2` crate resets the stream with
//! PROTOCOL_ERROR before any of our code is asked (hyperium/h2#487), and offers no way to be more lenient. This
//! plugin never looks at the authority. So each literal `:authority` in a request is replaced by a harmless one while
//! the bytes are on their way to `h2`.
//!
//! HPACK (RFC 7541) numbers the headers that were sent before, and so must both ends: a replaced header stays in the
//! table of the receiver, just with another value. The replacement is as short as can be, so that the receiver's table
//! never holds less than the sender's, and every number means the same header on both ends.
//!
//! Nothing else is changed. What is not understood passes as it is: to refuse it is `h2`'s task. Not covered: an empty
//! authority (a longer one would break the numbering), and a name that refers to an earlier entry of the dynamic table,
//! which no encoder does for a name of the static table.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Largest frame that every receiver accepts, and the largest that `h2` accepts unless told otherwise.
const MAX_FRAME: usize = 16_384;

/// Headers beyond this are not looked into. Ours are a few hundred bytes.
const MAX_HELD: usize = 4 * MAX_FRAME;

/// `:authority` in HPACK's static table, spelt out, and spelt out in its Huffman code.
const STATIC_INDEX: usize = 1;
const NAME: &[u8] = b":authority";
const NAME_HUFFMAN: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";

/// The replacement, as an HPACK string: one byte long, not Huffman-coded.
const REPLACEMENT: &[u8] = b"\x01x";

/// Rewrites what a client sends, in pieces of any size.
#[derive(Debug)]
struct Rewriter {
    state: State,
    /// A header block that is not complete yet, as it came: one HEADERS and its CONTINUATIONs.
    held: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// So many bytes pass without a look.
    Pass(usize),
    /// The head of a frame is being collected.
    Head(Vec<u8>),
    /// So many bytes of a frame with headers are still to be held.
    Hold(usize),
    /// Not HTTP/2 as we know it: everything passes from here on.
    Verbatim,
}

impl Rewriter {
    fn new() -> Self {
        Self { state: State::Pass(PREFACE), held: Vec::new() }
    }

    fn push(&mut self, mut input: &[u8], output: &mut Vec<u8>) {
        while !input.is_empty() {
            let taken = match &mut self.state {
                State::Verbatim => {
                    output.extend_from_slice(input);
                    return;
                }
                State::Pass(left) => {
                    let taken = input.len().min(*left);
                    output.extend_from_slice(&input[..taken]);
                    *left -= taken;
                    taken
                }
                State::Head(head) => {
                    let taken = input.len().min(FRAME_HEAD - head.len());
                    head.extend_from_slice(&input[..taken]);
                    taken
                }
                State::Hold(left) => {
                    let taken = input.len().min(*left);
                    self.held.extend_from_slice(&input[..taken]);
                    *left -= taken;
                    taken
                }
            };
            input = &input[taken..];
            self.advance(output);
        }
    }

    /// Goes to the next state as long as the present one is complete.
    fn advance(&mut self, output: &mut Vec<u8>) {
        match &mut self.state {
            State::Pass(0) => self.state = State::Head(Vec::with_capacity(FRAME_HEAD)),
            State::Head(head) if head.len() == FRAME_HEAD => {
                let head = std::mem::take(head);
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let begins = head[3] == HEADERS && self.held.is_empty();
                let goes_on = head[3] == CONTINUATION && !self.held.is_empty();
                if begins || goes_on {
                    self.held.extend_from_slice(&head);
                    self.state = State::Hold(length);
                    if length > MAX_FRAME || self.held.len() + length > MAX_HELD {
                        self.give_up(output);
                    }
                } else if self.held.is_empty() {
                    output.extend_from_slice(&head);
                    self.state = State::Pass(length);
                } else {
                    // Nothing may come in between the parts of a block.
                    self.held.extend_from_slice(&head);
                    self.give_up(output);
                }
                self.advance_if_empty(output);
            }
            State::Hold(0) => {
                if ends_block(&self.held) {
                    match rewrite_frames(&self.held) {
                        Some(frames) => output.extend_from_slice(&frames),
                        None => output.extend_from_slice(&self.held),
                    }
                    self.held.clear();
                }
                self.state = State::Head(Vec::with_capacity(FRAME_HEAD));
            }
            _ => {}
        }
    }

    /// A frame without payload is complete as soon as its head is.
    fn advance_if_empty(&mut self, output: &mut Vec<u8>) {
        if matches!(self.state, State::Pass(0) | State::Hold(0)) {
            self.advance(output);
        }
    }

    fn give_up(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.held);
        self.state = State::Verbatim;
    }
}

struct Frame<'a> {
    flags: u8,
    stream: &'a [u8],
    payload: &'a [u8],
}

/// The frames of a held block.
fn frames(mut held: &[u8]) -> Option<Vec<Frame<'_>>> {
    let mut frames = Vec::new();
    while !held.is_empty() {
        let (head, rest) = held.split_at_checked(FRAME_HEAD)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, rest) = rest.split_at_checked(length)?;
        frames.push(Frame { flags: head[4], stream: &head[5..], payload });
        held = rest;
    }
    Some(frames)
}

fn ends_block(held: &[u8]) -> bool {
    frames(held).is_none_or(|frames| frames.last().is_some_and(|frame| frame.flags & END_HEADERS != 0))
}

/// The same block with another authority, in frames of its own; `None` if there is nothing to replace.
fn rewrite_frames(held: &[u8]) -> Option<Vec<u8>> {
    let frames = frames(held)?;
    let &Frame { flags, stream, payload: mut first } = frames.first()?;
    if flags & PADDED != 0 {
        let (padding, rest) = first.split_first()?;
        first = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    let (priority, fragment) = first.split_at_checked(if flags & PRIORITY == 0 { 0 } else { 5 })?;
    let mut block = fragment.to_vec();
    frames[1..].iter().for_each(|frame| block.extend_from_slice(frame.payload));

    let mut payload = priority.to_vec();
    payload.extend(replace_authority(&block)?);
    let mut written = Vec::with_capacity(payload.len() + 2 * FRAME_HEAD);
    let last = payload.chunks(MAX_FRAME).count().saturating_sub(1);
    for (index, chunk) in payload.chunks(MAX_FRAME).enumerate() {
        let (kind, kept) = if index == 0 { (HEADERS, flags & !(PADDED | END_HEADERS)) } else { (CONTINUATION, 0) };
        let end = if index == last { END_HEADERS } else { 0 };
        let length = (chunk.len() as u32).to_be_bytes();
        written.extend([length[1], length[2], length[3], kind, kept | end]);
        written.extend_from_slice(stream);
        written.extend_from_slice(chunk);
    }
    Some(written)
}

/// The same header block with another authority; `None` if it holds no literal one, or is not HPACK.
fn replace_authority(block: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while at < block.len() {
        let first = block[at];
        // RFC 7541, section 6: the leading bits tell the kind, and how many bits of the byte belong to the number.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, after) = integer(block, at, prefix)?;
        at = after;
        if !literal {
            continue;
        }
        let mut is_authority = index == STATIC_INDEX;
        if index == 0 {
            let (huffman, name, after) = string(block, at)?;
            is_authority = name == if huffman { NAME_HUFFMAN } else { NAME };
            at = after;
        }
        let (_, value, after) = string(block, at)?;
        if is_authority && !value.is_empty() {
            replaced.extend_from_slice(&block[copied..at]);
            replaced.extend_from_slice(REPLACEMENT);
            copied = after;
        }
        at = after;
    }
    if copied == 0 {
        return None;
    }
    replaced.extend_from_slice(&block[copied..]);
    Some(replaced)
}

/// An HPACK string: whether it is Huffman-coded, its bytes, and where it ends.
fn string(block: &[u8], at: usize) -> Option<(bool, &[u8], usize)> {
    let huffman = block.get(at)? & 0x80 != 0;
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length)?;
    Some((huffman, block.get(start..end)?, end))
}

/// An HPACK integer with so many bits in its first byte, and where it ends.
fn integer(block: &[u8], mut at: usize, prefix: u32) -> Option<(usize, usize)> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & mask;
    at += 1;
    if value < mask {
        return Some((value, at));
    }
    // Four more bytes are 28 bits: larger than any block that gets here.
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(at)?;
        at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// A connection of a client whose `:authority` does not matter.
#[derive(Debug)]
pub(super) struct Lenient<IO> {
    io: IO,
    rewriter: Rewriter,
    ready: Vec<u8>,
    given: usize,
}

impl<IO> Lenient<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, rewriter: Rewriter::new(), ready: Vec::new(), given: 0 }
    }
}

impl<IO: Connected> Connected for Lenient<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lenient<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.given == this.ready.len() {
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.given = 0;
            this.rewriter.push(chunk.filled(), &mut this.ready);
        }
        let given = buf.remaining().min(this.ready.len() - this.given);
        buf.put_slice(&this.ready[this.given..this.given + given]);
        this.given += given;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Lenient<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
