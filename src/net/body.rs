//! Bodies that are read into memory, up to a bound.

use bytes::Bytes;
use reqwest::Response;

use super::{network_error, origin_text};
use crate::error::{Error, ErrorKind, Result};
use crate::size::Size;

/// The whole of a body of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::ResourceExhausted`] when it is longer, [`ErrorKind::Unavailable`] when it breaks off.
pub(crate) async fn read_all(mut answer: Response, limit: usize) -> Result<Bytes> {
    let host = origin_text(answer.url());
    let too_long = || {
        let text = format!("the answer of {host} is longer than {}", Size(limit as u64));
        Error::new(ErrorKind::ResourceExhausted, text)
    };
    if answer.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| network_error(&host, error))? {
        if piece.len() > limit - body.len() {
            return Err(too_long());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

/// The beginning of a body, for an error's sentence: what can't be read is left out.
pub(crate) async fn beginning(mut answer: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == limit {
            break;
        }
    }
    body
}
