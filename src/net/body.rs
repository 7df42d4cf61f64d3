//! Bodies that are read into memory, up to a bound.

use crate::error::{Error, ErrorKind, Result};
use crate::net::network_error;

/// The whole of a body of at most `limit` bytes.
///
/// # Errors
/// [`ErrorKind::ResourceExhausted`] when it is longer, [`ErrorKind::Unavailable`] when it breaks off.
pub(crate) async fn read(host: &str, mut answer: reqwest::Response, limit: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| network_error(host, error))? {
        if chunk.len() > limit - body.len() {
            return Err(too_long(host, limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of a body, for an error's sentence: what can't be read is left out.
pub(crate) async fn beginning(mut answer: reqwest::Response, limit: usize) -> Vec<u8> {
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

fn too_long(host: &str, limit: usize) -> Error {
    Error::new(ErrorKind::ResourceExhausted, format!("{host} answered with more than {limit} bytes"))
}
