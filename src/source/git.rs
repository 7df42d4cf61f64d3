//! Git repositories: `https://host/model.git`, `git+https://host/model@v1#subdirectory=path`.
//!
//! Nothing is cloned. A listing fetches one commit with its trees and with those blobs that are small enough to be
//! pointers of Git LFS, in one request of protocol version 2; a read fetches one blob, or a range of an LFS object.
//! The commit is pinned; everything below it is found by its hash, and so verified.
//!
//! ```text
//! location   URI and attributes -> repository, revision, path      pure
//! message    questions and answers of protocol version 2           pure
//! packet     git's framing                                         pure
//! pack       objects as they are sent                              pure
//! delta      differences between objects                           pure
//! object     ids, trees, commits                                   pure
//! tree       the files of a commit, links resolved                 pure
//! lfs        pointers, and where their objects are                 pure
//! remote     requests
//! reading    their answers that are read while they arrive
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Attribute, ByteStream, Context, Options, Portion, Registration, Rights, Source};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Entry, Item, Listing};
use crate::net::authorization;
use crate::uri::ModelUri;

mod delta;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod lfs;
mod location;
mod message;
mod object;
mod pack;
mod packet;
mod reading;
mod remote;
mod tree;

use lfs::Pointer;
use location::Location;
use object::{Id, Kind};
use pack::Objects;
use remote::{Remote, Repository};
use tree::{Commit, File, Found};

const REVISION: Attribute =
    Attribute { name: "revision", meaning: "branch, tag or commit; the same as @… in the URI" };
const PATH: Attribute = Attribute {
    name: "path",
    meaning: "file or directory of the repository; the same as #subdirectory=… in the URI",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "git",
    forms: &["https://host/repository.git", "git+https://host/repository@revision#subdirectory=path"],
    attributes: &[REVISION, PATH],
    place_keys: &[],
    claims: location::claims,
    open: |uri, options, credentials, context| Ok(Arc::new(Git::open(uri, options, credentials, context)?)),
};

#[derive(Debug)]
struct Git {
    location: Location,
    remote: Remote,
    /// What the server said about itself when it was first asked.
    repository: OnceCell<Repository>,
}

impl Git {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let location = Location::read(uri, options)?;
        let user = credentials.get(&["GIT_USERNAME", "username"]).map(|user| user.expose().clone());
        let password = credentials.get(&["GIT_PASSWORD", "password", "token"]);
        let authorization = match (user.or_else(|| location.user.clone()), password) {
            (None, None) => None,
            // Servers that take tokens for passwords take any name with them.
            (user, password) => {
                let user = user.unwrap_or_else(|| "git".to_owned());
                let password = password.map(|password| password.expose().clone()).unwrap_or_default();
                let value = authorization::basic(&user, &password);
                Some(value.ok_or_else(|| {
                    Error::new(ErrorKind::InvalidArgument, "the Secret's GIT_USERNAME or GIT_PASSWORD can't be sent")
                })?)
            }
        };
        let remote = Remote {
            uri: uri.clone(),
            url: location.url.clone(),
            authorization: Secret::new(authorization),
            http: context.http.clone(),
        };
        Ok(Self { location, remote, repository: OnceCell::new() })
    }

    async fn repository(&self) -> Result<&Repository> {
        self.repository.get_or_try_init(|| self.remote.connect()).await
    }

    fn error(&self, kind: ErrorKind, problem: impl std::fmt::Display) -> Error {
        self.remote.error(kind, problem.to_string())
    }

    /// The commit that `id` is, or that the tag `id` points to, and its tree.
    fn peel(&self, objects: &Objects, mut id: Id) -> Result<(Id, Id)> {
        // Tags may point to tags.
        for _ in 0..8 {
            match objects.get(&id) {
                Some((Kind::Commit, bytes)) => {
                    let tree = object::parse_commit(bytes);
                    let tree = tree.ok_or_else(|| self.error(ErrorKind::Unavailable, "has a broken commit"))?;
                    return Ok((id, tree));
                }
                Some((Kind::Tag, bytes)) => {
                    id = object::parse_tag(bytes)
                        .ok_or_else(|| self.error(ErrorKind::Unavailable, "has a broken tag"))?;
                }
                Some(_) => break,
                None => {
                    return Err(self.error(ErrorKind::Unavailable, "is fetched without the commit that was asked for"));
                }
            }
        }
        Err(self.error(ErrorKind::NotFound, "names a revision that is no commit; check the revision"))
    }

    /// What the commit has at the URI's path, with the sizes that the server tells.
    async fn files(&self, repository: &Repository, objects: Objects, tree: Id) -> Result<Found> {
        let commit = Commit::new(&objects, repository.abilities.format, tree);
        let mut found = commit.find(&self.location.path).map_err(|problem| {
            let kind = if problem.contains("more than") {
                ErrorKind::ResourceExhausted
            } else {
                ErrorKind::FailedPrecondition
            };
            self.error(kind, format!("can't be listed: {problem}"))
        })?;
        drop(objects);
        let files: Vec<&mut File> = match &mut found {
            Found::Nothing => Vec::new(),
            Found::File(file) => vec![file],
            Found::Directory(files) => files.iter_mut().map(|(_, file)| file).collect(),
        };
        if repository.abilities.sizes {
            let unknown = files.iter().filter_map(|file| match file {
                File::Blob(id, None) => Some(id.clone()),
                _ => None,
            });
            let sizes = self.remote.sizes(repository, &unknown.collect::<Vec<_>>()).await?;
            for file in files {
                if let File::Blob(id, size @ None) = file {
                    *size = sizes.get(id).copied();
                }
            }
        }
        Ok(found)
    }

    async fn pointer(&self, pointer: &Pointer, portion: Portion) -> Result<ByteStream> {
        let repository = self.repository().await?;
        let download = self.remote.lfs(repository, pointer).await?;
        self.remote.download(&download, &portion, pointer.size).await
    }
}

