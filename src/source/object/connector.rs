//! Puts the process's shared HTTP client under `object_store`, and evens out what servers do in the wild.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient as StoreClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};

use super::MAX_PAGES;
use super::checksum::Declared;
use crate::error::{Error, ErrorKind};
use crate::net::{HttpClient, body, network_error, origin_text};
use crate::size::Size;

/// What is read of a refusal: its code stands at the beginning.
const MOST_REFUSAL: usize = 64 << 10;
/// Most bytes of one page of a listing: Amazon's have 1000 keys of at most 1024 bytes, Azure's 5000 names of 1024 characters.
const MOST_PAGE: u64 = 16 << 20;

/// Gives every store of the process the same connections.
#[derive(Debug)]
pub(in crate::source) struct Connector {
    client: HttpClient,
}

impl Connector {
    pub(in crate::source) fn new(client: HttpClient) -> Self {
        Self { client }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<StoreClient> {
        Ok(StoreClient::new(Service { client: self.client.clone(), pages: AtomicUsize::new(0) }))
    }
}

#[derive(Debug)]
struct Service {
    client: HttpClient,
    /// How far the store's listing has come. A model is listed once at a time.
    pages: AtomicUsize,
}

impl Service {
    /// Counts the page that is asked for. `object_store` hands on what pages hold and would follow empty ones for ever.
    fn turn_page(&self, url: &url::Url) -> Result<(), Error> {
        let continues = url.query_pairs().any(|(name, _)| name == "continuation-token" || name == "marker");
        let page = if continues { self.pages.load(Ordering::Relaxed) + 1 } else { 1 };
        self.pages.store(page, Ordering::Relaxed);
        if page > MAX_PAGES { Err(endless(&origin_text(url))) } else { Ok(()) }
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: url::Url =
            parts.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        let host = origin_text(&url);
        let asked = parts.headers.get(RANGE).cloned();
        // Content alone is handed on as it comes: `object_store` keeps the whole of any other body in memory.
        let listing = is_listing(&url);
        if listing {
            self.turn_page(&url).map_err(http_error)?;
        }
        let most = if parts.method == Method::GET && !listing { u64::MAX } else { MOST_PAGE };
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        // A read-only client sends no bodies worth streaming.
        if let Some(bytes) = body.as_bytes().filter(|bytes| !bytes.is_empty()) {
            *request.body_mut() = Some(bytes.clone().into());
        }

        let answer = self.client.execute(request).await.map_err(http_error)?;
        let answer: http::Response<reqwest::Body> = answer.into();
        let (mut parts, body) = answer.into_parts();
        if is_decompressed(&parts.headers) {
            let text = "an object is stored with Content-Encoding: gzip, and would arrive decompressed, at another \
                        length than listed; store it without that encoding, or exclude it with ignorePatterns";
            return Err(http_error(Error::new(ErrorKind::FailedPrecondition, text)));
        }
        if parts.headers.get(AZURE_FOLDER).is_some_and(|value| value == "true") {
            // As accounts with real directories say it, which `object_store` takes for no blob at all.
            parts.headers.insert(AZURE_TYPE, HeaderValue::from_static("directory"));
        }
        if let Some(code) = parts.headers.get(AZURE_CODE).filter(|_| parts.status.is_client_error()) {
            // The answer to a HEAD has no body to tell it.
            let code = format!("<Code>{}</Code>", code.to_str().unwrap_or_default());
            return Ok(HttpResponse::from_parts(parts, code.into()));
        }
        if !parts.status.is_success() {
            let refusal = body::beginning(http::Response::new(body).into(), MOST_REFUSAL).await;
            let mut refusal = String::from_utf8_lossy(&refusal).into_owned();
            if let Some(region) = parts.headers.get(BUCKET_REGION).and_then(|region| region.to_str().ok()) {
                // The answer to a HEAD has no body to tell it.
                refusal.push_str(&format!("<Region>{region}</Region>"));
                if parts.status.is_redirection() {
                    // To no place that `object_store` could follow to, and it would lose the body.
                    refusal.insert_str(0, "<Code>PermanentRedirect</Code>");
                    parts.status = StatusCode::BAD_REQUEST;
                }
            }
            return Ok(HttpResponse::from_parts(parts, refusal.into()));
        }
        if let Some(declared) = Declared::parse(&parts.headers) {
            parts.extensions.insert(declared);
        }
        if let Some(asked) = asked.filter(|_| parts.status == StatusCode::OK) {
            if !is_answer_to(&asked, parts.headers.get(CONTENT_RANGE)) {
                let text = format!("{host} answers a request for a part with the whole");
                return Err(http_error(Error::new(ErrorKind::RangesUnsupported, text)));
            }
            // `rclone serve s3` sends the right part, and says so, under the wrong status.
            parts.status = StatusCode::PARTIAL_CONTENT;
        }
        let mut left = most;
        let pieces = http_body_util::BodyDataStream::new(body).map(move |piece| {
            let piece = piece.map_err(|error| network_error(&host, error))?;
            left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_long(&host, most))?;
            Ok::<_, Error>(http_body::Frame::data(piece))
        });
        let body = http_body_util::StreamBody::new(pieces.map_err(http_error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// What Hadoop and Data Lake tools leave on an empty blob that stands for a directory.
const AZURE_FOLDER: &str = "x-ms-meta-hdi_isfolder";
const AZURE_TYPE: &str = "x-ms-resource-type";
/// Where Amazon tells the region that a bucket is in.
const BUCKET_REGION: &str = "x-amz-bucket-region";
/// Where Azure's services tell an error's code.
const AZURE_CODE: &str = "x-ms-error-code";

/// Whether a request asks for a page of a listing, as S3 and Google (`list-type=2`) and Azure (`comp=list`) are asked.
fn is_listing(url: &url::Url) -> bool {
    url.query_pairs().any(|(name, value)| name == "list-type" || (name == "comp" && value == "list"))
}

pub(in crate::source) fn endless(host: &str) -> Error {
    let text = format!("{host}'s listing has more than {MAX_PAGES} pages, and does not come to an end");
    Error::new(ErrorKind::ResourceExhausted, text)
}

fn too_long(host: &str, most: u64) -> Error {
    let text = format!("a page of {host}'s listing is longer than {}", Size(most));
    Error::new(ErrorKind::ResourceExhausted, text)
}

/// Google's servers decompress what is stored with `Content-Encoding: gzip`, for whoever does not ask otherwise.
fn is_decompressed(headers: &HeaderMap) -> bool {
    let is_gzip = |name| headers.get(name).is_some_and(|value: &HeaderValue| value == "gzip");
    is_gzip("x-goog-stored-content-encoding") && !is_gzip(CONTENT_ENCODING.as_str())
}

/// Whether `Content-Range: bytes a-b/n` is exactly what `Range: bytes=a-b` asked for.
fn is_answer_to(asked: &HeaderValue, answered: Option<&HeaderValue>) -> bool {
    let asked = asked.to_str().ok().and_then(|text| text.strip_prefix("bytes="));
    let answered = answered.and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes "));
    match (asked, answered.and_then(|text| text.split_once('/'))) {
        (Some(asked), Some((range, _))) => asked == range,
        _ => false,
    }
}

fn http_error(error: Error) -> HttpError {
    let kind = match error.kind() {
        ErrorKind::Unavailable => HttpErrorKind::Interrupted,
        // Not to be retried.
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_the_range_that_was_asked_for_is_taken() {
        let is = |asked: &'static str, answered: Option<&'static str>| {
            is_answer_to(&HeaderValue::from_static(asked), answered.map(HeaderValue::from_static).as_ref())
        };
        assert!(is("bytes=5-9", Some("bytes 5-9/100")));
        assert!(is("bytes=5-9", Some("bytes 5-9/*")));
        for wrong in [None, Some("bytes 5-8/100"), Some("bytes 0-9/100"), Some("5-9/100"), Some("bytes */100")] {
            assert!(!is("bytes=5-9", wrong), "{wrong:?}");
        }
    }
}
