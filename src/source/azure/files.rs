//! Azure Files, by its REST interface: `https://ACCOUNT.file.core.windows.net/SHARE/path`.
//!
//! Directories are listed one by one, to any depth. Azure Files knows no conditional reads: the ETag of each answer is
//! compared with the listed one.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::azure::{AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::Response;
use url::Url;

use super::Account;
use super::identity::Provider;
use super::location::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing};
use crate::net::{HttpClient, origin_text, read_all};
use crate::source::object::{Failures, Key, MAX_PAGES, declared, endless, quoted};
use crate::source::{ByteStream, Context, Portion, Source, portion};

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod page;

use page::{Child, Page};

/// The version of the interface: the first whose listings tell ETags and encode odd names, and that takes tokens.
const VERSION: &str = "2022-11-02";
/// Directories that are listed at the same time.
const LISTINGS: usize = 8;
/// Deepest directory that Azure Files allows.
const DEEPEST: usize = 250;
/// Longest page of a listing that is read, in bytes: 5,000 names of 255 characters and their properties are less.
const LONGEST_PAGE: usize = 64 << 20;
/// Pauses before a request that a busy server refused is repeated.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// A model on a share.
pub(super) struct Share {
    client: HttpClient,
    /// The share's own URL.
    url: Url,
    account: String,
    identity: Option<Provider>,
    failures: Failures,
    /// Below the share, without slashes at the ends.
    path: String,
    /// Whether the URI can only mean a directory.
    directory: bool,
}