#[async_trait]
impl Source for Git {
    async fn list(&self) -> Result<Listing> {
        let repository = self.repository().await?;
        let id = self.remote.resolve(repository, self.location.revision.as_deref()).await?;
        let objects = self.remote.commit(repository, &id).await?;
        let (commit, tree) = self.peel(&objects, id)?;
        let listing = |items, exact| Listing {
            store: format!("git|{}", self.location.url),
            revision: Some(commit.to_string()),
            items,
            exact,
        };
        match self.files(repository, objects, tree).await? {
            Found::File(file) if !self.location.directory => {
                let name = self.location.path.rsplit('/').next().unwrap_or_default();
                Ok(listing(vec![item(name.to_owned(), file)], true))
            }
            Found::Directory(files) => {
                Ok(listing(files.into_iter().map(|(path, file)| item(path, file)).collect(), false))
            }
            Found::Nothing | Found::File(_) => {
                let text = format!("has no {:?} at the commit {commit}; check the path", self.location.path);
                Err(self.error(ErrorKind::NotFound, text))
            }
        }
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        match Locator::parse(&entry.locator) {
            Some(Locator::Blob(_)) => self.remote.connect().await.map(drop),
            Some(Locator::Pointer(pointer)) => self.remote.lfs(self.repository().await?, &pointer).await.map(drop),
            Some(Locator::Link(problem)) => Err(self.link(entry, &problem)),
            None => Err(foreign()),
        }
    }

    fn rights(&self) -> Rights {
        Rights::Model
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let gone = |error: Error| match error.kind() {
            // It was listed a moment ago.
            ErrorKind::NotFound => Error::with_source(
                ErrorKind::Changed,
                format!("{}: {:?} is gone at the source", self.remote.uri, entry.path),
                error,
            ),
            _ => error,
        };
        match Locator::parse(&entry.locator) {
            Some(Locator::Blob(_)) if portion != Portion::Whole => {
                Err(self.error(ErrorKind::RangesUnsupported, "is not served in parts by git"))
            }
            Some(Locator::Blob(id)) => {
                let repository = self.repository().await?;
                let bytes = self.remote.blob(repository, &id).await.map_err(gone)?;
                Ok(super::exactly(bytes, entry.size, self.remote.uri.to_string()))
            }
            Some(Locator::Pointer(pointer)) => self.pointer(&pointer, portion).await.map_err(gone),
            Some(Locator::Link(problem)) => Err(self.link(entry, &problem)),
            None => Err(foreign()),
        }
    }
}

impl Git {
    fn link(&self, entry: &Entry, problem: &str) -> Error {
        let text = format!("has the symbolic link {:?}, which {problem}; exclude it with ignorePatterns", entry.path);
        self.error(ErrorKind::FailedPrecondition, text)
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Internal, "a locator that listing did not give")
}

/// Where a file's bytes are, as listings keep it.
#[derive(Debug, PartialEq, Eq)]
enum Locator {
    Blob(Id),
    Pointer(Pointer),
    Link(String),
}

impl Locator {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("blob", id) => Id::from_hex(id).map(Self::Blob),
            ("link", problem) => Some(Self::Link(problem.to_owned())),
            ("lfs", rest) => {
                let (digest, size) = rest.split_once(' ')?;
                Some(Self::Pointer(Pointer { digest: digest.parse().ok()?, size: size.parse().ok()? }))
            }
            _ => None,
        }
    }
}

fn item(path: String, file: File) -> Item {
    let (locator, size, digest) = match file {
        File::Blob(id, size) => (format!("blob {id}"), size, None),
        File::Pointer(Pointer { digest, size }) => (format!("lfs {digest} {size}"), Some(size), Some(digest)),
        // Told when it is read, so that patterns can leave it out.
        File::Link(problem) => (format!("link {problem}"), None, None),
    };
    // A locator names contents: it changes whenever they do.
    Item { path, size, validator: Some(locator.clone()), locator, digest, unpack: None }
}
