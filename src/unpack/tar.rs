//! Tar, read member by member: the formats of POSIX (ustar, pax), GNU and of version 7.
//!
//! Own code and not a crate, because every length in it is bounded here, and everything that two readers could
//! understand in two ways is an error: a pax size or name that is broken, a link with content, data after the end.

use std::io::Read;

use super::input::fill;
use super::members::{Members, Verdict, What, refused};
use crate::error::{Error, ErrorKind, Result};

pub(super) const BLOCK: usize = 512;
const BUFFER: usize = 64 << 10;
/// Longest name, and longest set of pax records; attributes that are ignored may be among the latter.
const MAX_NAME: u64 = 16 << 10;
const MAX_RECORDS: u64 = 1 << 20;
/// POSIX: set user id and set group id.
const SET_ID: u64 = 0o6000;

/// Whether a block is a tar's first: a header by its checksum, which all versions have.
pub(super) fn is_tar(block: &[u8]) -> bool {
    block.first_chunk().is_some_and(|block: &[u8; BLOCK]| has_checksum(block))
}

/// Whether these bytes may be a tar without members: nothing but zeros, whole blocks of them.
pub(super) fn is_empty_tar(block: &[u8]) -> bool {
    block.len() == BLOCK && is_zero(block)
}

/// A member's header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    mode: u64,
    kind: u8,
}

impl Header {
    /// `None` when it is not one.
    fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        if !has_checksum(block) {
            return None;
        }
        let mut name = text(&block[..100]).to_vec();
        // GNU's magic has a space here, and other things where POSIX has the prefix.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let mut whole = text(&block[345..500]).to_vec();
            whole.push(b'/');
            whole.append(&mut name);
            name = whole;
        }
        let link = text(&block[157..257]).to_vec();
        // Some writers leave a mode of blanks.
        let mode = number(&block[100..108]).unwrap_or(0);
        Some(Self { name, link, size: number(&block[124..136])?, mode, kind: block[156] })
    }
}

/// What pax records and GNU's long names say of the next member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Extension {
    /// Reads pax records: `<length> <keyword>=<value>\n`.
    fn read_records(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ')?;
            let length = decimal(&records[..space])?;
            let length =
                usize::try_from(length).ok().filter(|length| *length > space + 1 && *length <= records.len())?;
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (keyword, value) = (&record[..equals], &record[equals + 1..]);
            match keyword {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                _ if keyword.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            records = rest;
        }
        Some(())
    }
}

/// Reads all members, to the very end of the file.
pub(super) fn read(input: &mut dyn Read, members: &mut Members<'_>) -> Result<()> {
    let mut tar = Tar { input, members, buffer: vec![0; BUFFER] };
    let mut extension = Extension::default();
    let mut block = [0; BLOCK];
    loop {
        match tar.fill(&mut block)? {
            BLOCK => {}
            0 if tar.members.may_lack_end() && extension == Extension::default() => return Ok(()),
            0 => return Err(corrupt("it is cut short: a tar's end is missing")),
            _ => return Err(corrupt("it is cut short in the middle of a header")),
        }
        if is_zero(&block) {
            return tar.rest_is_zero();
        }
        let header = Header::parse(&block).ok_or_else(|| corrupt("it is damaged: a member has no valid header"))?;
        match header.kind {
            b'x' | b'X' => {
                let records = tar.bounded(&header, MAX_RECORDS)?;
                extension.read_records(&records).ok_or_else(|| corrupt("it is damaged: a pax header can't be read"))?;
            }
            b'g' => {
                let mut global = Extension::default();
                let records = tar.bounded(&header, MAX_RECORDS)?;
                global.read_records(&records).ok_or_else(|| corrupt("it is damaged: a pax header can't be read"))?;
                if global != Extension::default() {
                    return Err(corrupt("it gives all of its members one name or size"));
                }
            }
            b'L' => extension.name = Some(text(&tar.bounded(&header, MAX_NAME)?).to_vec()),
            b'K' => extension.link = Some(text(&tar.bounded(&header, MAX_NAME)?).to_vec()),
            // The archive's own label (GNU).
            b'V' => tar.skip(&header)?,
            _ => {
                tar.member(header, std::mem::take(&mut extension))?;
                continue;
            }
        }
    }
}

