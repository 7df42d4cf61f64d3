//! ModelScope: `modelscope://owner/name`, `:revision` or `@revision`, a directory or a file below it.
//!
//! The hub lists each file with its SHA-256, which is verified, and with the commit that changed it last, at which it is
//! read: what is pushed to the branch meanwhile changes nothing. Large files are redirected to an object store, which is
//! never sent the token and serves ranges; the others are served whole.
//!
//! A listing has 3,000 entries at most and does not say whether it was cut, so that a longer repository is listed
//! directory by directory.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::repository::{self, Hub, Repository, base_name, is_commit};
use super::{Attribute, ByteStream, Context, Options, PlaceKeys, Portion, Registration, Rights, Source, portion};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing};
use crate::uri::ModelUri;

mod answer;
mod failure;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;

use answer::{File, Tree, parse_tree};

const DEFAULT_ENDPOINT: &str = "https://modelscope.cn";
const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of the hub, for instance https://www.modelscope.ai; default https://modelscope.cn",
};
/// As the attribute.
const ENDPOINT_KEYS: &[&str] = &["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"];
const TOKEN: &str = "MODELSCOPE_API_TOKEN";

pub(super) const REGISTRATION: Registration = Registration {
    name: "modelscope",
    forms: &["modelscope://owner/name"],
    attributes: &[repository::REVISION, ENDPOINT],
    place_keys: &[PlaceKeys { names: ENDPOINT_KEYS, attributes: &[ENDPOINT], concern: |_, _| true }],
    claims: |uri| uri.scheme().as_str() == "modelscope",
    open: |uri, options, credentials, context| Ok(Arc::new(ModelScope::open(uri, options, credentials, context)?)),
};

/// The branch that a repository on the hub has if it has any.
const DEFAULT_REVISION: &str = "master";
/// Most entries that the hub puts into one listing (`REPO_FILES_TRUNCATION_LIMIT` of its own client).
const MAX_LISTED: usize = 3000;
/// Listings that one model may take. One of a hundred thousand files needs some forty, if they are spread evenly.
const MAX_LISTINGS: usize = 1000;

#[derive(Debug)]
struct ModelScope {
    hub: Hub,
    repository: Repository,
}

