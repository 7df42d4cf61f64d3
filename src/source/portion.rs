//! Portions of files over HTTP: how they are asked for, and whether the answer has them.

use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};

use super::{ByteStream, Portion};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{network_error, origin_text};
use crate::uri::ModelUri;

/// Asks for `portion` in `headers`.
pub(super) fn ask(portion: &Portion, headers: &mut HeaderMap) {
    if let Portion::Range(range) = portion {
        // Digits and a hyphen are a valid value.
        if let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{}", range.start, range.end.saturating_sub(1))) {
            headers.insert(RANGE, value);
        }
    }
}

/// The bytes of `answer`, of status 200, 206 or 416, which must be exactly `portion` of a file of this size.
///
/// # Errors
/// [`ErrorKind::RangesUnsupported`] for other bytes than were asked for, [`ErrorKind::Changed`] when the file is too
/// short to have them.
pub(super) fn receive(answer: Response, portion: &Portion, size: Option<u64>, uri: &ModelUri) -> Result<ByteStream> {
    let content_range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let length = expect(portion, size, answer.status(), content_range)
        .map_err(|(kind, problem)| Error::new(kind, format!("{uri} {problem}")))?;
    let (named, host) = (uri.clone(), origin_text(answer.url()));
    let bytes = answer.bytes_stream().map_err(move |error| network_error(&host, error).within(&named));
    Ok(super::exactly(bytes.boxed(), length, uri.to_string()))
}

/// How many bytes the body must have, where that is known.
pub(super) fn expect(
    portion: &Portion,
    size: Option<u64>,
    status: StatusCode,
    content_range: Option<&str>,
) -> Result<Option<u64>, (ErrorKind, &'static str)> {
    match (portion, status) {
        (Portion::Whole, StatusCode::OK) => Ok(size),
        // Of an empty file, or of a server that sees a range where there was none.
        (Portion::Whole, _) => Err((ErrorKind::Unavailable, "is served in part only")),
        (Portion::Range(range), StatusCode::PARTIAL_CONTENT) => {
            let total = size.map_or_else(|| "*".to_owned(), |size| size.to_string());
            let expected = format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1));
            match content_range {
                Some(sent) if sent == expected => Ok(Some(range.end - range.start)),
                _ => Err((ErrorKind::RangesUnsupported, "is served in other parts than asked")),
            }
        }
        (Portion::Range(range), StatusCode::OK) if Some(range.clone()) == size.map(|size| 0..size) => Ok(size),
        (Portion::Range(_), StatusCode::OK) => Err((ErrorKind::RangesUnsupported, "is not served in parts")),
        (Portion::Range(_), _) => Err((ErrorKind::Changed, "is shorter than it was")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_bytes_than_asked_are_never_taken() {
        let part = Portion::Range(10..20);
        let expect = |portion: &Portion, status, range| {
            expect(portion, Some(100), StatusCode::from_u16(status).unwrap(), range).map_err(|(kind, _)| kind)
        };
        assert_eq!(expect(&Portion::Whole, 200, None), Ok(Some(100)));
        assert_eq!(expect(&part, 206, Some("bytes 10-19/100")), Ok(Some(10)));
        assert_eq!(expect(&Portion::Range(0..100), 200, None), Ok(Some(100)));
        for (portion, status, range, kind) in [
            (&Portion::Whole, 206, Some("bytes 0-9/100"), ErrorKind::Unavailable),
            (&part, 206, Some("bytes 10-19/101"), ErrorKind::RangesUnsupported),
            (&part, 206, Some("bytes 11-20/100"), ErrorKind::RangesUnsupported),
            (&part, 206, None, ErrorKind::RangesUnsupported),
            (&part, 200, None, ErrorKind::RangesUnsupported),
            (&part, 416, Some("bytes */5"), ErrorKind::Changed),
        ] {
            assert_eq!(expect(portion, status, range), Err(kind), "{status} {range:?}");
        }
        let mut headers = HeaderMap::new();
        ask(&part, &mut headers);
        assert_eq!(headers[RANGE], "bytes=10-19");
    }

    proptest! {
        #[test]
        fn only_what_was_asked_for_is_taken(
            start in 0..1000u64, length in 1..1000u64, size in 2000..3000u64, status in 200..500u16,
            other in "(bytes )?[0-9*]{0,4}(-[0-9]{0,4})?(/[0-9*]{1,4})?",
        ) {
            let portion = Portion::Range(start..start + length);
            let status = StatusCode::from_u16(status).unwrap();
            let right = format!("bytes {start}-{}/{size}", start + length - 1);
            prop_assert_eq!(expect(&portion, Some(size), StatusCode::PARTIAL_CONTENT, Some(&right)).ok(), Some(Some(length)));
            let answered = expect(&portion, Some(size), status, Some(&other));
            prop_assert!(answered.is_err() || (status == StatusCode::PARTIAL_CONTENT && other == right), "{} {}", status, other);
        }
    }
}
