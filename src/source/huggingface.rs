//! The Hugging Face hub and its mirrors: `hf://owner/name`, `@revision` or `:revision`, a directory or a file below it;
//! `hf://datasets/owner/name` for data sets.
//!
//! A revision is resolved to its commit first, and only that commit is listed and read. Every byte is verified: files of
//! git LFS by the SHA-256 that the hub lists, the others by the SHA-1 that git names them by. A file's identity in the
//! cache is that hash, so that a new commit costs only what it has changed.
//!
//! The hub redirects downloads to other hosts by signed URLs, which are never sent the token.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, LINK};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::repository::{self, Hub, Repository, base_name, is_commit};
use super::{Attribute, ByteStream, Context, Options, PlaceKeys, Portion, Registration, Rights, Source, portion};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing, MAX_ENTRIES};
use crate::uri::ModelUri;

mod answer;
mod failure;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod git;

use answer::{File, Found, parse_commit, parse_found, parse_next};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of the hub or a mirror of it, for instance https://hf-mirror.example; default https://huggingface.co",
};
/// As the attribute.
const ENDPOINT_KEYS: &[&str] = &["HF_ENDPOINT"];
/// The names that Hugging Face's own tools read the token from, and KServe with them.
const TOKEN: &[&str] = &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

pub(super) const REGISTRATION: Registration = Registration {
    name: "huggingface",
    forms: &["hf://owner/name", "hf://datasets/owner/name"],
    attributes: &[repository::REVISION, ENDPOINT],
    place_keys: &[PlaceKeys { names: ENDPOINT_KEYS, attributes: &[ENDPOINT], concern: |_, _| true }],
    claims: |uri| uri.scheme().as_str() == "hf",
    open: |uri, options, credentials, context| Ok(Arc::new(HuggingFace::open(uri, options, credentials, context)?)),
};

/// The branch that a repository on the hub has if it has any.
const DEFAULT_REVISION: &str = "main";
/// Pages of a listing that are followed. The hub's own have 1,000 entries.
const MAX_PAGES: usize = MAX_ENTRIES / 100;
/// How the validator of a file begins that is kept in git itself, and whose SHA-1 follows.
const GIT: &str = "git ";
/// How that of a file in git LFS begins.
const LFS: &str = "sha256 ";

#[derive(Debug)]
struct HuggingFace {
    hub: Hub,
    kind: Kind,
    repository: Repository,
    /// The commit that was listed last.
    commit: Mutex<Option<String>>,
}

/// The kinds of repositories that hold files to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// Takes the kind from the beginning of a URI; without one it is a model.
    fn split(text: &str) -> Result<(Self, &str), String> {
        let (first, rest) = text.split_once('/').unwrap_or((text, ""));
        match first {
            "models" => Ok((Self::Model, rest)),
            "datasets" => Ok((Self::Dataset, rest)),
            "model" | "dataset" => Err(format!("begins with {first}/: write {first}s/ instead")),
            "spaces" | "kernels" | "buckets" => {
                Err(format!("names something of {first}; only models and data sets are read"))
            }
            _ => Ok((Self::Model, text)),
        }
    }

    /// How the hub's API calls them.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