// By hand: the identity's own `Debug` would show keys.
impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("url", &self.url.as_str()).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Share {
    pub(super) fn new(
        location: Location,
        account: Account,
        identity: Option<Provider>,
        failures: Failures,
        key: &Key,
        context: &Context,
    ) -> Result<Self> {
        let url = Url::parse(&account.place).ok().and_then(|url| below(&url, &location.container));
        let url =
            url.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, format!("{} can't be opened", failures.uri)))?;
        let client = context.http.clone();
        let (path, directory) = (key.path.to_string(), key.directory);
        Ok(Self { client, url, account: account.name, identity, failures, path, directory })
    }

    /// Sends a signed request for what is at `path`, and returns an answer of status 200 or 206.
    async fn send(&self, method: Method, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<Response> {
        let mut url = below(&self.url, path)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a path that listing did not give"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.signed(method, &url, headers).await?;
        let answer = self.client.execute(request).await.map_err(|error| error.within(&self.failures.uri))?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            status => {
                let code = header(answer.headers(), "x-ms-error-code").unwrap_or_default();
                Err(self.failures.answered(status, &code))
            }
        }
    }

    async fn signed(&self, method: Method, url: &Url, headers: HeaderMap) -> Result<reqwest::Request> {
        let failed = |error| Error::with_source(ErrorKind::Internal, "a request that can't be made", error);
        // Azure Files has no anonymous access.
        let Some(identity) = &self.identity else {
            return Err(self.failures.answered(StatusCode::UNAUTHORIZED, "NoAuthenticationInformation"));
        };
        let credential = identity.get_credential().await.map_err(|error| self.failures.explain(error))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|error| failed(Box::new(error) as BoxedError))?;
        let set = request.headers_mut();
        *set = headers;
        set.insert("x-ms-version", HeaderValue::from_static(VERSION));
        if matches!(*credential, AzureCredential::BearerToken(_)) {
            // A token reads with a role's rights, not with those of the file's owner.
            set.insert("x-ms-file-request-intent", HeaderValue::from_static("backup"));
        }
        AzureAuthorizer::new(&credential, &self.account)
            .try_authorize(&mut request)
            .map_err(|error| self.failures.explain(error))?;
        let (parts, _) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| failed(Box::new(error)))?;
        let mut signed = reqwest::Request::new(parts.method, url);
        *signed.headers_mut() = parts.headers;
        Ok(signed)
    }

    /// As [`Self::send`], again when the server is busy.
    async fn ask(&self, method: Method, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<Response> {
        for pause in PAUSES {
            match self.send(method.clone(), path, query, headers.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => tokio::time::sleep(pause).await,
                done => return done,
            }
        }
        self.send(method, path, query, headers).await
    }

    /// A file's size and version.
    async fn properties(&self, path: &str) -> Result<(u64, String)> {
        let answer = self.ask(Method::HEAD, path, &[], HeaderMap::new()).await?;
        // A HEAD's length is not its body's, which is why the client does not tell it.
        let size = header(answer.headers(), "content-length").and_then(|text| text.parse().ok());
        size.zip(etag(&answer)).ok_or_else(|| self.failures.another_protocol())
    }

    /// The file that the URI names exactly, if there is one.
    async fn exact(&self) -> Result<Option<Item>> {
        if self.directory {
            return Ok(None);
        }
        match self.properties(&self.path).await {
            Ok((size, etag)) => {
                let name = self.path.rsplit('/').next().unwrap_or_default();
                Ok(Some(item(name.to_owned(), &self.path, size, etag)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All files below the directory that the URI names.
    async fn walk(&self) -> Result<Vec<Item>> {
        let (mut items, mut level, mut count) = (Vec::new(), vec![String::new()], Count::default());
        for _ in 0..=DEEPEST {
            let mut listings =
                stream::iter(level.drain(..)).map(|directory| self.children(directory)).buffer_unordered(LISTINGS);
            let mut next = Vec::new();
            while let Some((files, inner)) = listings.try_next().await? {
                if !files.iter().map(|file: &Item| &file.path).chain(&inner).all(|path| count.add(path)) {
                    return Err(self.failures.too_many());
                }
                items.extend(files);
                next.extend(inner);
            }
            drop(listings);
            level = next;
            if level.is_empty() {
                return Ok(items);
            }
        }
        Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!("{} has directories more than {DEEPEST} deep, which can't be", self.failures.uri),
        ))
    }

    /// The files and directories right below `directory`, which is relative to the model.
    async fn children(&self, directory: String) -> Result<(Vec<Item>, Vec<String>)> {
        let (mut files, mut directories, mut count) = (Vec::new(), Vec::new(), Count::default());
        let mut marker = String::new();
        for _ in 0..MAX_PAGES {
            let Page { children, next } = self.page(&directory, &marker).await?;
            for child in children {
                let (Child::Directory { name } | Child::File { name, .. }) = &child;
                if !count.add(name) {
                    return Err(self.failures.too_many());
                }
                match child {
                    Child::Directory { name } => directories.push(join(&directory, &name)),
                    Child::File { name, size, etag } => {
                        let path = join(&directory, &name);
                        let locator = join(&self.path, &path);
                        let (size, etag) = match etag {
                            Some(etag) => (size, etag),
                            None => self.properties(&locator).await?,
                        };
                        files.push(item(path, &locator, size, etag));
                    }
                }
            }
            match next {
                None => return Ok((files, directories)),
                Some(next) if next == marker => return Err(self.failures.another_protocol()),
                Some(next) => marker = next,
            }
        }
        Err(endless(&origin_text(&self.url)).within(&self.failures.uri))
    }

    async fn page(&self, directory: &str, marker: &str) -> Result<Page> {
        let mut query = vec![("restype", "directory"), ("comp", "list"), ("include", "Etag")];
        if !marker.is_empty() {
            query.push(("marker", marker));
        }
        let path = join(&self.path, directory);
        let headers = [(HeaderName::from_static("x-ms-file-extended-info"), HeaderValue::from_static("true"))];
        let answer = self.ask(Method::GET, &path, &query, headers.into_iter().collect()).await?;
        let body = read_all(answer, LONGEST_PAGE).await.map_err(|error| error.within(&self.failures.uri))?;
        page::parse(&body).map_err(|problem| match problem {
            page::Problem::NoListing => self.failures.another_protocol(),
            page::Problem::Name(name) => Error::new(
                ErrorKind::FailedPrecondition,
                format!("{} has a file {name:?}, which can't be a file's name; rename it", self.failures.uri),
            ),
        })
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

fn item(path: String, locator: &str, size: u64, etag: String) -> Item {
    Item { path, size: Some(size), locator: locator.to_owned(), validator: Some(etag), digest: None, unpack: None }
}

fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// The URL of `path` below `url`; `None` for a path that would lead elsewhere.
fn below(url: &Url, path: &str) -> Option<Url> {
    let mut url = url.clone();
    if !path.is_empty() {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return None;
        }
        url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
    }
    Some(url)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn etag(answer: &Response) -> Option<String> {
    quoted(&header(answer.headers(), "etag")?)
}

#[async_trait]
impl Source for Share {
    async fn list(&self) -> Result<Listing> {
        let store = format!("azurefiles|{}", self.url);
        let (exact, below) = future::join(self.exact(), self.walk()).await;
        if let Ok(Some(item)) = exact {
            return Ok(Listing { store, revision: None, items: vec![item], exact: true });
        }
        let items = match below {
            Ok(items) => items,
            // Why there is no exact file is as good an answer.
            Err(error) => return Err(exact.err().unwrap_or(error)),
        };
        if items.is_empty() {
            exact?;
            return Err(self.failures.nothing_here());
        }
        Ok(Listing { store, revision: None, items, exact: false })
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        let (size, etag) = self.properties(&entry.locator).await?;
        let same = Some(&etag) == entry.validator.as_ref() && Some(size) == entry.size;
        if same { Ok(()) } else { Err(self.failures.changed(&entry.locator)) }
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let mut headers = HeaderMap::new();
        portion::ask(&portion, &mut headers);
        let answer =
            self.send(Method::GET, &entry.locator, &[], headers).await.map_err(|error| match error.kind() {
                // It was listed a moment ago.
                ErrorKind::NotFound => self.failures.changed(&entry.locator),
                _ => error,
            })?;
        if etag(&answer) != entry.validator {
            return Err(self.failures.changed(&entry.locator));
        }
        let declared = declared(answer.headers()).filter(|_| portion == Portion::Whole);
        let bytes = portion::receive(answer, &portion, entry.size, &self.failures.uri)?;
        Ok(match declared {
            Some(declared) => declared.verified(bytes, format!("{} \"{}\"", self.failures.uri, entry.locator)),
            None => bytes,
        })
    }
}