impl ModelScope {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let text = uri.expose().split_once("://").map_or("", |(_, rest)| rest);
        let repository = Repository::open(uri, text, options)?;
        let endpoint = repository::endpoint(options, credentials, ENDPOINT_KEYS, DEFAULT_ENDPOINT)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = credentials.get(&[TOKEN]) {
            // Some of the API takes the one, some the other, and the hub's own client sends both.
            let token = token.expose();
            headers.extend([
                repository::secret_header(AUTHORIZATION, &format!("Bearer {token}"), TOKEN)?,
                repository::secret_header(COOKIE, &format!("m_session_id={token}"), TOKEN)?,
            ]);
        }
        let hub = Hub::new(uri, "ModelScope", endpoint, headers, context.http.clone());
        Ok(Self { hub, repository })
    }

    fn revision(&self) -> &str {
        self.repository.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    fn api(&self, question: &[&str], parameters: &[(&str, &str)]) -> Url {
        let Repository { owner, name, .. } = &self.repository;
        let segments = ["api", "v1", "models", owner, name].into_iter().chain(question.iter().copied());
        let mut url = self.hub.url(segments);
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    /// What the hub lists at a directory; the root is the empty path.
    async fn list_at(&self, revision: &str, directory: &str, recursive: bool) -> Result<Tree> {
        let recursive = if recursive { "True" } else { "False" };
        let mut parameters = vec![("Revision", revision), ("Recursive", recursive)];
        if !directory.is_empty() {
            parameters.push(("Root", directory));
        }
        let url = self.api(&["repo", "files"], &parameters);
        let arrival = self.hub.ask(Method::GET, &url, HeaderMap::new(), true).await?;
        if arrival.answer.status() != StatusCode::OK {
            return Err(self.failure(arrival).await);
        }
        match self.hub.read(arrival.answer, parse_tree).await? {
            Ok(Some(tree)) => Ok(tree),
            // What the hub answers for a revision that it does not have.
            Ok(None) => Err(self.nothing_at(directory)),
            Err(code) => Err(self.refusal(StatusCode::OK, Some(code))),
        }
    }

    /// What lies at the model's path, as the directory above it lists it.
    async fn look_up(&self) -> Result<(Option<File>, Tree)> {
        let path = &self.repository.path;
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let mut tree = self.list_at(self.revision(), above, false).await?;
        let found = tree.files.iter().position(|file| file.path == *path).map(|i| tree.files.swap_remove(i));
        if found.is_none() && tree.entries >= MAX_LISTED {
            return Err(self.too_wide(above));
        }
        Ok((found, tree))
    }

    /// All files below the model's path, and the commit that they belong to, as far as the hub tells it.
    async fn tree(&self) -> Result<(Vec<File>, Option<String>)> {
        let root = &self.repository.path;
        let tree = self.list_at(self.revision(), root, true).await?;
        let commit = tree.commit();
        if tree.entries < MAX_LISTED {
            return Ok((tree.files, commit));
        }
        // The branch may move between two listings, and a commit does not.
        let revision = commit.clone().filter(|commit| is_commit(commit)).unwrap_or_else(|| self.revision().to_owned());
        let mut pending = vec![(root.clone(), true)];
        let (mut files, mut count) = (Vec::new(), Count::default());
        let mut listings = 0;
        while let Some((directory, recursive)) = pending.pop() {
            listings += 1;
            if listings > MAX_LISTINGS {
                let sentence = format!("listing it takes more than {MAX_LISTINGS} requests; name a path further down");
                return Err(self.hub.error(ErrorKind::ResourceExhausted, sentence));
            }
            let tree = self.list_at(&revision, &directory, recursive).await?;
            if tree.entries < MAX_LISTED
                && !tree.files.iter().map(|file| &file.path).chain(&tree.directories).all(|path| count.add(path))
            {
                return Err(self.hub.too_many());
            }
            match (tree.entries < MAX_LISTED, recursive) {
                (true, true) => files.extend(tree.files),
                (true, false) => {
                    // One that listed itself would be listed for ever.
                    let below = |path: &String| path.len() > directory.len() && path.starts_with(&directory);
                    pending.extend(tree.directories.into_iter().filter(below).map(|path| (path, true)));
                    files.extend(tree.files);
                }
                (false, true) => pending.push((directory, false)),
                (false, false) => return Err(self.too_wide(&directory)),
            }
        }
        Ok((files, commit))
    }

    /// The file as it lies at `path` below the model's root; empty when it lies elsewhere.
    fn item(&self, file: File, path: &str) -> Result<Item> {
        if path.is_empty() {
            let sentence = format!("{} lists a file of another directory", self.hub.place());
            return Err(self.hub.error(ErrorKind::Unavailable, sentence));
        }
        let revision = file.commit.clone().unwrap_or_else(|| self.revision().to_owned());
        let validator = match (&file.digest, &file.commit) {
            (Some(digest), _) => Some(digest.to_string()),
            (None, Some(commit)) => Some(format!("commit {commit}")),
            (None, None) => None,
        };
        // No revision has a space.
        let locator = format!("{revision} {}", file.path);
        Ok(Item { path: path.to_owned(), size: file.size, locator, validator, digest: file.digest, unpack: None })
    }

    fn content(&self, entry: &Entry) -> Result<Url> {
        let (revision, path) = entry
            .locator
            .split_once(' ')
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a locator that listing did not give"))?;
        Ok(self.api(&["repo"], &[("Revision", revision), ("FilePath", path)]))
    }
}

#[async_trait]
impl Source for ModelScope {
    async fn list(&self) -> Result<Listing> {
        let Repository { owner, name, path, directory, .. } = &self.repository;
        let file = match path.as_str() {
            "" => None,
            _ => match self.look_up().await? {
                (Some(file), tree) if !directory => Some((file, tree.commit())),
                (None, tree) if tree.directories.contains(path) => None,
                _ => return Err(self.nothing_at(path)),
            },
        };
        let exact = file.is_some();
        let (items, revision) = match file {
            Some((file, commit)) => {
                let commit = file.commit.clone().or(commit);
                (vec![self.item(file, base_name(path))?], commit)
            }
            None => {
                let (files, commit) = self.tree().await?;
                let item = |file: File| {
                    let path = self.repository.below(&file.path).unwrap_or_default().to_owned();
                    self.item(file, &path)
                };
                (files.into_iter().map(item).collect::<Result<_>>()?, commit)
            }
        };
        let store = format!("modelscope|{}|{owner}/{name}", self.hub.place());
        Ok(Listing { store, revision, items, exact })
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        // The body is not read. A file that is redirected is one that these credentials may read.
        let first_byte = [(RANGE, HeaderValue::from_static("bytes=0-0"))].into_iter().collect();
        let arrival = self.hub.ask(Method::GET, &self.content(entry)?, first_byte, false).await?;
        let status = arrival.answer.status();
        let there = status.is_success() || status.is_redirection() || status == StatusCode::RANGE_NOT_SATISFIABLE;
        if there { Ok(()) } else { Err(self.failure(arrival).await) }
    }

    fn rights(&self) -> Rights {
        Rights::Model
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let mut headers = HeaderMap::new();
        portion::ask(&portion, &mut headers);
        let arrival = self.hub.ask(Method::GET, &self.content(entry)?, headers, true).await?;
        if !matches!(arrival.answer.status().as_u16(), 200 | 206 | 416) {
            return Err(self.failure(arrival).await);
        }
        portion::receive(arrival.answer, &portion, entry.size, &self.hub.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn open(uri: &str, secrets: &[(&str, &str)]) -> Result<ModelScope> {
        let credentials = secrets.iter().copied().collect();
        ModelScope::open(&ModelUri::parse(uri)?, &Options::new(), &credentials, &Context::new(Policy::default())?)
    }

    #[test]
    fn uris_become_the_hubs_urls() {
        let source = open("modelscope://o/n:v1.0/a b#?&c", &[]).unwrap();
        assert_eq!((source.revision(), source.repository.path.as_str()), ("v1.0", "a b#?&c"));
        let url = source.api(&["repo"], &[("Revision", "v1.0"), ("FilePath", "a b#?&c%20+é")]);
        assert_eq!(
            url.as_str(),
            "https://modelscope.cn/api/v1/models/o/n/repo?Revision=v1.0&FilePath=a+b%23%3F%26c%2520%2B%C3%A9"
        );
        assert_eq!(open("modelscope://o/n", &[]).unwrap().revision(), "master");
        let elsewhere = open("modelscope://o/n", &[("MODELSCOPE_DOMAIN", "www.modelscope.ai")]).unwrap();
        assert_eq!(elsewhere.hub.place(), "https://www.modelscope.ai");
        assert_eq!(open("modelscope://n", &[]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn the_token_is_never_shown() {
        let source = open("modelscope://o/n", &[(TOKEN, "ms-CANARY")]).unwrap();
        assert!(!source.hub.anonymous() && !format!("{source:?}").contains("CANARY"));
    }
}
