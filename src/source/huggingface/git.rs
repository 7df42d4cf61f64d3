//! Verifies a file by the name that git gives its content: SHA-1 of `blob <size>\0` and the bytes.
//!
//! SHA-1 finds what went wrong by accident. Who can make two contents of one SHA-1 must have put both of them on the hub.

use futures_util::{StreamExt, TryStreamExt};
use sha1::{Digest as _, Sha1};

use crate::error::{Error, ErrorKind};
use crate::source::ByteStream;

/// The same bytes; where they end, an error unless they are those that `oid` names.
pub(super) fn verified(bytes: ByteStream, size: u64, oid: String, name: String) -> ByteStream {
    let hasher = Sha1::new_with_prefix(format!("blob {size}\0"));
    futures_util::stream::try_unfold((bytes, hasher, oid, name), async |(mut bytes, mut hasher, oid, name)| match bytes
        .try_next()
        .await?
    {
        Some(piece) => {
            hasher.update(&piece);
            Ok(Some((piece, (bytes, hasher, oid, name))))
        }
        None => {
            let arrived: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if arrived == oid {
                return Ok(None);
            }
            let text = format!("{name} arrived with the git hash {arrived} where the hub lists {oid}");
            Err(Error::new(ErrorKind::Corrupt, text))
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn other_bytes_than_git_names_are_an_error() {
        // printf 'hello\n' | git hash-object --stdin
        let oid = "ce013625030ba8dba906f756967f9e9ca394464a";
        let read = async |pieces: &[&'static str]| {
            let pieces: Vec<_> = pieces.iter().map(|text| Ok(Bytes::from_static(text.as_bytes()))).collect();
            let bytes = futures_util::stream::iter(pieces).boxed();
            verified(bytes, 6, oid.to_owned(), "f".to_owned()).try_collect::<Vec<_>>().await
        };
        assert_eq!(read(&["hel", "lo\n"]).await.unwrap().concat(), b"hello\n");
        for wrong in [&["hello!"][..], &["hel"], &[], &["hello\n", "x"]] {
            assert_eq!(read(wrong).await.unwrap_err().kind(), ErrorKind::Corrupt, "{wrong:?}");
        }
    }
}
