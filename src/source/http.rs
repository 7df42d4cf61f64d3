//! Web servers: `https://host/path/model.gguf`, one file, laid out under the base name of the URL's path.
//!
//! The query is part of every request (presigned URLs) and of no name. Redirects are followed; credentials stay with the
//! origin that they were given for, and https never falls back to http. A version is pinned by ETag, else by
//! Last-Modified; every answer is compared with it. A server that gives neither can be read, but neither resumed nor
//! found again in the cache.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::{ByteStream, Context, Options, Portion, Registration, Source, portion};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Entry, Item, Listing};
use crate::net::{HttpClient, Question, authorization, origin_text};
use crate::uri::ModelUri;

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;

pub(super) const REGISTRATION: Registration = Registration {
    name: "http",
    forms: &["https://host/file", "http://host/file"],
    attributes: &[],
    place_keys: &[],
    claims: |uri| matches!(uri.scheme().as_str(), "http" | "https"),
    open: |uri, options, credentials, context| Ok(Arc::new(Http::open(uri, options, credentials, context)?)),
};

struct Http {
    uri: ModelUri,
    /// Its query may be a signature.
    url: Url,
    name: String,
    /// Sent to the origin of `url` alone.
    headers: Secret<HeaderMap>,
    client: HttpClient,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("uri", &self.uri).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Http {
    fn open(uri: &ModelUri, _: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let invalid = |problem: &str| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let mut url = Url::parse(uri.expose()).map_err(|_| invalid("is not a valid URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "has a user name or password in it, where everybody who may read the pod can see them; put them into a \
                 Secret under the keys username and password",
            ));
        }
        url.set_fragment(None);
        let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        let name = percent_decode_str(last).decode_utf8().map_err(|_| invalid("has a file name that is not UTF-8"))?;
        if name.is_empty() {
            return Err(invalid("names a directory; web servers have no listings, so name one file"));
        }
        let name = name.into_owned();
        let headers = Secret::new(headers(&url, credentials)?);
        Ok(Self { uri: uri.clone(), url, name, headers, client: context.http.clone() })
    }

    /// Asks for the file, following redirects, and returns an answer of status 200, 206 or 416.
    async fn get(&self, headers: HeaderMap) -> Result<Response> {
        let credentials = self.headers.expose();
        let question = Question { method: Method::GET, url: &self.url, headers, credentials, body: None, leaves: true };
        let arrival = self.client.follow(question).await.map_err(|error| error.within(&self.uri))?;
        self.accept(&arrival.url, arrival.answer)
    }

