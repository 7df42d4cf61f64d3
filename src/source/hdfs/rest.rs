//! Questions to the active namenode, and reads from the datanodes that it names.

use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::header::{LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, Request, Response};
use url::Url;

use super::answer::{self, Page, Status};
use super::refusal::{self, Refusal};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Count;
use crate::net::{HttpClient, body, origin_text, read_all};
use crate::source::too_many;
use crate::uri::ModelUri;

/// Longest answer about names: a directory of 100,000 files, where the namenode does not send pages.
const MAX_ANSWER: usize = 64 << 20;
/// As much of a refusal as is looked at.
const MAX_REFUSAL: usize = 64 << 10;
/// From a namenode to a datanode is one; gateways add one.
const MAX_REDIRECTS: usize = 3;

#[derive(Debug)]
pub(super) struct Rest {
    uri: ModelUri,
    settings: Settings,
    http: HttpClient,
    /// The namenode that answered last.
    active: AtomicUsize,
    /// Whether listings come in pages: Hadoop 2.8 and some gateways know only whole ones.
    pages: AtomicBool,
}

impl Rest {
    pub(super) fn new(uri: ModelUri, settings: Settings, http: HttpClient) -> Self {
        Self { uri, settings, http, active: AtomicUsize::new(0), pages: AtomicBool::new(true) }
    }

    pub(super) fn uri(&self) -> &ModelUri {
        &self.uri
    }

    /// What there is at `path`.
    pub(super) async fn status(&self, path: &str) -> Result<Status> {
        let (host, json) = self.json(path, "GETFILESTATUS", &[]).await?;
        answer::status(&json).map_err(|problem| self.nonsense(&host, &problem))
    }

    /// Everything that is directly in the directory at `path`.
    pub(super) async fn entries(&self, path: &str) -> Result<Vec<Status>> {
        if self.pages.load(Ordering::Relaxed) {
            match self.all_pages(path).await? {
                Some(entries) => return Ok(entries),
                None => self.pages.store(false, Ordering::Relaxed),
            }
        }
        let (host, json) = self.json(path, "LISTSTATUS", &[]).await?;
        Ok(answer::listing(&json).map_err(|problem| self.nonsense(&host, &problem))?.entries)
    }

    /// `None` when the server can't give pages.
    async fn all_pages(&self, path: &str) -> Result<Option<Vec<Status>>> {
        let (mut entries, mut count): (Vec<Status>, _) = (Vec::new(), Count::default());
        loop {
            let after = entries.last().map(|entry| entry.name.clone());
            // Hadoop's documentation and its gateway HttpFS write it the second way, its namenode understands the first.
            let parameters: Vec<(&str, &str)> =
                after.iter().flat_map(|after| [("startafter", after.as_str()), ("startAfter", after)]).collect();
            let Some(answer) = self.try_ask(path, "LISTSTATUS_BATCH", &parameters).await? else { return Ok(None) };
            let (host, json) = self.json_of(answer).await?;
            let Page { entries: page, remaining } =
                answer::batch(&json).map_err(|problem| self.nonsense(&host, &problem))?;
            if after.is_some() && page.first().map(|entry| &entry.name) == entries.first().map(|entry| &entry.name) {
                // It does not understand either, and began again.
                return Ok(None);
            }
            if !page.iter().all(|entry| count.add(&entry.name)) {
                return Err(too_many(&self.uri));
            }
            entries.extend(page);
            if remaining == 0 {
                return Ok(Some(entries));
            }
        }
    }

    /// Asks for the file at `path` without reading it: the namenode says which datanode has it, to who may read it.
    pub(super) async fn may_open(&self, path: &str) -> Result<()> {
        self.ask(path, "OPEN", &[("offset", "0"), ("length", "1")]).await.map(drop)
    }

    /// A part of the file at `path`, from a datanode. The part is not empty.
    pub(super) async fn open(&self, path: &str, range: Range<u64>) -> Result<Response> {
        let (offset, length) = (range.start.to_string(), (range.end - range.start).to_string());
        let mut answer = self.ask(path, "OPEN", &[("offset", &offset), ("length", &length)]).await?;
        for _ in 0..=MAX_REDIRECTS {
            let Some(next) = self.redirection(&answer)? else { return Ok(answer) };
            let host = origin_text(&next);
            // What the datanode must know about who asks, the namenode has put into this URL.
            answer = self.accept(self.send(next).await?).await.map_err(|refusal| self.refused(&host, refusal))?;
        }
        Err(self.error(ErrorKind::Unavailable, format!("is redirected more than {MAX_REDIRECTS} times")))
    }

