//! Zip, read by its central directory.
//!
//! Own code and not a crate, because a zip says everything twice, and readers that believe different halves see different files:
//! here both must agree, and the members must lie one behind the other (APPNOTE.TXT 6.3.10, whose sections are named below).

use std::io::{Read, Seek, SeekFrom};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::input::fill;
use super::members::{MAX_MEMBERS, Members, Verdict, What, refused};
use super::{Memory, outgrown};
use crate::error::{Error, ErrorKind, Result};
use crate::size::Size;

/// Begins a zip: a member, or the end of one without members.
const MAGIC: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR64: &[u8; 4] = b"PK\x06\x07";
const LOCAL_SIZE: usize = 30;
const CENTRAL_SIZE: usize = 46;
const END_SIZE: usize = 22;
const END64_SIZE: usize = 56;
const LOCATOR64_SIZE: usize = 20;
const BUFFER: usize = 64 << 10;

/// General purpose flags (4.4.4).
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const SIZES_FOLLOW: u16 = 1 << 3;
const PATCH: u16 = 1 << 5;

pub(super) fn is_zip(head: &[u8]) -> bool {
    MAGIC.iter().any(|magic| head.starts_with(magic))
}

/// Where the central directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directory {
    offset: u64,
    size: u64,
    members: u64,
}

/// A member as the central directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Of the local header.
    offset: u64,
    /// Unix: type and permissions; 0 where another system wrote it.
    mode: u32,
}

/// Reads all members.
pub(super) fn read<R: Read + Seek>(input: &mut R, members: &mut Members<'_>) -> Result<()> {
    let mut zip = Zip { length: 0, input };
    let (directory, mut listed) = zip.list(members.meter().memory()).map_err(|error| failure(members, error))?;
    // In the order in which they lie in the file.
    listed.sort_by_key(|member| member.offset);
    let mut free = 0;
    for (i, member) in listed.iter().enumerate() {
        let end = listed.get(i + 1).map_or(directory.offset, |next| next.offset);
        let start = zip.open(member, free, end).map_err(|error| failure(members, error))?;
        free = start + member.packed;
        zip.extract(member, start, members)?;
    }
    Ok(())
}

