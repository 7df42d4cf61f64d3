//! Git's packs (gitformat-pack), read as they arrive: a [`Parser`] that tells what goes by, and [`Objects`] that keeps
//! it, with differences applied.
//!
//! Nothing here checks a pack's own checksum: every object is found by its id, which is the hash of its bytes.

use std::collections::HashMap;

use flate2::{Decompress, FlushDecompress, Status};

use super::delta;
use super::object::{Format, Id, Kind, id_of};

/// What went by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// An object begins, `offset` bytes into the pack. Its bytes are `size`, once inflated.
    Begin {
        offset: u64,
        body: Body,
        size: u64,
    },
    Bytes(&'a [u8]),
    End,
}

/// What an object's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Whole(Kind),
    /// The difference to the object at this offset of the pack.
    Since(u64),
    /// The difference to the object with this id.
    SinceId(Id),
}

enum State {
    Start,
    Header,
    Inflating { inflate: Box<Decompress>, left: u64 },
    End,
}

/// Reads a pack that arrives in pieces.
pub(super) struct Parser {
    format: Format,
    state: State,
    /// Bytes of a header that is not complete yet.
    pending: Vec<u8>,
    /// Offset of the next byte that is taken.
    position: u64,
    objects: u32,
}

/// More than any object's header: its type and size, then an offset or an id.
const MAX_HEADER: usize = 10 + 32;
/// Inflated at once.
const CHUNK: usize = 32 << 10;

impl Parser {
    pub(super) fn new(format: Format) -> Self {
        Self { format, state: State::Start, pending: Vec::new(), position: 0, objects: 0 }
    }

    /// Whether all objects have gone by.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Takes the next piece, and calls `sink` with what it brings.
    pub(super) fn push(
        &mut self,
        mut piece: &[u8],
        sink: &mut dyn FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            match &mut self.state {
                State::Start => {
                    if !self.gather(&mut piece, 12) {
                        return Ok(());
                    }
                    let version =
                        u32::from_be_bytes([self.pending[4], self.pending[5], self.pending[6], self.pending[7]]);
                    if &self.pending[..4] != b"PACK" || !matches!(version, 2 | 3) {
                        return Err("its pack is none that is known".to_owned());
                    }
                    self.objects =
                        u32::from_be_bytes([self.pending[8], self.pending[9], self.pending[10], self.pending[11]]);
                    self.take(12);
                }
                State::Header => {
                    let header = loop {
                        match parse_header(&self.pending, self.position, self.format)? {
                            Some(header) => break header,
                            None if piece.is_empty() => return Ok(()),
                            None if self.pending.len() > MAX_HEADER => return Err(broken()),
                            None => {
                                self.pending.push(piece[0]);
                                piece = &piece[1..];
                            }
                        }
                    };
                    sink(Event::Begin { offset: self.position, body: header.body, size: header.size })?;
                    self.take(header.length);
                    self.state = State::Inflating { inflate: Box::new(Decompress::new(true)), left: header.size };
                }
                State::Inflating { inflate, left } => {
                    if piece.is_empty() {
                        return Ok(());
                    }
                    let mut out = [0; CHUNK];
                    let (before, made) = (inflate.total_in(), inflate.total_out());
                    let status = inflate.decompress(piece, &mut out, FlushDecompress::None).map_err(|_| broken())?;
                    let used = inflate.total_in() - before;
                    let made = inflate.total_out() - made;
                    piece = &piece[used as usize..];
                    self.position += used;
                    *left = left.checked_sub(made).ok_or_else(broken)?;
                    if made > 0 {
                        sink(Event::Bytes(&out[..made as usize]))?;
                    }
                    match status {
                        Status::StreamEnd if *left > 0 => return Err(broken()),
                        Status::StreamEnd => {
                            sink(Event::End)?;
                            self.objects -= 1;
                            self.next();
                        }
                        _ if used == 0 && made == 0 => return Err(broken()),
                        _ => {}
                    }
                }
                // What follows is the pack's checksum.
                State::End => return Ok(()),
            }
        }
    }

    fn next(&mut self) {
        self.state = if self.objects == 0 { State::End } else { State::Header };
    }

    /// Whether `length` bytes are pending; takes what is missing from `piece`.
    fn gather(&mut self, piece: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.pending.len()).min(piece.len());
        self.pending.extend_from_slice(&piece[..missing]);
        *piece = &piece[missing..];
        self.pending.len() == length
    }

    /// The pending bytes, all of which were a header, are dealt with.
    fn take(&mut self, length: usize) {
        self.position += length as u64;
        self.pending.clear();
        self.next();
    }
}

