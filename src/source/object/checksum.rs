//! Checksums that a store declares for a whole object, compared with what arrives.
//!
//! They come with the answer to a read, so that only a file that is read in one piece is compared: see `docs/sources.md`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use futures_util::{StreamExt, TryStreamExt};
use http::HeaderMap;
use md5::{Digest as _, Md5};

use crate::error::{Error, ErrorKind};
use crate::source::ByteStream;

/// What a store says about an object's content. At least one of them is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Declared {
    /// Google's, of every object.
    Crc32c(u32),
    /// Azure's, of blobs that were put in one request, or whose writer gave it.
    Md5([u8; 16]),
}

impl Declared {
    /// What an answer's headers declare, if they do.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        // One header with both, or one header for each.
        let google = headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
        let mut google = google.flat_map(|value| value.split(','));
        let crc32c = google.find_map(|part| decoded(part.trim().strip_prefix("crc32c=")?));
        let azure = || decoded(headers.get("content-md5")?.to_str().ok()?);
        crc32c.map(|sum| Self::Crc32c(u32::from_be_bytes(sum))).or_else(|| azure().map(Self::Md5))
    }

    /// The same bytes; ends in [`ErrorKind::Corrupt`] unless they are the declared ones.
    pub(in crate::source) fn verified(self, bytes: ByteStream, name: String) -> ByteStream {
        futures_util::stream::try_unfold((bytes, Some(Sum::new(self))), move |(mut bytes, mut sum)| {
            let name = name.clone();
            async move {
                if let Some(chunk) = bytes.try_next().await? {
                    if let Some(sum) = &mut sum {
                        sum.update(&chunk);
                    }
                    return Ok(Some((chunk, (bytes, sum))));
                }
                match sum.take().is_some_and(|sum| sum.finish() != self) {
                    true => Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("{name}: what arrived does not have the checksum that the store declares"),
                    )),
                    false => Ok(None),
                }
            }
        })
        .boxed()
    }
}

/// As [`Declared::parse`], for those who send requests themselves.
#[cfg(feature = "azure")]
pub(in crate::source) fn declared(headers: &HeaderMap) -> Option<Declared> {
    Declared::parse(headers)
}

enum Sum {
    Crc32c(Box<Crc>),
    Md5(Md5),
}

impl Sum {
    fn new(declared: Declared) -> Self {
        match declared {
            Declared::Crc32c(_) => Self::Crc32c(Box::new(Crc::new(CrcAlgorithm::Crc32Iscsi))),
            Declared::Md5(_) => Self::Md5(Md5::new()),
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Crc32c(crc) => crc.update(chunk),
            Self::Md5(md5) => md5.update(chunk),
        }
    }

    fn finish(self) -> Declared {
        match self {
            Self::Crc32c(crc) => Declared::Crc32c(crc.finalize() as u32),
            Self::Md5(md5) => Declared::Md5(md5.finalize().into()),
        }
    }
}

fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn declarations_are_read_as_the_stores_write_them() {
        // Of "123456789": the check values of CRC-32C, and of RFC 1321.
        let crc = Some(Declared::Crc32c(0xe306_9283));
        assert_eq!(Declared::parse(&headers(&[("x-goog-hash", "crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw==")])), crc);
        let two = headers(&[("x-goog-hash", "md5=JfnnlDI7RTiF9RgfG2JNCw=="), ("x-goog-hash", "crc32c=4waSgw==")]);
        assert_eq!(Declared::parse(&two), crc);
        let azure = Declared::parse(&headers(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")]));
        assert!(matches!(azure, Some(Declared::Md5([0x25, 0xf9, ..]))), "{azure:?}");
        for nonsense in ["crc32c=", "crc32c=AA==", "crc32c=!", "md5=x", ""] {
            assert_eq!(Declared::parse(&headers(&[("x-goog-hash", nonsense)])), None, "{nonsense}");
        }
    }

    async fn read(declared: Declared, content: &'static [u8]) -> Result<Vec<u8>, Error> {
        let chunks = content.chunks(4).map(|chunk| Ok(Bytes::from_static(chunk)));
        let stream = declared.verified(futures_util::stream::iter(chunks).boxed(), "m".to_owned());
        Ok(stream.try_collect::<Vec<_>>().await?.concat())
    }

    #[tokio::test]
    async fn other_content_than_declared_is_corrupt() {
        let md5 = Declared::parse(&headers(&[("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")])).unwrap();
        for declared in [Declared::Crc32c(0xe306_9283), md5] {
            assert_eq!(read(declared, b"123456789").await.unwrap(), b"123456789");
            for other in [&b"123456780"[..], b"12345678", b""] {
                assert_eq!(read(declared, other).await.unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_ignored(value in "[ -~]{0,60}") {
            Declared::parse(&headers(&[("x-goog-hash", &value), ("content-md5", &value)]));
        }
    }
}