    async fn json(&self, path: &str, operation: &str, parameters: &[(&str, &str)]) -> Result<(String, Bytes)> {
        self.json_of(self.ask(path, operation, parameters).await?).await
    }

    async fn json_of(&self, answer: Response) -> Result<(String, Bytes)> {
        let host = origin_text(answer.url());
        if !answer.status().is_success() {
            return Err(self.nonsense(&host, "it redirects a question to elsewhere; name the place that it leads to"));
        }
        let json = read_all(answer, MAX_ANSWER).await.map_err(|error| error.within(&self.uri))?;
        Ok((host, json))
    }

    /// Puts a question to the namenode that answered last, else to the others. The answer is a success or a redirect.
    async fn ask(&self, path: &str, operation: &str, parameters: &[(&str, &str)]) -> Result<Response> {
        let answer = self.try_ask(path, operation, parameters).await?;
        answer.ok_or_else(|| self.error(ErrorKind::Unavailable, format!("is at a server without {operation}")))
    }

    /// As [`Self::ask`]; `None` when the server does not know the operation.
    async fn try_ask(&self, path: &str, operation: &str, parameters: &[(&str, &str)]) -> Result<Option<Response>> {
        let namenodes = self.settings.namenodes();
        let first = self.active.load(Ordering::Relaxed);
        let mut failure = None;
        for i in 0..namenodes.len() {
            let i = (first + i) % namenodes.len();
            let host = origin_text(&namenodes[i]);
            let refusal = match self.send(self.settings.url(&namenodes[i], path, operation, parameters)).await {
                Ok(answer) => self.accept(answer).await,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    failure.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match refusal {
                Ok(answer) => {
                    self.active.store(i, Ordering::Relaxed);
                    return Ok(Some(answer));
                }
                Err(Refusal::Unsupported) => return Ok(None),
                Err(Refusal::Elsewhere(problem)) => {
                    failure = Some(self.refused(&host, Refusal::Elsewhere(problem)));
                }
                Err(refusal) => return Err(self.refused(&host, refusal)),
            }
        }
        Err(failure.unwrap_or_else(|| self.error(ErrorKind::Internal, "has no namenode".to_owned())))
    }

    async fn send(&self, url: Url) -> Result<Response> {
        let own = self.settings.namenodes().iter().any(|namenode| namenode.origin() == url.origin());
        let mut request = Request::new(Method::GET, url);
        if own {
            request.headers_mut().clone_from(self.settings.headers());
        }
        self.http.execute(request).await.map_err(|error| error.within(&self.uri))
    }

    async fn accept(&self, answer: Response) -> Result<Response, Refusal> {
        let status = answer.status();
        if status.is_success() || is_redirect(status.as_u16()) {
            return Ok(answer);
        }
        let mut schemes = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let negotiate = schemes.any(|scheme| scheme.as_bytes().starts_with(b"Negotiate"));
        let body = body::beginning(answer, MAX_REFUSAL).await;
        Err(refusal::explain(status.as_u16(), negotiate, &body, self.settings.anonymous()))
    }

    fn refused(&self, host: &str, refusal: Refusal) -> Error {
        let (kind, problem) = match refusal {
            Refusal::Elsewhere(problem) => (ErrorKind::Unavailable, problem),
            Refusal::Unsupported => (ErrorKind::Unavailable, "does not know the operation".to_owned()),
            Refusal::Final(kind, problem) => (kind, problem),
        };
        Error::new(kind, format!("{}: {host} {}", self.uri, self.settings.hide(problem)))
    }

    fn redirection(&self, answer: &Response) -> Result<Option<Url>> {
        if !is_redirect(answer.status().as_u16()) {
            return Ok(None);
        }
        let refused = |problem: &str| self.error(ErrorKind::PermissionDenied, format!("is redirected {problem}"));
        let target = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next =
            target.and_then(|target| answer.url().join(target).ok()).ok_or_else(|| refused("to no valid place"))?;
        match (answer.url().scheme(), next.scheme()) {
            ("https", "http") => Err(refused("from https to http, which anybody on the way could change")),
            (_, "http" | "https") => Ok(Some(next)),
            (_, other) => Err(refused(&format!("to a {other}: URL"))),
        }
    }

    fn nonsense(&self, host: &str, problem: &str) -> Error {
        self.error(ErrorKind::Unavailable, format!("is not served by {host} as WebHDFS: {problem}"))
    }

    fn error(&self, kind: ErrorKind, problem: String) -> Error {
        Error::new(kind, format!("{} {problem}", self.uri))
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}