fn broken() -> String {
    "its pack is broken".to_owned()
}

struct Header {
    body: Body,
    size: u64,
    length: usize,
}

/// `None` when more bytes are needed. Reads no byte more than the header has.
fn parse_header(bytes: &[u8], position: u64, format: Format) -> Result<Option<Header>, String> {
    let mut bytes = bytes.iter().copied().enumerate();
    let Some((_, first)) = bytes.next() else { return Ok(None) };
    let (mut size, mut shift, mut byte, mut length) = (u64::from(first & 15), 4, first, 1);
    while byte & 0x80 != 0 {
        let Some((i, next)) = bytes.next() else { return Ok(None) };
        if shift > 57 {
            return Err(broken());
        }
        size |= u64::from(next & 0x7f) << shift;
        (shift, byte, length) = (shift + 7, next, i + 1);
    }
    let body = match first >> 4 & 7 {
        1 => Body::Whole(Kind::Commit),
        2 => Body::Whole(Kind::Tree),
        3 => Body::Whole(Kind::Blob),
        4 => Body::Whole(Kind::Tag),
        6 => {
            let mut back: u64 = 0;
            loop {
                let Some((i, next)) = bytes.next() else { return Ok(None) };
                back = back
                    .checked_mul(128)
                    .and_then(|back| back.checked_add(u64::from(next & 0x7f)))
                    .ok_or_else(broken)?;
                length = i + 1;
                if next & 0x80 == 0 {
                    break;
                }
                back += 1;
            }
            Body::Since(position.checked_sub(back).filter(|_| back > 0).ok_or_else(broken)?)
        }
        7 => {
            let id: Vec<u8> = bytes.by_ref().take(format.len()).map(|(_, byte)| byte).collect();
            if id.len() < format.len() {
                return Ok(None);
            }
            length += format.len();
            Body::SinceId(Id::from_bytes(&id))
        }
        _ => return Err(broken()),
    };
    Ok(Some(Header { body, size, length }))
}

/// The objects of a pack, in memory.
pub(super) struct Objects {
    format: Format,
    /// What may still be kept, in bytes.
    room: u64,
    current: Option<(u64, Body, Vec<u8>)>,
    at: HashMap<u64, usize>,
    by_id: HashMap<Id, usize>,
    all: Vec<(Kind, Vec<u8>)>,
}

/// Why objects could not be kept.
pub(super) const TOO_MUCH: &str = "more than fits into memory";

impl Objects {
    /// Keeps at most `room` bytes of contents.
    pub(super) fn new(format: Format, room: u64) -> Self {
        Self { format, room, current: None, at: HashMap::new(), by_id: HashMap::new(), all: Vec::new() }
    }

    /// Takes what a [`Parser`] tells.
    pub(super) fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Begin { offset, body, size } => {
                self.reserve(size)?;
                // A server may claim any size: room is made as bytes come.
                self.current = Some((offset, body, Vec::new()));
            }
            Event::Bytes(bytes) => {
                let (.., content) = self.current.as_mut().ok_or_else(broken)?;
                content.extend_from_slice(bytes);
            }
            Event::End => {
                let (offset, body, content) = self.current.take().ok_or_else(broken)?;
                let (kind, content) = match body {
                    Body::Whole(kind) => (kind, content),
                    Body::Since(base) => self.apply(self.at.get(&base).copied(), &content)?,
                    Body::SinceId(base) => self.apply(self.by_id.get(&base).copied(), &content)?,
                };
                let collides = || "it has an object that was made to collide with another".to_owned();
                let id = id_of(self.format, kind, &content).ok_or_else(collides)?;
                self.at.insert(offset, self.all.len());
                self.by_id.insert(id, self.all.len());
                self.all.push((kind, content));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &Id) -> Option<(Kind, &[u8])> {
        let (kind, content) = &self.all[*self.by_id.get(id)?];
        Some((*kind, content))
    }

    fn reserve(&mut self, size: u64) -> Result<(), String> {
        // Beside its contents, an object costs about as much as two keys and two places.
        self.room = self.room.checked_sub(size.saturating_add(160)).ok_or(TOO_MUCH)?;
        Ok(())
    }

