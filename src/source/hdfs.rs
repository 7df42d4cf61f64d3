//! HDFS by its REST interface, WebHDFS: `hdfs://namenode:9870/path`, `webhdfs://…`, `swebhdfs://…` (with TLS).
//!
//! The path names one file, or a directory with everything below it. The namenode answers questions about names; a
//! read is redirected to a datanode, which serves any range. A version is pinned by file id, modification time and
//! length, which the namenode is asked for before and after each read, since HDFS reads by name.
//!
//! ```text
//! settings   URI, attributes and Secret -> which namenodes, which path, who asks      pure
//! rest       requests: the active namenode, redirects to datanodes
//! answer     what the namenode's JSON says                                            pure
//! refusal    what its refusals mean                                                   pure
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Attribute, ByteStream, Context, Options, PlaceKeys, Portion, Registration, Source};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing};
use crate::net::{network_error, origin_text};
use crate::uri::ModelUri;

mod answer;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod refusal;
mod rest;
mod settings;

use answer::{Kind, Status};
use rest::Rest;
use settings::{NAMENODE_KEYS, ROOT_PATH_KEYS, Settings};

const NAMENODE: Attribute = Attribute {
    name: "namenode",
    meaning: "URL of the namenode or gateway, several with commas; the URI is then all path: hdfs://user/me/model",
};
const ROOT_PATH: Attribute = Attribute { name: "rootPath", meaning: "directory that the URI's path is relative to" };

pub(super) const REGISTRATION: Registration = Registration {
    name: "hdfs",
    forms: &["hdfs://namenode:9870/path", "webhdfs://namenode:9870/path", "swebhdfs://namenode:9871/path"],
    attributes: &[NAMENODE, ROOT_PATH],
    place_keys: &[
        PlaceKeys { names: NAMENODE_KEYS, attributes: &[NAMENODE], concern: |_, _| true },
        PlaceKeys { names: ROOT_PATH_KEYS, attributes: &[ROOT_PATH], concern: |_, _| true },
    ],
    claims: |uri| matches!(uri.scheme().as_str(), "hdfs" | "webhdfs" | "swebhdfs"),
    open: |uri, options, credentials, context| Ok(Arc::new(Hdfs::open(uri, options, credentials, context)?)),
};

/// Directories that are listed at the same time.
const QUESTIONS: usize = 8;
/// Longest path that a listing may lead to: HDFS's own limit is 8,000 characters.
const MAX_PATH: usize = 8192;

#[derive(Debug)]
struct Hdfs {
    rest: Arc<Rest>,
    /// Absolute, without a slash at its end; empty for the root.
    path: String,
    /// Whether the URI can only mean a directory.
    directory: bool,
    store: String,
}

impl Hdfs {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let settings = Settings::read(uri, options, credentials)?;
        let http = settings.client(&context.http).map_err(|error| error.within(uri))?;
        let Settings { path, directory, store, .. } = settings.clone();
        Ok(Self { rest: Arc::new(Rest::new(uri.clone(), settings, http)), path, directory, store })
    }

    fn error(&self, kind: ErrorKind, problem: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("{} {problem}", self.rest.uri()))
    }

    /// Lists everything below the path, level by level.
    async fn below(&self) -> Result<Vec<Item>> {
        let (mut items, mut count) = (Vec::new(), Count::default());
        let mut level = vec![self.path.clone()];
        while !level.is_empty() {
            let mut listings = stream::iter(std::mem::take(&mut level))
                .map(async |path| {
                    let entries = self.rest.entries(&path).await?;
                    Ok::<_, Error>((path, entries))
                })
                .buffered(QUESTIONS);
            while let Some((directory, entries)) = listings.try_next().await? {
                for entry in entries {
                    let path = format!("{directory}/{}", entry.name);
                    if !count.add(&path) {
                        return Err(super::too_many(self.rest.uri()));
                    }
                    match entry.kind {
                        Kind::Directory => level.push(path),
                        Kind::File => items.push(item(&path, &path[self.path.len() + 1..], &entry)),
                        Kind::Symlink => return Err(self.link(&path)),
                    }
                }
            }
            if level.iter().any(|path| path.len() > MAX_PATH) {
                return Err(self.error(ErrorKind::Unavailable, "is listed with directories that never end"));
            }
        }
        Ok(items)
    }

    fn link(&self, path: &str) -> Error {
        let text = format!("has the symbolic link {path:?}, and links are not followed: name a path without one");
        self.error(ErrorKind::FailedPrecondition, text)
    }
}

