//! Signed S3 requests, as few and as plain as filling a server takes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{PART_SIZE, REGION};
use crate::http::client;
use crate::model::Pattern;

/// What the signature's canonical form leaves as it is.
const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const KEPT_IN_PATH: AsciiSet = KEPT.remove(b'/');

/// A refusal: status and body, for the panic's text.
type Result<T> = std::result::Result<T, String>;

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    credential: AwsCredential,
}

impl Client {
    pub(super) fn new(address: SocketAddr, access_key: &str, secret_key: &str) -> Self {
        let (key_id, secret_key) = (access_key.to_owned(), secret_key.to_owned());
        Self { http: client(), address, credential: AwsCredential { key_id, secret_key, token: None } }
    }

    pub(super) fn access_key(&self) -> &str {
        &self.credential.key_id
    }

    pub(super) fn secret_key(&self) -> &str {
        &self.credential.secret_key
    }

    /// Whether a server that knows the keys is there.
    pub(super) async fn answers(&self) -> bool {
        self.send(Method::GET, "/", "", Bytes::new()).await.is_ok_and(|response| response.status().is_success())
    }

    pub(super) async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.send_ok(Method::PUT, &format!("/{bucket}"), "", Bytes::new()).await.map(drop)
    }

    pub(super) async fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<()> {
        self.send_ok(Method::PUT, &path(bucket, key), "", bytes).await.map(drop)
    }

    pub(super) async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.send_ok(Method::DELETE, &path(bucket, key), "", Bytes::new()).await.map(drop)
    }

    pub(super) async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>> {
        let response = self.send(Method::GET, &path(bucket, key), "", Bytes::new()).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => checked(response).await?.bytes().await.map(Some).map_err(|error| error.to_string()),
        }
    }

    pub(super) async fn etag(&self, bucket: &str, key: &str) -> Result<Option<String>> {
        let response = self.send(Method::HEAD, &path(bucket, key), "", Bytes::new()).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(header(&checked(response).await?, "etag")),
        }
    }

    pub(super) async fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut query = format!("list-type=2&prefix={}", utf8_percent_encode(prefix, &KEPT));
            if let Some(token) = &token {
                query = format!("continuation-token={}&{query}", utf8_percent_encode(token, &KEPT));
            }
            let page = self.send_ok(Method::GET, &format!("/{bucket}"), &query, Bytes::new()).await?;
            let page = page.text().await.map_err(|error| error.to_string())?;
            keys.extend(elements(&page, "Key"));
            token = elements(&page, "NextContinuationToken").next();
            if token.is_none() {
                return Ok(keys);
            }
        }
    }

    pub(super) async fn put_pattern(&self, bucket: &str, key: &str, pattern: Pattern, size: u64) -> Result<()> {
        let path = path(bucket, key);
        if size <= PART_SIZE {
            return self.send_ok(Method::PUT, &path, "", part(pattern, 0, size)).await.map(drop);
        }
        let created = self.send_ok(Method::POST, &path, "uploads=", Bytes::new()).await?;
        let created = created.text().await.map_err(|error| error.to_string())?;
        let id = elements(&created, "UploadId").next().ok_or("an upload without an id")?;
        let id = utf8_percent_encode(&id, &KEPT).to_string();
        let parts = (0..size.div_ceil(PART_SIZE)).map(|i| {
            let (path, query) = (&path, format!("partNumber={}&uploadId={id}", i + 1));
            async move {
                let body = part(pattern, i * PART_SIZE, size);
                let response = self.send_ok(Method::PUT, path, &query, body).await?;
                let etag = header(&response, "etag").ok_or("a part without an ETag")?;
                let number = i + 1;
                Ok::<_, String>(format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
            }
        });
        // In order and few at once: rclone appends parts to the file, and keeps in memory those that come too early.
        let parts: Vec<String> = stream::iter(parts).buffered(2).try_collect().await?;
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat());
        let done = self.send_ok(Method::POST, &path, &format!("uploadId={id}"), body.into()).await?;
        // S3 may report a failure of this one request in the body of a 200.
        let done = done.text().await.map_err(|error| error.to_string())?;
        if done.contains("<Error>") { Err(done) } else { Ok(()) }
    }

    async fn send_ok(&self, method: Method, path: &str, query: &str, body: Bytes) -> Result<reqwest::Response> {
        checked(self.send(method, path, query, body).await?).await
    }

    /// Sends a signed request. `path` and `query` are percent-encoded, the query's parameters sorted.
    async fn send(&self, method: Method, path: &str, query: &str, body: Bytes) -> Result<reqwest::Response> {
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("http://{}{path}{separator}{query}", self.address);
        let mut unsigned = HttpRequest::new(HttpRequestBody::empty());
        *unsigned.method_mut() = method.clone();
        *unsigned.uri_mut() = url.parse().map_err(|error| format!("{url}: {error}"))?;
        AwsAuthorizer::new(&self.credential, "s3", REGION)
            .with_sign_payload(false)
            .try_authorize(&mut unsigned, None)
            .map_err(|error| error.to_string())?;
        let mut headers = std::mem::take(unsigned.headers_mut());
        // Declared also when it is nothing: rclone refuses to guess.
        headers.insert(CONTENT_LENGTH, body.len().into());
        let request = self.http.request(method, url).headers(headers).timeout(Duration::from_secs(120)).body(body);
        request.send().await.map_err(|error| format!("{error:?}"))
    }
}

fn path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", utf8_percent_encode(key, &KEPT_IN_PATH))
}

fn part(pattern: Pattern, offset: u64, size: u64) -> Bytes {
    pattern.bytes(offset, PART_SIZE.min(size - offset) as usize).into()
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

async fn checked(response: reqwest::Response) -> Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = response.url().to_string();
    Err(format!("{url}: {status}: {}", response.text().await.unwrap_or_default()))
}

/// The texts of all elements `name` of a document as flat as S3's answers are.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = String> + use<'a> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let pieces: Vec<&str> = xml.split(&*start).skip(1).filter_map(|piece| Some(piece.split_once(&*end)?.0)).collect();
    pieces.into_iter().map(unescape)
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';').unwrap_or((after, ""));
        out.push_str(before);
        out.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.trim_start_matches('#');
                let code = number.strip_prefix('x').map_or_else(|| number.parse(), |hex| u32::from_str_radix(hex, 16));
                code.ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
        });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_unescaped() {
        let xml = "<L><Key>a&amp;b</Key><Key>&#34;&#x27;&lt;</Key><KeyCount>2</KeyCount></L>";
        assert_eq!(elements(xml, "Key").collect::<Vec<_>>(), ["a&b", "\"'<"]);
        assert_eq!(elements(xml, "Token").next(), None);
    }
}
