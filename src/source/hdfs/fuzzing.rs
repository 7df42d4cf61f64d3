//! What must hold of a namenode's answers, and of what users write about HDFS.

use percent_encoding::percent_decode_str;

use super::answer::{Page, batch, listing, status};
use super::refusal::{Refusal, explain};
use super::settings::Settings;
use crate::net::CaCertificates;
use crate::source::fuzzing::{Checks, Written, refused};

pub(in crate::source) const CHECKS: Checks =
    &[(b's', one), (b'l', plain_page), (b'b', batch_page), (b'x', refusal), (b'w', settings), (b'a', authorities)];

fn one(json: &[u8]) -> bool {
    match status(json) {
        Ok(status) => {
            assert!(status.validator().ends_with(&format!("length {}", status.length)));
            true
        }
        Err(problem) => refused(&problem),
    }
}

fn plain_page(json: &[u8]) -> bool {
    page(listing(json))
}

fn batch_page(json: &[u8]) -> bool {
    page(batch(json))
}

/// Names lead nowhere but into their directory, and a listing goes on.
fn page(page: Result<Page, String>) -> bool {
    match page {
        Ok(Page { entries, remaining }) => {
            assert!(!entries.is_empty() || remaining == 0);
            for entry in entries {
                assert!(!entry.name.contains('/') && !matches!(entry.name.as_str(), "" | "." | ".."), "{entry:?}");
            }
            true
        }
        Err(problem) => refused(&problem),
    }
}

/// A status of three digits, and a body. Accepted is what the server's software says, and not another's.
fn refusal(input: &[u8]) -> bool {
    let Some((status, body)) = input.split_at_checked(3) else { return false };
    let Some(status) = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok()) else { return false };
    let explained = explain(status, false, body, false);
    if let Refusal::Elsewhere(words) | Refusal::Final(_, words) = &explained {
        refused(words);
    }
    explained != explain(status, false, b"", false)
}

/// Every question goes to a namenode, and is about the path that was written.
fn settings(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    match Settings::read(&written.uri, &written.options, &written.credentials) {
        Ok(settings) => {
            assert!(settings.path.is_empty() || settings.path.starts_with('/') && !settings.path.ends_with('/'));
            for namenode in settings.namenodes() {
                let url = settings.url(namenode, &settings.path, "OPEN", &[("offset", "7")]);
                assert!(url.origin() == namenode.origin() && url.username().is_empty(), "{url}");
                assert!(url.query().is_some_and(|query| query.starts_with("op=OPEN&offset=7")), "{url}");
                let decoded = percent_decode_str(url.path()).decode_utf8_lossy();
                assert!(decoded.contains("/webhdfs/v1/") && decoded.ends_with(&settings.path), "{url}");
            }
            true
        }
        Err(error) => written.refused(&error),
    }
}

fn authorities(pem: &[u8]) -> bool {
    match CaCertificates::from_pem(pem) {
        Ok(_) => true,
        Err(problem) => refused(problem),
    }
}