struct Tar<'a, 'b> {
    input: &'a mut dyn Read,
    members: &'a mut Members<'b>,
    buffer: Vec<u8>,
}

impl Tar<'_, '_> {
    fn member(&mut self, header: Header, extension: Extension) -> Result<()> {
        let Extension { name, link, size, sparse } = extension;
        let name = name.unwrap_or(header.name);
        let link = link.unwrap_or(header.link);
        let size = size.unwrap_or(header.size);
        let what = match header.kind {
            _ if sparse => What::Other("a sparse file, which tar makes with --sparse"),
            b'0' | 0 if name.ends_with(b"/") && size == 0 => What::Directory,
            b'0' | 0 | b'7' if header.mode & SET_ID != 0 => What::Other("a set-user-id or set-group-id file"),
            b'0' | 0 | b'7' => What::File,
            b'1' => What::HardLink(&link),
            b'2' => What::Other("a symbolic link"),
            b'3' | b'4' => What::Other("a device"),
            b'5' => What::Directory,
            b'6' => What::Other("a named pipe"),
            b'S' => What::Other("a sparse file, which tar makes with --sparse"),
            b'M' => What::Other("a piece of a file that goes on in another archive"),
            _ => What::Other("neither a file nor a directory"),
        };
        if matches!(header.kind, b'1'..=b'6') && size != 0 {
            // Some readers skip such content, some take it for the next header.
            return Err(refused(&name, "has content that its type has not"));
        }
        let verdict = self.members.begin(&name, what)?;
        let cut = || corrupt(format!("it is cut short in the middle of {:?}", String::from_utf8_lossy(&name)));
        let mut left = size;
        while left > 0 {
            let wanted = left.min(BUFFER as u64) as usize;
            let read = self.fill_buffer(wanted)?;
            if read < wanted {
                return Err(cut());
            }
            if verdict == Verdict::Take {
                self.members.write(&self.buffer[..read])?;
            }
            left -= read as u64;
        }
        if verdict == Verdict::Take {
            self.members.end()?;
        }
        let padding = padding(size);
        if self.fill_buffer(padding)? < padding { Err(cut()) } else { Ok(()) }
    }

    /// The content of a header's extension.
    fn bounded(&mut self, header: &Header, most: u64) -> Result<Vec<u8>> {
        if header.size > most {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("it has a name or attributes of {} bytes", header.size),
            ));
        }
        let size = header.size as usize;
        let mut content = vec![0; size + padding(header.size)];
        if self.fill(&mut content)? < content.len() {
            return Err(corrupt("it is cut short in the middle of a header"));
        }
        content.truncate(size);
        Ok(content)
    }

    fn skip(&mut self, header: &Header) -> Result<()> {
        self.bounded(header, MAX_NAME).map(drop)
    }

    /// What follows a tar's end is filled up with zeros. Another tar behind it, whose members would be lost, is not.
    fn rest_is_zero(&mut self) -> Result<()> {
        loop {
            match self.fill_buffer(BUFFER)? {
                0 => return Ok(()),
                read if is_zero(&self.buffer[..read]) => {}
                _ => return Err(corrupt("it goes on after its end, with another archive or with garbage")),
            }
        }
    }

    fn fill_buffer(&mut self, length: usize) -> Result<usize> {
        let read = fill(self.input, &mut self.buffer[..length]).map_err(|error| self.members.meter().failure(error))?;
        self.members.meter().made(read as u64)?;
        Ok(read)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = fill(self.input, buffer).map_err(|error| self.members.meter().failure(error))?;
        self.members.meter().made(read as u64)?;
        Ok(read)
    }
}

/// The sum of a header's bytes, its own field taken as blanks. Old writers summed them as signed numbers.
fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let Some(declared) = number(&block[148..156]) else { return false };
    let summed = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
    let unsigned: u64 = summed().map(|byte| u64::from(*byte)).sum();
    let signed: i64 = summed().map(|byte| i64::from(byte.cast_signed())).sum();
    !is_zero(block) && (declared == unsigned || i64::try_from(declared).is_ok_and(|declared| declared == signed))
}

/// A number in octal digits, or in binary if the first bit is set (GNU); negative ones are none.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let start = u64::from(first & 0x7f);
        return rest.iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` would take a sign.
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn corrupt(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}
