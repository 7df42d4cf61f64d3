//! What must hold of what object stores say, whosoever they are.

use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::Error as Store;

use super::checksum::Declared;
use super::failure::{Dialect, Failures};
use super::{Key, parse_endpoint, quoted};
use crate::source::fuzzing::{Checks, refused};
use crate::uri::ModelUri;

pub(in crate::source) const CHECKS: Checks = &[
    (b'h', checksums),
    (b'f', failure),
    (b'e', endpoint),
    (b'k', key),
    (b'q', etag),
    #[cfg(any(feature = "gcs", feature = "azure"))]
    (b't', super::token::fuzzing::token),
    #[cfg(any(feature = "gcs", feature = "azure"))]
    (b'r', super::token::fuzzing::refusal),
    #[cfg(any(feature = "gcs", feature = "azure"))]
    (b'w', super::token::fuzzing::token_place),
];

/// Lines of headers.
fn checksums(input: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(&line[at + 1..])) {
            headers.append(name, value);
        }
    }
    Declared::parse(&headers).is_some()
}

const DIALECT: Dialect = Dialect {
    server: "a server",
    container: "bucket",
    keys: "KEY",
    rights: "the right to read",
    elsewhere: "elsewhere",
    codes: &[],
};

/// A status of three digits, and a body, in the words in which `object_store` tells of a refusal.
fn failure(input: &[u8]) -> bool {
    let Some((status, body)) = input.split_at_checked(3) else { return false };
    let Some(status) = http::StatusCode::from_bytes(status).ok() else { return false };
    let Ok(uri) = ModelUri::parse("s3://bucket/model") else { return false };
    let place = "http://s3.example".to_owned();
    let failures = Failures { uri, container: "bucket".to_owned(), place, anonymous: false, dialect: &DIALECT };
    let body = String::from_utf8_lossy(body);
    let text = format!("Server returned non-2xx status code: {status}: {body}");
    let report = failures.explain(Store::Generic { store: "S3", source: text.into() }).report();
    refused(&report);
    assert!(report.contains(status.as_str()), "{report}");
    true
}

fn endpoint(input: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(input).ok() else { return false };
    match parse_endpoint(text, "https://s3.example") {
        Ok(endpoint) => {
            let url = url::Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            assert!(url.is_some_and(|url| url.has_host()) && !endpoint.ends_with('/'), "{endpoint}");
            true
        }
        Err(error) => refused(&error.report()),
    }
}

fn key(input: &[u8]) -> bool {
    let Some(uri) = std::str::from_utf8(input).ok().and_then(|text| ModelUri::parse(&format!("s3://b/{text}")).ok())
    else {
        return false;
    };
    match Key::parse(&uri, uri.path()) {
        Ok(key) => {
            // Keys are taken literally.
            let path = uri.path().trim_start_matches('/');
            assert_eq!(key.path.as_ref(), path.strip_suffix('/').unwrap_or(path));
            true
        }
        Err(error) => refused(&error.report()),
    }
}

fn etag(input: &[u8]) -> bool {
    let Some(etag) = std::str::from_utf8(input).ok().and_then(quoted) else { return false };
    assert!(etag.starts_with('"') || etag.starts_with("W/"), "{etag}");
    assert_eq!(quoted(&etag).as_deref(), Some(etag.as_str()));
    true
}