impl HuggingFace {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let text = uri.expose().split_once("://").map_or("", |(_, rest)| rest);
        let (kind, text) =
            Kind::split(text).map_err(|problem| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}")))?;
        let repository = Repository::open(uri, text, options)?;
        let endpoint = repository::endpoint(options, credentials, ENDPOINT_KEYS, DEFAULT_ENDPOINT)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = credentials.get(TOKEN) {
            headers.extend([repository::secret_header(
                AUTHORIZATION,
                &format!("Bearer {}", token.expose()),
                TOKEN[0],
            )?]);
        }
        let hub = Hub::new(uri, "the Hugging Face hub", endpoint, headers, context.http.clone());
        Ok(Self { hub, kind, repository, commit: Mutex::default() })
    }

    fn name(&self) -> String {
        format!("{}/{}", self.repository.owner, self.repository.name)
    }

    fn revision(&self) -> &str {
        self.repository.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The URL of a question of the API about a revision, and maybe a path in it.
    fn api(&self, question: &str, revision: &str, path: &str) -> Url {
        let Repository { owner, name, .. } = &self.repository;
        let segments = ["api", self.kind.plural(), owner, name, question, revision];
        self.hub.url(segments.into_iter().chain(path.split('/').filter(|segment| !segment.is_empty())))
    }

    /// The URL of a file's content.
    fn content(&self, commit: &str, path: &str) -> Url {
        let Repository { owner, name, .. } = &self.repository;
        let kind = (self.kind == Kind::Dataset).then_some("datasets");
        let segments = [owner, name, "resolve", commit].into_iter().chain(path.split('/'));
        self.hub.url(kind.into_iter().chain(segments))
    }

    async fn get(&self, url: &Url) -> Result<Response> {
        let arrival = self.hub.ask(Method::GET, url, HeaderMap::new(), true).await?;
        match arrival.answer.status() {
            StatusCode::OK => Ok(arrival.answer),
            _ => Err(self.failure(&arrival)),
        }
    }

    /// What the revision stands for now.
    async fn resolve(&self) -> Result<String> {
        if is_commit(self.revision()) {
            return Ok(self.revision().to_owned());
        }
        let mut url = self.api("revision", self.revision(), "");
        // Without it, the answer names every file.
        url.set_query(Some("expand=sha"));
        self.hub.read(self.get(&url).await?, parse_commit).await
    }

    /// The commit that was listed. A source that takes over from another one, whose token has expired, was never asked
    /// for a listing: it reads from what the revision stands for by now, where each file's hash must be the same.
    async fn commit(&self) -> Result<String> {
        let listed = self.commit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match listed {
            Some(commit) => Ok(commit),
            None => self.resolve().await,
        }
    }

    /// What lies at the model's path: a file, a directory, or nothing.
    async fn look_up(&self, commit: &str) -> Result<Option<Found>> {
        let question = serde_json::json!({ "paths": [&self.repository.path], "expand": false });
        let arrival = self.hub.post(&self.api("paths-info", commit, ""), question.to_string()).await?;
        if arrival.answer.status() != StatusCode::OK {
            return Err(self.failure(&arrival));
        }
        let found = self.hub.read(arrival.answer, parse_found).await?;
        Ok(found.into_iter().find(|found| found.path() == self.repository.path))
    }

    /// All files below the model's path.
    async fn tree(&self, commit: &str) -> Result<Vec<Item>> {
        let mut url = self.api("tree", commit, &self.repository.path);
        url.set_query(Some("recursive=true&expand=false"));
        let (mut items, mut count) = (Vec::new(), Count::default());
        for _ in 0..MAX_PAGES {
            let answer = self.get(&url).await?;
            let next = self.next_page(&url, answer.headers())?;
            let page = self.hub.read(answer, parse_found).await?;
            let empty = page.is_empty();
            for found in page {
                let Found::File(file) = found else { continue };
                let Some(path) = self.repository.below(&file.path).map(str::to_owned) else {
                    let sentence = format!("{} lists a file of another directory", self.hub.place());
                    return Err(self.hub.error(ErrorKind::Unavailable, sentence));
                };
                if !count.add(&path) {
                    return Err(self.hub.too_many());
                }
                items.push(item(file, path));
            }
            match next {
                None => return Ok(items),
                // A listing that does not get on would go on for ever.
                Some(next) if empty || next == url => break,
                Some(next) => url = next,
            }
        }
        let sentence = format!("the listing of {} does not come to an end", self.hub.place());
        Err(self.hub.error(ErrorKind::Unavailable, sentence))
    }

    /// The address of the page after this one. It must be of the hub itself: it is sent the token.
    fn next_page(&self, page: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
        let links = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
        let Some(next) = links.flat_map(parse_next).next() else { return Ok(None) };
        match page.join(next) {
            Ok(next) if self.hub.owns(&next) => Ok(Some(next)),
            _ => {
                let place = self.hub.place();
                let sentence =
                    format!("{place} continues its listing at another host, which is not asked; check the endpoint");
                Err(self.hub.error(ErrorKind::PermissionDenied, sentence))
            }
        }
    }

    /// Whether the headers of a file's address name another version of it than the listed one. Mirrors may name none.
    fn is_other(entry: &Entry, headers: &HeaderMap) -> bool {
        let etag = headers.get("x-linked-etag").or_else(|| headers.get(ETAG)).and_then(|value| value.to_str().ok());
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let listed = entry.validator.as_deref().and_then(|validator| validator.split_once(' ')).map(|(_, hash)| hash);
        match (etag, listed) {
            (Some(etag), Some(listed)) => etag.len() == listed.len() && etag != listed,
            _ => false,
        }
    }
}

/// The file as it lies at `path` below the model's root.
fn item(File { path: locator, size, validator, digest }: File, path: String) -> Item {
    Item { path, size: Some(size), locator, validator: Some(validator), digest, unpack: None }
}

