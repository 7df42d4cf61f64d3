//! Archives byte by byte, so that they can be wrong in every way.

use std::io::Write;

/// Compresses.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A frame of zstd that needs a window of so many bits, with one block that is not compressed (RFC 8878, section 3.1.1).
pub(super) fn zstd(window: u8, bytes: &[u8]) -> Vec<u8> {
    let block = u32::try_from(bytes.len()).unwrap() << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, (window - 10) << 3], &block.to_le_bytes()[..3], bytes].concat()
}

/// A tar.
#[derive(Clone, Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(name.as_bytes(), b'0', 0o644, "", content)
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.member(name.as_bytes(), b'5', 0o755, "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name.as_bytes(), b'2', 0o777, target, b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name.as_bytes(), b'1', 0o644, target, b"")
    }

    pub(super) fn pax(self, records: &[(&str, &str)]) -> Self {
        self.member(b"pax", b'x', 0o644, "", &pax_records(records))
    }

    pub(super) fn member(mut self, name: &[u8], kind: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        self.0.extend(header(name, kind, mode, link, content.len() as u64));
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A member whose header says another size than it has.
    pub(super) fn claiming(mut self, name: &str, kind: u8, size: u64) -> Self {
        self.0.extend(header(name.as_bytes(), kind, 0o644, "", size));
        self
    }

    /// With the mark at the end.
    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// Without.
    pub(super) fn open(self) -> Vec<u8> {
        self.0
    }
}

pub(super) fn pax_records(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(keyword, value): &(&str, &str)| {
        let rest = format!(" {keyword}={value}\n");
        let length = (1..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}")
    };
    records.iter().map(record).collect::<String>().into_bytes()
}

pub(super) fn header(name: &[u8], kind: u8, mode: u32, link: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\x000000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    sum(&mut block);
    block
}

/// Puts the checksum right.
pub(super) fn sum(block: &mut [u8; 512]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// One member of a zip, stored, with everything that can be said of it.
#[derive(Clone)]
pub(super) struct Stored<'a> {
    pub(super) name: &'a str,
    /// What the local header calls it.
    pub(super) local_name: &'a str,
    pub(super) content: &'a [u8],
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) mode: u32,
    pub(super) size: u32,
    pub(super) crc: u32,
    /// Where it lies, if not behind those before it.
    pub(super) offset: Option<u32>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(name: &'a str, content: &'a [u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let (size, crc) = (content.len() as u32, crc.sum());
        Self { name, local_name: name, content, flags: 0, method: 0, mode: 0o100_644, size, crc, offset: None }
    }
}

pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(name, content)| Stored::new(name, content)).collect();
    zip_of(&members)
}

pub(super) fn zip_of(members: &[Stored<'_>]) -> Vec<u8> {
    let (mut bytes, mut central) = (Vec::new(), Vec::new());
    for member in members {
        let offset = member.offset.unwrap_or(bytes.len() as u32);
        let common = |name: &str| {
            let mut common = Vec::new();
            for field in [20, member.flags, member.method, 0, 0] {
                common.extend(field.to_le_bytes());
            }
            for field in [member.crc, member.content.len() as u32, member.size] {
                common.extend(field.to_le_bytes());
            }
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            common
        };
        central.extend(b"PK\x01\x02\x14\x03");
        central.extend(common(member.name));
        central.extend([0; 6]);
        central.extend((member.mode << 16).to_le_bytes());
        central.extend(offset.to_le_bytes());
        central.extend(member.name.as_bytes());
        if member.offset.is_none() {
            bytes.extend(b"PK\x03\x04");
            bytes.extend(common(member.local_name));
            bytes.extend(member.local_name.as_bytes());
            bytes.extend(member.content);
        }
    }
    let start = bytes.len() as u32;
    bytes.extend(&central);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        bytes.extend((members.len() as u16).to_le_bytes());
    }
    bytes.extend((central.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}
