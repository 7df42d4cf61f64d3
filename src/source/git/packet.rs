//! Git's framing: packets that begin with their length in four hexadecimal digits (gitprotocol-common).

use bytes::{Buf, Bytes, BytesMut};

/// Longest packet, length included.
const MAX_PACKET: usize = 65520;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Bytes),
    /// Ends a message.
    Flush,
    /// Ends a section of a message.
    Delimiter,
    ResponseEnd,
}

/// Appends a packet that holds `text` and a newline.
pub(super) fn write(out: &mut String, text: &str) {
    out.push_str(&format!("{:04x}{text}\n", text.len() + 5));
}

pub(super) const FLUSH: &str = "0000";
pub(super) const DELIMITER: &str = "0001";

/// Takes packets out of bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Packets(BytesMut);

impl Packets {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Whether nothing of a packet is left over.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next packet; `None` when more bytes are needed.
    ///
    /// # Errors
    /// For what is no packet.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, String> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let length = std::str::from_utf8(head).ok().filter(|text| !text.starts_with('+'));
        let length = length.and_then(|text| usize::from_str_radix(text, 16).ok());
        let packet = match length {
            Some(0) => Packet::Flush,
            Some(1) => Packet::Delimiter,
            Some(2) => Packet::ResponseEnd,
            Some(length @ 4..=MAX_PACKET) => {
                if self.0.len() < length {
                    return Ok(None);
                }
                self.0.advance(4);
                return Ok(Some(Packet::Data(self.0.split_to(length - 4).freeze())));
            }
            _ => return Err("its answer is not git's protocol".to_owned()),
        };
        self.0.advance(4);
        Ok(Some(packet))
    }
}

/// All packets of a whole answer.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Packet>, String> {
    let mut packets = Packets::default();
    packets.push(bytes);
    let mut all = Vec::new();
    while let Some(packet) = packets.next()? {
        all.push(packet);
    }
    if packets.is_empty() { Ok(all) } else { Err("its answer breaks off".to_owned()) }
}

/// A packet's text without the newline at its end; what is not UTF-8 is replaced.
pub(super) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data.strip_suffix(b"\n").unwrap_or(data)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = String::new();
        write(&mut message, "version 2");
        message.push_str(DELIMITER);
        message.push_str(FLUSH);
        assert_eq!(message, "000eversion 2\n00010000");
        let packets = parse(message.as_bytes()).unwrap();
        assert_eq!(packets, [Packet::Data("version 2\n".into()), Packet::Delimiter, Packet::Flush]);
        for wrong in ["0003", "zzzz", "ffff", "+004", "0009abc", "00"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            texts in prop::collection::vec("[ -~]{0,40}", 0..6), cut in 0usize..100, junk in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let mut message = String::new();
            texts.iter().for_each(|line| write(&mut message, line));
            let bytes = message.as_bytes();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut packets = Packets::default();
            let mut found = Vec::new();
            for piece in [a, b] {
                packets.push(piece);
                while let Some(packet) = packets.next().unwrap() {
                    let Packet::Data(data) = packet else { panic!() };
                    found.push(text(&data));
                }
            }
            prop_assert_eq!(found, texts);
            let _ = parse(&junk);
        }
    }
}