    fn accept(&self, url: &Url, answer: Response) -> Result<Response> {
        let status = answer.status();
        let host = origin_text(url);
        let anonymous = self.headers.expose().is_empty();
        let (kind, problem) = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => return Ok(answer),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                (ErrorKind::NotFound, format!("is not found at {host}; check the URI"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if anonymous => (
                ErrorKind::Unauthenticated,
                format!(
                    "is refused by {host} without credentials; give a Secret with username and password, or headers"
                ),
            ),
            StatusCode::UNAUTHORIZED => {
                (ErrorKind::Unauthenticated, format!("is refused by {host}: the Secret's credentials are not accepted"))
            }
            StatusCode::FORBIDDEN => (
                ErrorKind::PermissionDenied,
                format!("is refused by {host} for these credentials (a signed URL may have expired)"),
            ),
            StatusCode::PRECONDITION_FAILED => (ErrorKind::Changed, "has changed at the source".to_owned()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                (ErrorKind::Unavailable, format!("is not served by {host} now ({status})"))
            }
            _ if status.is_client_error() => {
                (ErrorKind::InvalidArgument, format!("is refused by {host} ({status}); check the URI"))
            }
            _ => (ErrorKind::Unavailable, format!("is not served by {host} now ({status})")),
        };
        Err(self.error(kind, problem))
    }

    /// Asks for the first byte: tells size, version and whether parts are served, where a HEAD would be refused by
    /// presigned URLs.
    async fn probe(&self) -> Result<Item> {
        let first_byte = [(RANGE, HeaderValue::from_static("bytes=0-0"))].into_iter().collect();
        let answer = self.get(first_byte).await?;
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size = size(answer.status(), text(&CONTENT_LENGTH), text(&CONTENT_RANGE));
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && size != Some(0) {
            return Err(self.error(ErrorKind::Unavailable, "has a server that refuses its own first byte".to_owned()));
        }
        let validator = validator(&answer);
        Ok(Item {
            path: self.name.clone(),
            size,
            locator: self.url.as_str().to_owned(),
            validator,
            digest: None,
            unpack: None,
        })
    }

    fn error(&self, kind: ErrorKind, problem: String) -> Error {
        Error::new(kind, format!("{} {problem}", self.uri))
    }
}

#[async_trait]
impl Source for Http {
    async fn list(&self) -> Result<Listing> {
        let item = self.probe().await?;
        let store = format!("http|{}", self.url.origin().ascii_serialization());
        Ok(Listing { store, revision: None, items: vec![item], exact: true })
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        // Listing has read the first byte with these very credentials; asking again only tells whether it is still so.
        let item = self.probe().await?;
        let same = item.validator == entry.validator && item.size == entry.size;
        if same { Ok(()) } else { Err(self.error(ErrorKind::Changed, "has changed at the source".to_owned())) }
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let mut headers = HeaderMap::new();
        portion::ask(&portion, &mut headers);
        if matches!(portion, Portion::Range(_))
            && let Some(Validator::Strong(etag)) = entry.validator.as_deref().map(Validator::parse)
        {
            headers.insert(IF_RANGE, value(etag)?);
        }
        let answer = self.get(headers).await?;
        if validator(&answer) != entry.validator {
            return Err(self.error(ErrorKind::Changed, "has changed at the source".to_owned()));
        }
        portion::receive(answer, &portion, entry.size, &self.uri)
    }
}

/// The size of a file whose first byte was asked for; of one that is empty, it is told as `bytes */0`.
fn size(status: StatusCode, content_length: Option<&str>, content_range: Option<&str>) -> Option<u64> {
    match status {
        StatusCode::OK => content_length?.parse().ok(),
        // `bytes 0-0/123`
        _ => content_range?.rsplit_once('/')?.1.parse().ok(),
    }
}

/// How a version is told from another. Kept as text in manifests: `etag "x"`, `modified Sun, …`.
enum Validator<'a> {
    /// An ETag that promises equal bytes, good for `If-Range` (RFC 9110 section 13.1.5).
    Strong(&'a str),
    Weak,
}

impl<'a> Validator<'a> {
    fn parse(text: &'a str) -> Self {
        text.strip_prefix("etag ").filter(|etag| !etag.starts_with("W/")).map_or(Self::Weak, Self::Strong)
    }
}

fn validator(answer: &Response) -> Option<String> {
    let etag = header(answer, &ETAG).map(|etag| format!("etag {etag}"));
    etag.or_else(|| header(answer, &LAST_MODIFIED).map(|time| format!("modified {time}")))
}

fn header(answer: &Response, name: &HeaderName) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "a header that can't be sent", error))
}