/// Checks that a file is still the one that was listed.
async fn unchanged(rest: &Rest, path: &str, validator: Option<&str>) -> Result<()> {
    let changed = || Error::new(ErrorKind::Changed, format!("{}: {path:?} has changed at the source", rest.uri()));
    match rest.status(path).await {
        Ok(status) if status.kind == Kind::File && Some(status.validator().as_str()) == validator => Ok(()),
        Ok(_) => Err(changed()),
        // It was listed a moment ago.
        Err(error) if error.kind() == ErrorKind::NotFound => Err(changed()),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Source for Hdfs {
    async fn list(&self) -> Result<Listing> {
        let status = self.rest.status(&self.path).await?;
        let listing = |items, exact| Listing { store: self.store.clone(), revision: None, items, exact };
        match status.kind {
            Kind::File if self.directory => {
                Err(self.error(ErrorKind::NotFound, "is a file: take the slash from the URI's end"))
            }
            Kind::File => {
                let name = self.path.rsplit('/').next().unwrap_or_default();
                Ok(listing(vec![item(&self.path, name, &status)], true))
            }
            Kind::Directory => Ok(listing(self.below().await?, false)),
            Kind::Symlink => Err(self.link(&self.path)),
        }
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        unchanged(&self.rest, &entry.locator, entry.validator.as_deref()).await?;
        // The namenode checks the right to read before it names a datanode.
        self.rest.may_open(&entry.locator).await
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let Some(size) = entry.size else {
            return Err(Error::new(ErrorKind::Internal, "a file of HDFS without a size"));
        };
        let range = match portion {
            Portion::Whole => 0..size,
            Portion::Range(range) => range,
        };
        unchanged(&self.rest, &entry.locator, entry.validator.as_deref()).await?;
        if range.is_empty() {
            // Also a datanode may have nothing to say about nothing.
            self.rest.may_open(&entry.locator).await?;
            return Ok(stream::empty().boxed());
        }
        let length = range.end - range.start;
        let answer = self.rest.open(&entry.locator, range).await?;
        let (uri, host) = (self.rest.uri().clone(), origin_text(answer.url()));
        let bytes = answer.bytes_stream().map_err(move |error| network_error(&host, error).within(&uri));
        let bytes = super::exactly(bytes.boxed(), Some(length), self.rest.uri().to_string());
        let (rest, path, validator) = (Arc::clone(&self.rest), entry.locator.clone(), entry.validator.clone());
        let check = async move { unchanged(&rest, &path, validator.as_deref()).await };
        Ok(checked_at_the_end(bytes, length, check))
    }
}

/// Holds the last bytes back until `check` has been made: who counts bytes never sees the end of a stream.
fn checked_at_the_end(
    bytes: ByteStream,
    length: u64,
    check: impl Future<Output = Result<()>> + Send + 'static,
) -> ByteStream {
    let mut check = Some(Box::pin(check));
    let mut seen = 0;
    bytes
        .and_then(move |chunk| {
            seen += chunk.len() as u64;
            let last = if seen == length { check.take() } else { None };
            async move {
                match last {
                    Some(check) => check.await.map(|()| chunk),
                    None => Ok(chunk),
                }
            }
        })
        .boxed()
}

fn item(path: &str, name: &str, status: &Status) -> Item {
    Item {
        path: name.to_owned(),
        size: Some(status.length),
        locator: path.to_owned(),
        validator: Some(status.validator()),
        digest: None,
        unpack: None,
    }
}