    /// A base comes before what differs from it, unless the pack is a thin one, which is never asked for.
    fn apply(&mut self, base: Option<usize>, delta: &[u8]) -> Result<(Kind, Vec<u8>), String> {
        let base = base.ok_or("its pack has a difference to nothing")?;
        let (_, size) = delta::sizes(delta).ok_or_else(broken)?;
        self.reserve(size)?;
        let (kind, content) = &self.all[base];
        Ok((*kind, delta::apply(content, delta).ok_or_else(broken)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn header(kind: u8, mut size: usize) -> Vec<u8> {
        let mut bytes = vec![kind << 4 | (size & 15) as u8];
        size >>= 4;
        while size > 0 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push((size & 0x7f) as u8);
            size >>= 7;
        }
        bytes
    }

    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend((objects.len() as u32).to_be_bytes());
        pack.extend(objects.concat());
        pack.extend([0; 20]);
        pack
    }

    fn whole(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [header(kind, bytes.len()), deflate(bytes)].concat()
    }

    fn read(pack: &[u8], piece: usize, room: u64) -> Result<Objects, String> {
        let mut parser = Parser::new(Format::Sha1);
        let mut objects = Objects::new(Format::Sha1, room);
        for piece in pack.chunks(piece.max(1)) {
            parser.push(piece, &mut |event| objects.take(event))?;
        }
        if parser.is_complete() { Ok(objects) } else { Err("breaks off".to_owned()) }
    }

    fn blob<'a>(objects: &'a Objects, content: &[u8]) -> Option<&'a [u8]> {
        objects.get(&id_of(Format::Sha1, Kind::Blob, content).unwrap()).map(|(_, content)| content)
    }

    #[test]
    fn differences_are_applied_by_place_and_by_id() {
        let base = b"hello, hello".to_vec();
        // Sizes 12 and 8; copies 5 bytes from 7; inserts "abc".
        let delta = [&[12, 8, 0x91, 7, 5, 3][..], b"abc"].concat();
        let first = whole(3, &base);
        let back = first.len() as u8;
        let by_place = [header(6, delta.len()), vec![back], deflate(&delta)].concat();
        let hex = id_of(Format::Sha1, Kind::Blob, &base).unwrap().to_string();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let id: Vec<u8> = hex.as_bytes().chunks(2).map(pair).collect();
        let by_id = [header(7, delta.len()), id, deflate(&delta)].concat();
        for difference in [by_place, by_id] {
            let pack = pack(&[first.clone(), difference]);
            for piece in [1, 7, 1000] {
                let objects = read(&pack, piece, 1000).unwrap();
                assert_eq!(blob(&objects, b"helloabc"), Some(&b"helloabc"[..]));
            }
            assert!(read(&pack[..pack.len() - 30], 5, 1000).is_err());
        }
    }

    #[test]
    fn hostile_packs_are_errors() {
        let big = whole(3, &[0; 5000]);
        assert_eq!(read(&pack(std::slice::from_ref(&big)), 100, 5000).err().unwrap(), TOO_MUCH);
        assert!(read(&pack(&[big]), 100, 6000).is_ok());
        for object in [
            [header(3, 2), deflate(b"hello")].concat(),
            [header(3, 9), deflate(b"hello")].concat(),
            [header(6, 5), vec![9], deflate(b"hello")].concat(),
            [header(7, 5), vec![9; 20], deflate(b"hello")].concat(),
            [header(5, 5), deflate(b"hello")].concat(),
            vec![0xff; 40],
        ] {
            assert!(read(&pack(&[object]), 3, 1000).is_err());
        }
        assert!(read(b"nonsense that is long enough", 9, 1000).is_err());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_found(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6), piece in 1usize..400) {
            let objects: Vec<_> = contents.iter().map(|content| whole(3, content)).collect();
            let read = read(&pack(&objects), piece, 10_000).unwrap();
            for content in &contents {
                prop_assert_eq!(blob(&read, content), Some(content.as_slice()));
            }
        }

        #[test]
        fn any_bytes_are_a_pack_or_an_error(junk in prop::collection::vec(any::<u8>(), 0..300), flip in 0usize..400, to: u8) {
            let _ = read(&junk, 7, 1000);
            let _ = read(&[b"PACK\0\0\0\x02\0\0\0\x02".to_vec(), junk.clone()].concat(), 7, 1000);
            let mut pack = pack(&[whole(3, b"hello, world"), whole(2, &junk)]);
            let flip = flip % pack.len();
            pack[flip] = to;
            let _ = read(&pack, 9, 10_000);
        }
    }
}