/// What the Secret says to send: `headers` (a JSON object), `username` and `password` (basic), or `token` (bearer); all of
/// them for the host in `https-host` alone, if that is given. In an environment KServe calls the headers
/// `<host>-headers`.
fn headers(url: &Url, credentials: &Credentials) -> Result<HeaderMap> {
    let invalid = |text: &str| Error::new(ErrorKind::InvalidArgument, format!("the Secret's key {text}"));
    let mut headers = HeaderMap::new();
    let host = url.host_str().unwrap_or_default();
    let bound_to = |name: &str| {
        name.eq_ignore_ascii_case(host)
            || url.port_or_known_default().is_some_and(|port| name.eq_ignore_ascii_case(&format!("{host}:{port}")))
    };
    let own = credentials.get(&[&format!("{host}-headers")]);
    let of_another = credentials.get(&["https-host"]).is_some_and(|name| !bound_to(name.expose()));
    if of_another && own.is_none() {
        return Ok(headers);
    }
    if let Some(json) = own.or_else(|| credentials.get(&["headers"])) {
        headers = authorization::headers_of_json(json.expose())
            .map_err(|problem| invalid(&format!("\"headers\" {problem}")))?;
    }
    if of_another {
        return Ok(headers);
    }
    let authorization =
        match (credentials.get(&["username"]), credentials.get(&["password"]), credentials.get(&["token"])) {
            (Some(user), password, _) => {
                let password = password.map(|password| password.expose().clone()).unwrap_or_default();
                Some(authorization::basic(user.expose(), &password))
            }
            (None, _, Some(token)) => Some(authorization::bearer(token.expose())),
            (None, _, None) => None,
        };
    if let Some(value) = authorization {
        let value = value.ok_or_else(|| invalid("\"token\" has characters that can't be sent"))?;
        headers.insert(reqwest::header::AUTHORIZATION, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fuzzing::CONTEXT;
    use proptest::prelude::*;

    fn open(uri: &str, secrets: &[(&str, &str)]) -> Result<Http> {
        Http::open(&ModelUri::parse(uri)?, &Options::new(), &secrets.iter().copied().collect(), &CONTEXT)
    }

    #[test]
    fn the_name_is_the_paths_last_part_and_never_the_query() {
        for (uri, name) in [
            ("https://h/a/m.gguf", "m.gguf"),
            ("https://h/a/m%20%C3%A9.gguf?X-Amz-Signature=x/y", "m é.gguf"),
            ("https://h/a+b#part", "a+b"),
        ] {
            assert_eq!(open(uri, &[]).unwrap().name, name);
        }
        for (uri, hint) in [
            ("https://h/a/", "names a directory"),
            ("https://h", "names a directory"),
            ("https://u:p@h/m", "Secret"),
            ("https://h:x/m", "valid URL"),
        ] {
            let error = open(uri, &[]).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.report().contains(hint), "{}", error.report());
        }
    }

    #[test]
    fn secrets_become_headers() {
        let authorization = |secrets: &[(&str, &str)]| {
            let headers = open("https://h/m", secrets).unwrap().headers;
            headers.expose().get("authorization").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(
            authorization(&[("username", "Aladdin"), ("password", "open sesame")]).unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(authorization(&[("token", "t\n")]).unwrap(), "Bearer t");
        assert_eq!(authorization(&[("headers", r#"{"Authorization": "x"}"#)]).unwrap(), "x");
        for (host, sent) in
            [("h", true), ("H", true), ("h:443", true), ("other", false), ("h:80", false), ("hh", false)]
        {
            let secrets = [("headers", r#"{"Authorization": "x"}"#), ("https-host", host)];
            assert_eq!(authorization(&secrets).is_some(), sent, "{host}");
            assert_eq!(authorization(&[("token", "t"), ("https-host", host)]).is_some(), sent, "{host}");
        }
        let of_environment =
            |name| authorization(&[(name, r#"{"Authorization": "x"}"#), ("https-host", "other"), ("token", "t")]);
        assert_eq!(of_environment("h-headers").unwrap(), "x");
        assert_eq!(of_environment("other-headers"), None);
        for secrets in [&[("headers", "nonsense")][..], &[("headers", r#"{"a b": "x"}"#)], &[("token", "a\nb")]] {
            let error = open("https://h/m", secrets).unwrap_err().report();
            assert!(error.contains("the Secret's key") && !error.contains("nonsense"), "{error}");
        }
        let http = open("https://h/m?sig=CANARY", &[("token", "CANARY")]).unwrap();
        assert!(!format!("{http:?}").contains("CANARY"));
    }

    #[test]
    fn the_size_is_told_by_the_first_byte() {
        let range = |text| size(StatusCode::PARTIAL_CONTENT, Some("1"), Some(text));
        assert_eq!((range("bytes 0-0/123"), range("bytes */0"), range("bytes 0-0/*")), (Some(123), Some(0), None));
        assert_eq!(size(StatusCode::OK, Some("7"), Some("bytes 0-0/123")), Some(7));
        assert_eq!(size(StatusCode::OK, None, None), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_a_panic(status in 200..600u16, text in "(bytes )?[0-9*/-]{0,30}", bytes: u64) {
            let status = StatusCode::from_u16(status).unwrap();
            let _ = size(status, Some(&text), Some(&text));
            let range = format!("bytes 0-0/{bytes}");
            prop_assert_eq!(size(StatusCode::PARTIAL_CONTENT, None, Some(&range)), Some(bytes));
        }

        #[test]
        fn any_secret_is_headers_or_an_error_that_does_not_show_it(
            key in "headers|token|username|https-host|h-headers", value in "(\\{\"[a-zA-Z -]{0,9}\": ?\")?CANARY[\"}a-z\n]{0,6}",
        ) {
            match open("https://h/m", &[(&key, &value)]) {
                Ok(http) => {
                    let shown = format!("{http:?}");
                    prop_assert!(!shown.contains("CANARY"), "{}", shown);
                }
                Err(error) => prop_assert!(!error.report().contains("CANARY"), "{}", error.report()),
            }
        }
    }
}