/// Either a cause that the [meter](super::input::Meter) knows better, or one of our own.
enum Failure {
    Io(std::io::Error),
    Error(Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn failure(members: &Members<'_>, failure: Failure) -> Error {
    match failure {
        Failure::Io(error) => members.meter().failure(error),
        Failure::Error(error) => error,
    }
}

struct Zip<'a, R> {
    input: &'a mut R,
    length: u64,
}

impl<R: Read + Seek> Zip<'_, R> {
    fn list(&mut self, memory: Memory) -> Result<(Directory, Vec<Member>), Failure> {
        self.length = self.input.seek(SeekFrom::End(0))?;
        let directory = self.find_directory()?;
        let most = Memory::Much.zip_directory();
        if directory.members > MAX_MEMBERS as u64 || directory.size > most {
            let (members, size) = (directory.members, Size(directory.size));
            let text = format!(
                "it has {members} members in a directory of {size}; only {MAX_MEMBERS} in one of {} can be read",
                Size(most)
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, text).into());
        }
        if directory.size > memory.zip_directory() {
            return Err(outgrown().into());
        }
        let bytes = self.at(directory.offset, directory.size as usize)?;
        let mut rest = bytes.as_slice();
        let mut members = Vec::new();
        while !rest.is_empty() {
            let (member, after) = parse_member(rest).ok_or_else(|| corrupt("its directory can't be read"))?;
            members.push(member);
            rest = after;
        }
        if members.len() as u64 != directory.members {
            return Err(corrupt("its directory has another number of members than it says").into());
        }
        let mut names: Vec<&[u8]> = members.iter().map(|member| member.name.as_slice()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refused(twice[0], "is there twice").into());
        }
        Ok((directory, members))
    }

    /// Finds the end of the central directory (4.3.16), which is the end of the file, but for a comment.
    fn find_directory(&mut self) -> Result<Directory, Failure> {
        let tail = self.length.min((END_SIZE + usize::from(u16::MAX)) as u64);
        let bytes = self.at(self.length - tail, tail as usize)?;
        let end = (0..bytes.len().saturating_sub(END_SIZE - 1)).rev().find(|at| {
            let comment = bytes.len() - at - END_SIZE;
            bytes[*at..].starts_with(END) && u16_at(&bytes[*at..], 20) == u16::try_from(comment).ok()
        });
        let end = end.ok_or_else(|| corrupt("it is cut short: a zip's end is missing"))?;
        let position = self.length - tail + end as u64;
        let (directory, wide) =
            parse_end(&bytes[end..]).ok_or_else(|| corrupt("it is in several pieces, or damaged"))?;
        // Some writers add a zip64 end where none is needed.
        let wide = wide || (end >= LOCATOR64_SIZE && bytes[end - LOCATOR64_SIZE..].starts_with(LOCATOR64));
        let (directory, position) = if wide { self.find_directory64(position)? } else { (directory, position) };
        // Else something lies before the zip, or between: a program that unpacks itself, or two archives in one.
        if directory.offset.checked_add(directory.size) != Some(position) {
            return Err(corrupt("its directory is not where it says").into());
        }
        Ok(directory)
    }

    /// The same in zip64 (4.3.14, 4.3.15), which lies before it.
    fn find_directory64(&mut self, end: u64) -> Result<(Directory, u64), Failure> {
        let damaged = || corrupt("its zip64 end is missing or damaged");
        let locator = end.checked_sub(LOCATOR64_SIZE as u64).ok_or_else(damaged)?;
        let bytes = self.at(locator, LOCATOR64_SIZE)?;
        let position = u64_at(&bytes, 8).filter(|_| bytes.starts_with(LOCATOR64)).ok_or_else(damaged)?;
        if position.checked_add(END64_SIZE as u64) != Some(locator) {
            return Err(damaged().into());
        }
        let bytes = self.at(position, END64_SIZE)?;
        let directory = parse_end64(&bytes).ok_or_else(damaged)?;
        Ok((directory, position))
    }

    /// Compares a member's local header with what the directory says; returns where its content begins.
    fn open(&mut self, member: &Member, free: u64, end: u64) -> Result<u64, Failure> {
        let overlapping = || refused(&member.name, "lies over another");
        if member.offset < free {
            return Err(overlapping().into());
        }
        let header = self.at(member.offset, LOCAL_SIZE)?;
        let local = parse_local(&header).ok_or_else(|| corrupt("a member is not where its directory says"))?;
        let name = self.at(member.offset + LOCAL_SIZE as u64, local.name)?;
        let flags = (local.flags ^ member.flags) & (ENCRYPTED | PATCH | SIZES_FOLLOW) == 0;
        let same = name == member.name && flags && local.method == member.method;
        let sizes = |packed: u32, size: u32| {
            let or_wide = |short: u32, long: u64| short == u32::MAX || u64::from(short) == long;
            or_wide(packed, member.packed) && or_wide(size, member.size)
        };
        let sizes_follow = local.flags & SIZES_FOLLOW != 0;
        let same = same && (sizes_follow || (sizes(local.packed, local.size) && local.crc == member.crc));
        if !same {
            return Err(refused(&member.name, "is described in two ways that contradict each other").into());
        }
        let start = member.offset + (LOCAL_SIZE + local.name + local.extra) as u64;
        match start.checked_add(member.packed) {
            Some(after) if after <= end => Ok(start),
            _ => Err(overlapping().into()),
        }
    }

    fn extract(&mut self, member: &Member, start: u64, members: &mut Members<'_>) -> Result<()> {
        let name = &member.name;
        let verdict = members.begin(name, what(member))?;
        if verdict == Verdict::Skip {
            return Ok(());
        }
        if member.flags & (ENCRYPTED | PATCH) != 0 {
            return Err(refused(name, "is encrypted"));
        }
        self.input.seek(SeekFrom::Start(start)).map_err(|error| members.meter().failure(error))?;
        let packed = (&mut *self.input).take(member.packed);
        match member.method {
            0 => copy(packed, member, members),
            8 => copy(DeflateDecoder::new(std::io::BufReader::with_capacity(BUFFER, packed)), member, members),
            other => Err(refused(name, &format!("is compressed by method {other}, and only \"deflate\" can be read"))),
        }
    }

    fn at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Failure> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(corrupt("it is cut short or damaged: it names bytes that it has not").into());
        }
        self.input.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Takes a member's content, and compares its length and its checksum.
fn copy(mut content: impl Read, member: &Member, members: &mut Members<'_>) -> Result<()> {
    let wrong = |problem: &str| {
        let text = format!("it is damaged: {:?} {problem}", String::from_utf8_lossy(&member.name));
        Error::new(ErrorKind::Corrupt, text)
    };
    let (mut buffer, mut crc, mut left) = (vec![0; BUFFER], Crc::new(), member.size);
    loop {
        let read = fill(&mut content, &mut buffer).map_err(|error| members.meter().failure(error))?;
        members.meter().made(read as u64)?;
        if read == 0 {
            break;
        }
        left = left.checked_sub(read as u64).ok_or_else(|| wrong("is longer than it says"))?;
        crc.update(&buffer[..read]);
        members.write(&buffer[..read])?;
    }
    match (left, crc.sum() == member.crc) {
        (0, true) => members.end(),
        (0, false) => Err(wrong("has another checksum than it says")),
        _ => Err(wrong("is shorter than it says")),
    }
}

