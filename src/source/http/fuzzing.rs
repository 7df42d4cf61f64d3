//! What must hold of web servers' headers, and of what users write about them.

use std::ops::Range;

use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use super::{Http, Validator, size};
use crate::source::fuzzing::{CONTEXT, Checks, Written, refused};
use crate::source::{Portion, portion};

pub(in crate::source) const CHECKS: Checks = &[(b'o', opened), (b'r', range), (b's', first_byte), (b'v', validator)];

/// The query is of no name; what is sent is what was written, to the host that was written.
fn opened(input: &[u8]) -> bool {
    let written = Written::parse(input).filter(|written| (super::REGISTRATION.claims)(&written.uri));
    let Some(written) = written else { return false };
    match Http::open(&written.uri, &written.options, &written.credentials, &CONTEXT) {
        Ok(http) => {
            assert!(!http.name.is_empty() && http.url.has_host() && http.url.fragment().is_none(), "{http:?}");
            assert!(http.url.username().is_empty() && http.url.password().is_none(), "{http:?}");
            true
        }
        Err(error) => written.refused(&error),
    }
}

/// A status of three digits, and a `Content-Range`. Only the asked bytes are taken.
fn range(input: &[u8]) -> bool {
    let Some((status, header)) = input.split_at_checked(3) else { return false };
    let status = StatusCode::from_bytes(status).ok();
    let (Some(status), Some(header)) = (status, std::str::from_utf8(header).ok()) else { return false };
    const ASKED: Range<u64> = 10..20;
    match portion::expect(&Portion::Range(ASKED), Some(100), status, Some(header)) {
        Ok(length) => {
            assert_eq!((status.as_u16(), header, length), (206, "bytes 10-19/100", Some(10)));
            true
        }
        Err((_, problem)) => refused(problem),
    }
}

/// A status of three digits, and the header that tells the size: `Content-Length`, or `Content-Range` of the first byte.
fn first_byte(input: &[u8]) -> bool {
    let Some((status, header)) = input.split_at_checked(3) else { return false };
    let status = StatusCode::from_bytes(status).ok();
    let (Some(status), Some(header)) = (status, std::str::from_utf8(header).ok()) else { return false };
    let Some(size) = size(status, Some(header), Some(header)) else { return false };
    assert!(header.trim_end().ends_with(&size.to_string()), "{size} of {header:?}");
    true
}

/// A validator as a manifest keeps it. A strong one goes into a header.
fn validator(input: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(input).ok() else { return false };
    match Validator::parse(text) {
        Validator::Strong(etag) => {
            assert!(!etag.starts_with("W/"));
            HeaderValue::from_str(etag).is_ok()
        }
        Validator::Weak => false,
    }
}