#[async_trait]
impl Source for HuggingFace {
    async fn list(&self) -> Result<Listing> {
        let commit = self.resolve().await?;
        let path = &self.repository.path;
        let found = if path.is_empty() { None } else { Some(self.look_up(&commit).await?) };
        let (items, exact) = match found {
            Some(Some(Found::File(file))) if !self.repository.directory => {
                (vec![item(file, base_name(path).to_owned())], true)
            }
            Some(None | Some(Found::File(_))) => return Err(self.nothing_at(path)),
            None | Some(Some(Found::Directory(_))) => (self.tree(&commit).await?, false),
        };
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit.clone());
        let store = format!("huggingface|{}|{}|{}", self.hub.place(), self.kind.plural(), self.name());
        Ok(Listing { store, revision: Some(commit), items, exact })
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        let url = self.content(&self.commit().await?, &entry.locator);
        let arrival = self.hub.ask(Method::HEAD, &url, HeaderMap::new(), false).await?;
        let status = arrival.answer.status();
        match status.is_success() || status.is_redirection() {
            true if Self::is_other(entry, &arrival.first) => Err(self.hub.changed(&entry.locator)),
            true => Ok(()),
            false => Err(self.read_failure(&arrival, entry)),
        }
    }

    fn rights(&self) -> Rights {
        Rights::Model
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let git = entry.validator.as_deref().and_then(|validator| validator.strip_prefix(GIT));
        if git.is_some() && matches!(portion, Portion::Range(_)) {
            let sentence = format!("the file \"{}\" is verified as a whole, and not read in parts", entry.locator);
            return Err(self.hub.error(ErrorKind::RangesUnsupported, sentence));
        }
        let url = self.content(&self.commit().await?, &entry.locator);
        let mut headers = HeaderMap::new();
        portion::ask(&portion, &mut headers);
        let arrival = self.hub.ask(Method::GET, &url, headers, true).await?;
        if !matches!(arrival.answer.status().as_u16(), 200 | 206 | 416) {
            return Err(self.read_failure(&arrival, entry));
        }
        if Self::is_other(entry, &arrival.first) {
            return Err(self.hub.changed(&entry.locator));
        }
        let bytes = portion::receive(arrival.answer, &portion, entry.size, &self.hub.uri)?;
        match (git, entry.size) {
            (Some(oid), Some(size)) => Ok(git::verified(
                bytes,
                size,
                oid.to_owned(),
                format!("{}: the file \"{}\"", self.hub.uri, entry.locator),
            )),
            _ => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn open(uri: &str, secrets: &[(&str, &str)]) -> Result<HuggingFace> {
        let credentials = secrets.iter().copied().collect();
        HuggingFace::open(&ModelUri::parse(uri)?, &Options::new(), &credentials, &Context::new(Policy::default())?)
    }

    #[test]
    fn uris_become_the_hubs_urls() {
        let model = open("hf://o/n@feature%2Fx/a b#?%20/c", &[]).unwrap();
        assert_eq!(model.api("revision", model.revision(), "").path(), "/api/models/o/n/revision/feature%2Fx");
        assert_eq!(
            model.content("c0ffee", "a b#?%20/c").as_str(),
            "https://huggingface.co/o/n/resolve/c0ffee/a%20b%23%3F%2520/c"
        );
        assert_eq!(open("hf://models/o/n", &[]).unwrap().kind, Kind::Model);
        let set = open("hf://datasets/o/n", &[("HF_ENDPOINT", "https://mirror/api/hf/")]).unwrap();
        assert_eq!(set.api("tree", "c", "").as_str(), "https://mirror/api/hf/api/datasets/o/n/tree/c");
        assert_eq!(set.content("c", "f").as_str(), "https://mirror/api/hf/datasets/o/n/resolve/c/f");
        for (uri, hint) in [
            ("hf://gpt2", "owner/name"),
            ("hf://gpt2@main", "owner/name"),
            ("hf://spaces/o/n", "only models and data sets"),
            ("hf://dataset/o/n", "datasets/"),
            ("hf://datasets/o", "owner/name"),
        ] {
            let error = open(uri, &[]).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.report().contains(hint), "{}", error.report());
        }
    }

    #[test]
    fn the_token_is_of_one_line_and_never_shown() {
        let source = open("hf://o/n", &[("HUGGING_FACE_HUB_TOKEN", "hf_CANARY\n")]).unwrap();
        assert!(!source.hub.anonymous() && !format!("{source:?}").contains("CANARY"));
        let error = open("hf://o/n", &[("HF_TOKEN", "a\nb")]).unwrap_err();
        assert!(error.report().contains("HF_TOKEN"), "{}", error.report());
    }

    #[test]
    fn only_links_of_the_hub_itself_are_followed() {
        let source = open("hf://o/n", &[]).unwrap();
        let page = source.api("tree", "c", "");
        let next = |link: &str| {
            let headers = [(LINK, link.parse().unwrap())].into_iter().collect();
            source.next_page(&page, &headers).map(|next| next.map(|next| next.to_string()))
        };
        let there = "https://huggingface.co/api/models/o/n/tree/c?cursor=x";
        assert_eq!(next(&format!("<{there}>; rel=\"next\"")).unwrap().as_deref(), Some(there));
        assert_eq!(next("</api/models/o/n/tree/c?cursor=x>; rel=\"next\"").unwrap().as_deref(), Some(there));
        assert_eq!(next("<https://evil.example/>; rel=\"prev\"").unwrap(), None);
        for elsewhere in ["https://evil.example/x", "http://huggingface.co/x", "//evil.example/", "https://["] {
            assert_eq!(next(&format!("<{elsewhere}>; rel=\"next\"")).unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }
}
