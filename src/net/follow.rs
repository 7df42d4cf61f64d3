//! Requests that may be redirected.
//!
//! Redirects are followed by hand: each hop's address is checked like any other, credentials stay with the origin that
//! they were given for, and https never falls back to http.

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode};
use url::Url;

use super::{HttpClient, origin_text};
use crate::error::{Error, ErrorKind, Result};

/// As browsers do it (Fetch standard: 20), less.
const MAX_REDIRECTS: usize = 10;

/// A request that may be redirected.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Url,
    /// Sent to every hop.
    pub(crate) headers: HeaderMap,
    /// Sent to the origin of `url` alone.
    pub(crate) credentials: &'a HeaderMap,
    /// Sent to every hop, for what is asked by POST.
    pub(crate) body: Option<Bytes>,
    /// Whether a redirect to another origin is followed, or returned as the answer.
    pub(crate) leaves: bool,
}

/// An answer, and the way to it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) answer: Response,
    /// Where it came from.
    pub(crate) url: Url,
    /// Headers of the first answer: this one, or a redirect on the way here.
    pub(crate) first: HeaderMap,
}

impl HttpClient {
    /// Asks, follows redirects and returns the last answer, whatever its status.
    ///
    /// # Errors
    /// Those of [`Self::execute`]; [`ErrorKind::PermissionDenied`] for a redirect that must not be followed.
    pub(crate) async fn follow(&self, question: Question<'_>) -> Result<Arrival> {
        let mut url = question.url.clone();
        let mut first = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(question.method.clone(), url.clone());
            *request.body_mut() = question.body.clone().map(Into::into);
            let headers = request.headers_mut();
            // First, so that headers that the user brought change nothing about what is asked.
            if url.origin() == question.url.origin() {
                headers.clone_from(question.credentials);
            }
            headers.extend(question.headers.clone());
            // A compressed transfer would have another length, and no ranges.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let answer = self.execute(request).await?;
            let first = first.get_or_insert_with(|| answer.headers().clone());
            match redirection(&url, answer.status(), answer.headers())? {
                Some(next) if question.leaves || next.origin() == question.url.origin() => url = next,
                _ => return Ok(Arrival { answer, url, first: std::mem::take(first) }),
            }
        }
        let host = origin_text(question.url);
        Err(Error::new(ErrorKind::Unavailable, format!("{host} redirects more than {MAX_REDIRECTS} times")))
    }
}

/// Where an answer leads to, if it is a redirect.
fn redirection(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let refused = |problem: &str| {
        Error::new(ErrorKind::PermissionDenied, format!("the request is redirected by {} {problem}", origin_text(from)))
    };
    let target = headers.get(LOCATION).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let next = target.and_then(|target| from.join(target).ok()).ok_or_else(|| refused("to no valid place"))?;
    match (from.scheme(), next.scheme()) {
        ("https", "http") => Err(refused("from https to http, which anybody on the way could change")),
        (_, "http" | "https") => Ok(Some(next)),
        (_, other) => Err(refused(&format!("to a {other}: URL"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &str, location: &[u8]) -> Result<Option<Url>> {
        let headers = [(LOCATION, HeaderValue::from_bytes(location).unwrap())].into_iter().collect();
        redirection(&Url::parse(from).unwrap(), StatusCode::TEMPORARY_REDIRECT, &headers)
    }

    #[test]
    fn a_redirect_leads_to_http_servers_only_and_never_from_https_to_http() {
        for (from, to, place) in [
            ("https://h/a/b", "/c?d=e", "https://h/c?d=e"),
            ("https://h/a/b", "c", "https://h/a/c"),
            ("http://h/a", "https://other:8443/x", "https://other:8443/x"),
            ("http://h/a", "//other/x", "http://other/x"),
        ] {
            assert_eq!(redirected(from, to.as_bytes()).unwrap().unwrap().as_str(), place);
        }
        for (to, hint) in [
            (&b"http://h/a"[..], "from https to http"),
            (b"file:///etc/passwd", "to a file: URL"),
            (b"https://[", "no valid place"),
            (b"\xff", "no valid place"),
        ] {
            let error = redirected("https://h/a", to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains(hint) && error.to_string().contains("https://h"), "{error}");
        }
        let home = Url::parse("https://h/").unwrap();
        assert!(redirection(&home, StatusCode::FOUND, &HeaderMap::new()).is_err());
        assert!(redirection(&home, StatusCode::OK, &HeaderMap::new()).unwrap().is_none());
    }
}
