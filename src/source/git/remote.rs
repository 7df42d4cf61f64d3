//! Git's smart protocol over HTTP (gitprotocol-http), version 2, and the requests of Git LFS beside it.
//!
//! Credentials go to the origin that the URI names, and to no other. As in git, the first question may be redirected;
//! the others follow it and are not.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use http::HeaderMap;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode};
use url::Url;

use super::lfs::{self, Answer, Download, Pointer};
use super::message::{self, Abilities};
use super::object::Id;
use super::pack::{Objects, Parser, TOO_MUCH};
use super::packet::{self, Packet};
use super::reading::{Pack, Reading};
use crate::credentials::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{Arrival, HttpClient, Question, origin_text, read_all};
use crate::source::{ByteStream, Portion, portion};
use crate::uri::ModelUri;

const GIT_PROTOCOL: HeaderName = HeaderName::from_static("git-protocol");
const VERSION_2: HeaderValue = HeaderValue::from_static("version=2");
/// Longest answer about references, sizes or places: GitHub's largest repositories have some 100,000 references, of
/// which only those with the wanted name are sent.
const MAX_ANSWER: usize = 16 << 20;
/// Most that a commit's trees and small files may take, inflated.
const MAX_COMMIT: u64 = 64 << 20;
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// A repository at a server.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) uri: ModelUri,
    /// As the URI names it.
    pub(super) url: Url,
    /// For the origin of `url` alone.
    pub(super) authorization: Secret<Option<HeaderValue>>,
    pub(super) http: HttpClient,
}

/// Where it is, after redirects, and what its server can do.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    base: Url,
    pub(super) abilities: Abilities,
}

impl Remote {
    /// Asks what the server can do: whoever is answered may read the repository.
    pub(super) async fn connect(&self) -> Result<Repository> {
        let mut url = extended(&self.url, "/info/refs");
        url.set_query(Some("service=git-upload-pack"));
        let headers = [(GIT_PROTOCOL, VERSION_2)].into_iter().collect();
        let Arrival { answer, url, .. } = self.follow(Method::GET, &url, headers, &self.credentials()).await?;
        let answer = self.accept(answer)?;
        let host = origin_text(&url);
        let base = url.path().strip_suffix("/info/refs").map(|path| {
            let mut base = url.clone();
            base.set_path(path);
            base.set_query(None);
            base
        });
        let smart = is_type(&answer, "application/x-git-upload-pack-advertisement");
        let Some(base) = base.filter(|_| smart) else {
            let text = format!("is no git repository at {host} that can be fetched over HTTP; check the URI");
            return Err(self.error(ErrorKind::InvalidArgument, text));
        };
        let packets = self.packets(answer).await?;
        let abilities = message::abilities(&packets).map_err(|problem| self.nonsense(&host, &problem))?;
        Ok(Repository { base, abilities })
    }

    /// The commit or tag that a revision names.
    pub(super) async fn resolve(&self, repository: &Repository, revision: Option<&str>) -> Result<Id> {
        let format = repository.abilities.format;
        if let Some(id) = revision.and_then(Id::from_hex).filter(|id| id.format() == format) {
            return Ok(id);
        }
        let names = message::candidates(revision);
        let answer = self.post(repository, message::ls_refs(format, &names)).await?;
        let host = origin_text(answer.url());
        let packets = self.packets(answer).await?;
        let found = message::references(&packets, &names).map_err(|problem| self.nonsense(&host, &problem))?;
        found.ok_or_else(|| {
            let text = match revision {
                None => "has no commit yet".to_owned(),
                Some(revision) => format!(
                    "has no branch or tag {revision:?}; check the revision (a commit is written with all its digits)"
                ),
            };
            self.error(ErrorKind::NotFound, text)
        })
    }

    /// The commit, its trees and its small blobs.
    pub(super) async fn commit(&self, repository: &Repository, id: &Id) -> Result<Objects> {
        let format = repository.abilities.format;
        let mut pack = self.pack(repository, message::fetch_commit(&repository.abilities, id)).await?;
        let mut objects = Objects::new(format, MAX_COMMIT);
        let mut parser = Parser::new(format);
        while let Some(piece) = pack.next(&self.uri).await? {
            parser.push(&piece, &mut |event| objects.take(event)).map_err(|problem| match problem.as_str() {
                TOO_MUCH => self.too_large(repository),
                _ => self.nonsense(&pack.host, &problem),
            })?;
        }
        if parser.is_complete() { Ok(objects) } else { Err(self.nonsense(&pack.host, "its pack breaks off")) }
    }