fn what(member: &Member) -> What<'static> {
    const TYPE: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    const FILE: u32 = 0o100_000;
    match member.mode & TYPE {
        0 | DIRECTORY if member.name.ends_with(b"/") => What::Directory,
        FILE if member.mode & 0o6000 != 0 => What::Other("a set-user-id or set-group-id file"),
        0 | FILE => What::File,
        0o120_000 => What::Other("a symbolic link"),
        _ => What::Other("neither a file nor a directory"),
    }
}

/// The end of a central directory, and whether a zip64 end must say it.
fn parse_end(bytes: &[u8]) -> Option<(Directory, bool)> {
    let disks = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
    let (here, all) = (u16_at(bytes, 8)?, u16_at(bytes, 10)?);
    let (size, offset) = (u32_at(bytes, 12)?, u32_at(bytes, 16)?);
    let wide = all == u16::MAX || size == u32::MAX || offset == u32::MAX;
    let whole = matches!(disks, (0, 0)) && here == all;
    let directory = Directory { offset: offset.into(), size: size.into(), members: all.into() };
    (whole || wide).then_some((directory, wide))
}

fn parse_end64(bytes: &[u8]) -> Option<Directory> {
    let whole = bytes.starts_with(END64) && u32_at(bytes, 16)? == 0 && u32_at(bytes, 20)? == 0;
    let (here, all) = (u64_at(bytes, 24)?, u64_at(bytes, 32)?);
    let directory = Directory { size: u64_at(bytes, 40)?, offset: u64_at(bytes, 48)?, members: all };
    (whole && here == all).then_some(directory)
}

/// A member of the central directory (4.3.12), and what follows it.
fn parse_member(bytes: &[u8]) -> Option<(Member, &[u8])> {
    if !bytes.starts_with(CENTRAL) {
        return None;
    }
    let (name, extra, comment) = (u16_at(bytes, 28)?, u16_at(bytes, 30)?, u16_at(bytes, 32)?);
    let rest = bytes.get(CENTRAL_SIZE..)?;
    let (name, rest) = rest.split_at_checked(name.into())?;
    let (extra, rest) = rest.split_at_checked(extra.into())?;
    let (_, rest) = rest.split_at_checked(comment.into())?;
    let mut member = Member {
        name: name.to_vec(),
        flags: u16_at(bytes, 8)?,
        method: u16_at(bytes, 10)?,
        crc: u32_at(bytes, 16)?,
        packed: u32_at(bytes, 20)?.into(),
        size: u32_at(bytes, 24)?.into(),
        offset: u32_at(bytes, 42)?.into(),
        // Made on: 3 is Unix (4.4.2).
        mode: if bytes.get(5) == Some(&3) { u32_at(bytes, 38)? >> 16 } else { 0 },
    };
    // On one disk.
    if u16_at(bytes, 34)? != 0 {
        return None;
    }
    member.widen(extra)?;
    Some((member, rest))
}

impl Member {
    /// Reads what is too large for its field from the extra field of zip64 (4.5.3).
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        let mut wide: &[u8] = &[];
        while extra.len() >= 4 {
            let (id, length) = (u16_at(extra, 0)?, u16_at(extra, 2)?);
            let (field, rest) = extra[4..].split_at_checked(length.into())?;
            if id == 1 {
                wide = field;
            }
            extra = rest;
        }
        for value in [&mut self.size, &mut self.packed, &mut self.offset] {
            if *value == u64::from(u32::MAX) {
                *value = u64_at(wide, 0)?;
                wide = &wide[8..];
            }
        }
        Some(())
    }
}

/// A local header (4.3.7), as far as it is compared.
struct Local {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
    name: usize,
    extra: usize,
}

fn parse_local(bytes: &[u8]) -> Option<Local> {
    if !bytes.starts_with(LOCAL) {
        return None;
    }
    Some(Local {
        flags: u16_at(bytes, 6)?,
        method: u16_at(bytes, 8)?,
        crc: u32_at(bytes, 14)?,
        packed: u32_at(bytes, 18)?,
        size: u32_at(bytes, 22)?,
        name: u16_at(bytes, 26)?.into(),
        extra: u16_at(bytes, 28)?.into(),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|field| u64::from_le_bytes(*field))
}

fn corrupt(text: &str) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}