    /// The sizes of these blobs, as far as the server tells them.
    pub(super) async fn sizes(&self, repository: &Repository, ids: &[Id]) -> Result<HashMap<Id, u64>> {
        let mut sizes = HashMap::new();
        for ids in ids.chunks(10_000) {
            let answer = self.post(repository, message::object_info(repository.abilities.format, ids)).await?;
            let host = origin_text(answer.url());
            let packets = self.packets(answer).await?;
            sizes.extend(message::sizes(&packets).map_err(|problem| self.nonsense(&host, &problem))?);
        }
        Ok(sizes)
    }

    /// The bytes of a blob. The last of them come when all were found to have the id.
    pub(super) async fn blob(&self, repository: &Repository, id: &Id) -> Result<ByteStream> {
        let pack = self.pack(repository, message::fetch_blob(id)).await?;
        let reading = Reading::new(self.clone(), pack, id.clone());
        Ok(stream::try_unfold(reading, Reading::next).boxed())
    }

    /// Where an object of Git LFS can be downloaded; or that it can't, and why.
    pub(super) async fn lfs(&self, repository: &Repository, pointer: &Pointer) -> Result<Download> {
        let suffix = if repository.base.path().ends_with(".git") { "" } else { ".git" };
        let url = extended(&repository.base, &format!("{suffix}/info/lfs/objects/batch"));
        let mut request = Request::new(Method::POST, url);
        self.prepare(&mut request);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(LFS_JSON));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(LFS_JSON));
        *request.body_mut() = Some(lfs::question(pointer).into());
        let answer = self.send(request).await?;
        let host = origin_text(answer.url());
        let status = answer.status();
        if status == StatusCode::NOT_FOUND {
            let text = format!("has files in Git LFS, which {host} does not serve for it");
            return Err(self.error(ErrorKind::NotFound, text));
        }
        let json = read_all(self.accept(answer)?, MAX_ANSWER).await.map_err(|error| error.within(&self.uri))?;
        match lfs::answer(&json, pointer).map_err(|problem| self.nonsense(&host, &problem))? {
            Answer::Download(mut download) => {
                if self.url.scheme() == "https" && download.url.scheme() == "http" {
                    let text = "is kept at an http:// URL by Git LFS, which anybody on the way could change";
                    return Err(self.error(ErrorKind::PermissionDenied, text.to_owned()));
                }
                // As git-lfs does: a place at the same server wants the same credentials.
                if download.url.origin() == self.url.origin() && !download.headers.contains_key(AUTHORIZATION) {
                    download.headers.extend(self.credentials());
                }
                Ok(download)
            }
            Answer::Refused(404 | 410) => {
                let text = format!("names an object that {host} does not have in Git LFS: {}", pointer.digest);
                Err(self.error(ErrorKind::NotFound, text))
            }
            Answer::Refused(code) => Err(self.refusal(code, &host)),
        }
    }

    /// A portion of an object of Git LFS.
    pub(super) async fn download(&self, download: &Download, portion: &Portion, size: u64) -> Result<ByteStream> {
        let mut headers = HeaderMap::new();
        portion::ask(portion, &mut headers);
        let arrival = self.follow(Method::GET, &download.url, headers, &download.headers).await?;
        portion::receive(self.accept(arrival.answer)?, portion, Some(size), &self.uri)
    }

    async fn follow(&self, method: Method, url: &Url, headers: HeaderMap, credentials: &HeaderMap) -> Result<Arrival> {
        let question = Question { method, url, headers, credentials, body: None, leaves: true };
        self.http.follow(question).await.map_err(|error| error.within(&self.uri))
    }

    fn credentials(&self) -> HeaderMap {
        let authorization = self.authorization.expose().clone();
        authorization.map(|value| (AUTHORIZATION, value)).into_iter().collect()
    }

    async fn pack(&self, repository: &Repository, message: String) -> Result<Pack> {
        Ok(Pack::new(self.post(repository, message).await?))
    }

    async fn post(&self, repository: &Repository, message: String) -> Result<Response> {
        let mut request = Request::new(Method::POST, extended(&repository.base, "/git-upload-pack"));
        self.prepare(&mut request);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-result"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request"));
        *request.body_mut() = Some(message.into());
        let answer = self.accept(self.send(request).await?)?;
        if is_type(&answer, "application/x-git-upload-pack-result") {
            return Ok(answer);
        }
        let host = origin_text(answer.url());
        Err(self.nonsense(&host, "its answer is not git's protocol"))
    }

    fn prepare(&self, request: &mut Request) {
        let own = request.url().origin() == self.url.origin();
        let headers = request.headers_mut();
        headers.insert(GIT_PROTOCOL, VERSION_2);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if own {
            headers.extend(self.credentials());
        }
    }

    async fn send(&self, request: Request) -> Result<Response> {
        self.http.execute(request).await.map_err(|error| error.within(&self.uri))
    }

    async fn packets(&self, answer: Response) -> Result<Vec<Packet>> {
        let host = origin_text(answer.url());
        let bytes = read_all(answer, MAX_ANSWER).await.map_err(|error| error.within(&self.uri))?;
        packet::parse(&bytes).map_err(|problem| self.nonsense(&host, &problem))
    }

    fn accept(&self, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() { Ok(answer) } else { Err(self.refusal(status.as_u16(), &origin_text(answer.url()))) }
    }

    fn refusal(&self, status: u16, host: &str) -> Error {
        let anonymous = self.authorization.expose().is_none();
        let (kind, problem) = match status {
            401 | 403 if anonymous => (
                ErrorKind::Unauthenticated,
                format!(
                    "is refused by {host} without credentials; give a Secret with GIT_USERNAME and GIT_PASSWORD (a token)"
                ),
            ),
            401 => (
                ErrorKind::Unauthenticated,
                format!("is refused by {host}: the Secret's GIT_USERNAME and GIT_PASSWORD are not accepted"),
            ),
            403 => (
                ErrorKind::PermissionDenied,
                format!("is refused by {host} for these credentials; grant them the right to read"),
            ),
            404 | 410 => {
                (ErrorKind::NotFound, format!("is not found at {host}, or not for these credentials; check the URI"))
            }
            408 | 429 | 500..=599 => (ErrorKind::Unavailable, format!("is not served by {host} now (status {status})")),
            // The credentials' origin may not be followed elsewhere with a body.
            300..=399 => (ErrorKind::Unavailable, format!("is redirected by {host} in the middle of a conversation")),
            _ => (ErrorKind::InvalidArgument, format!("is refused by {host} (status {status}); check the URI")),
        };
        self.error(kind, problem)
    }

    fn too_large(&self, repository: &Repository) -> Error {
        let advice = if repository.abilities.filter {
            "use a repository with fewer files, or a branch of its own for the model"
        } else {
            "allow filters at the server (uploadpack.allowFilter), or keep large files in Git LFS"
        };
        let text = format!("has directories and small files of more than {} MiB; {advice}", MAX_COMMIT >> 20);
        self.error(ErrorKind::ResourceExhausted, text)
    }

    pub(super) fn nonsense(&self, host: &str, problem: &str) -> Error {
        // Gone since it was listed, or never there.
        if problem.contains("not our ref") || problem.contains("missing blob object") {
            return self.error(ErrorKind::NotFound, format!("has no such object at {host}: {problem}"));
        }
        self.error(ErrorKind::Unavailable, format!("can't be fetched from {host}: {problem}"))
    }

    pub(super) fn error(&self, kind: ErrorKind, problem: String) -> Error {
        Error::new(kind, format!("{} {problem}", self.uri))
    }
}

fn extended(url: &Url, suffix: &str) -> Url {
    let mut url = url.clone();
    url.set_path(&format!("{}{suffix}", url.path()));
    url
}

fn is_type(answer: &Response, expected: &str) -> bool {
    let found = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    found.is_some_and(|found| found.split(';').next() == Some(expected))
}
