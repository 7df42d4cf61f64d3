//! What all object stores have in common: a model is one object, or all objects below a prefix.
//!
//! The path names one object, or else all objects below it at a path boundary (`s3://b/model` never takes
//! `model-v2/…`). Versions are pinned by ETag: every read carries `If-Match`, and the answer's ETag is compared as well,
//! for the servers that ignore the condition.
//!
//! `object_store` falls back to the machine's own identity when it is given no credentials: whoever builds a store for
//! [`Objects`] gives it the caller's, or has it sign nothing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use object_store::path::Path;
use object_store::{BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};

use super::{Attribute, ByteStream, Options, Portion, Source};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing, MAX_ENTRIES};
use crate::uri::ModelUri;

mod checksum;
mod connector;
mod endpoint;
mod failure;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod store;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod token;

use checksum::Declared;
#[cfg(feature = "azure")]
pub(super) use checksum::declared;
pub(super) use connector::Connector;
#[cfg(feature = "azure")]
pub(super) use connector::endless;
pub(super) use endpoint::parse_endpoint;
pub(super) use failure::{Dialect, Failures, Meaning};
pub(super) use store::Store;
#[cfg(feature = "gcs")]
pub(super) use token::{Issuer, Token};
#[cfg(any(feature = "gcs", feature = "azure"))]
pub(super) use token::{TokenEndpoint, Tokens, token_url};

/// Most pages of a listing that are followed. Those of Amazon, Google and Azure have 1,000 and more entries.
pub(super) const MAX_PAGES: usize = MAX_ENTRIES / 100;
/// Questions about single objects that are asked of the server at the same time.
const QUESTIONS: usize = 16;

/// A model in a bucket or container.
pub(super) struct Objects {
    pub(super) store: Store,
    pub(super) failures: Failures,
    /// Endpoint and container: the name space that keys and ETags belong to.
    pub(super) identity: String,
    pub(super) key: Key,
}

// By hand: some stores' own `Debug` shows keys.
impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("identity", &self.identity).field("key", &self.key).finish_non_exhaustive()
    }
}

/// The key or prefix that a URI names.
#[derive(Debug)]
pub(super) struct Key {
    /// Without slashes at the ends; empty for the whole container.
    pub(super) path: Path,
    /// Whether the URI can only mean a directory.
    pub(super) directory: bool,
}

impl Key {
    /// Takes what stands behind the container in a URI, `/` first.
    pub(super) fn parse(uri: &ModelUri, path: &str) -> Result<Self> {
        let raw = path.strip_prefix('/').unwrap_or(path);
        let directory = raw.is_empty() || raw.ends_with('/');
        let path = Path::parse(raw).map_err(|_| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{uri}: a key with an empty, \".\" or \"..\" component between slashes can't be a model's path"
                ),
            )
        })?;
        Ok(Self { path, directory })
    }
}

/// How often `object_store` repeats a request by itself: a busy moment is bridged, the rest is the transfer's business.
pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(15),
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
    }
}

/// A bucket's name, as S3 and Google allow it.
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(super) fn bucket(uri: &ModelUri) -> Result<&str> {
    let name = uri.authority();
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Ok(name);
    }
    let text = format!("{uri}: a bucket's name has only letters, digits, '.', '-' and '_'");
    Err(Error::new(ErrorKind::InvalidArgument, text))
}

/// A setting: the volume's attribute, else what the Secret says under one of `names`.
pub(super) fn setting(
    options: &Options,
    credentials: &Credentials,
    attribute: Attribute,
    names: &[&str],
) -> Option<String> {
    let value = options.get(attribute.name).map(|value| value.trim().to_owned());
    value.or_else(|| credentials.get(names).map(|value| value.expose().clone())).filter(|value| !value.is_empty())
}

impl Objects {
    /// The object that the URI names exactly, if there is one.
    async fn exact(&self) -> Result<Option<ObjectMeta>> {
        if self.key.directory {
            return Ok(None);
        }
        match self.head(&self.key.path).await {
            // The start of 1970 stands for no time at all. Every store tells one or the other.
            Ok(meta) if etag(&meta).is_none() && meta.last_modified.timestamp() == 0 => {
                Err(self.failures.another_protocol())
            }
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, path: &Path) -> Result<ObjectMeta> {
        let head = || self.store.ask(|store| async move { store.head(path).await });
        let region = self.store.region();
        let mut meta = head().await;
        if meta.as_ref().is_err_and(|error| self.store.may_be_elsewhere(error)) {
            // The answer to a HEAD has no body that could say where.
            let byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
            let byte = &byte;
            let read = self.store.ask(|store| async move { store.get_opts(path, byte.clone()).await });
            // Whatever it says of the object: by now the region is known, if the server tells it.
            drop(read.await);
            if self.store.region() != region {
                meta = head().await;
            }
        }
        meta.map_err(|error| self.failures.explain(error))
    }

    async fn below(&self) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.ask(|store| async move {
            let mut listing = store.list(Some(&self.key.path));
            let (mut objects, mut count) = (Vec::new(), Count::default());
            while let Some(meta) = listing.try_next().await? {
                if !count.add(meta.location.as_ref()) {
                    return Ok(Err(self.failures.too_many()));
                }
                objects.push(meta);
            }
            Ok(Ok(objects))
        });
        let objects = listed.await.map_err(|error| self.failures.explain(error))??;
        self.with_versions(self.without_markers(objects).await?).await
    }

    /// Some servers list objects without their ETags. They are asked for each, since nothing else in a listing tells
    /// two versions apart: its times are finer than those of the object itself.
    async fn with_versions(&self, objects: Vec<ObjectMeta>) -> Result<Vec<ObjectMeta>> {
        if objects.iter().all(|meta| etag(meta).is_some()) {
            return Ok(objects);
        }
        stream::iter(objects)
            .map(async |meta| match etag(&meta) {
                Some(_) => Ok(meta),
                None => self.head(&meta.location).await,
            })
            .buffered(QUESTIONS)
            .try_collect()
            .await
    }

    /// Drops "directory markers": zero-byte objects whose key ends in a slash, as consoles and synchronisation tools
    /// leave them. `object_store` trims that slash, so a marker `a/` looks like an empty file `a`; one with something
    /// below it can only be a marker, and for the others the server is asked whether there is an object `a`.
    async fn without_markers(&self, mut objects: Vec<ObjectMeta>) -> Result<Vec<ObjectMeta>> {
        objects.sort_by(|a, b| (&a.location, b.size).cmp(&(&b.location, a.size)));
        objects.dedup_by(|later, first| later.location == first.location);
        objects.retain(|meta| meta.location != self.key.path || meta.size > 0);
        let has_below = |meta: &ObjectMeta| {
            let below = format!("{}/", meta.location);
            let next = objects.partition_point(|other| other.location.as_ref() < below.as_str());
            objects.get(next).is_some_and(|other| other.location.as_ref().starts_with(&below))
        };
        let empty: Vec<(Path, bool)> =
            objects.iter().filter(|meta| meta.size == 0).map(|meta| (meta.location.clone(), has_below(meta))).collect();
        let markers: Vec<Path> = stream::iter(empty)
            .map(async |(location, has_below)| {
                if has_below {
                    return Ok(Some(location));
                }
                match self.head(&location).await {
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(location)),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(QUESTIONS)
            .try_filter_map(future::ok)
            .try_collect()
            .await?;
        let markers: std::collections::HashSet<Path> = markers.into_iter().collect();
        objects.retain(|meta| !markers.contains(&meta.location));
        Ok(objects)
    }

    fn path(&self, entry: &Entry) -> Result<Path> {
        Path::parse(&entry.locator)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a locator that listing did not give", error))
    }

    fn item(meta: ObjectMeta, path: String) -> Item {
        let validator = Some(validator(&meta));
        Item { path, size: Some(meta.size), locator: meta.location.into(), validator, digest: None, unpack: None }
    }
}

#[async_trait]
impl Source for Objects {
    async fn list(&self) -> Result<Listing> {
        let (exact, below) = future::join(self.exact(), self.below()).await;
        let listing = |items, exact| Listing { store: self.identity.clone(), revision: None, items, exact };
        // An exact object needs no right to list.
        if let Ok(Some(meta)) = exact {
            let name = self.key.path.filename().unwrap_or_default().to_owned();
            return Ok(listing(vec![Self::item(meta, name)], true));
        }
        let objects = below?;
        let prefix = self.key.path.as_ref();
        let items: Vec<Item> = objects
            .into_iter()
            .map(|meta| {
                let path = meta.location.as_ref();
                let path = path.strip_prefix(prefix).map_or(path, |rest| rest.trim_start_matches('/')).to_owned();
                Self::item(meta, path)
            })
            .collect();
        if items.is_empty() {
            // With nothing listed, why there is no exact object is the better answer.
            exact?;
            return Err(self.failures.nothing_here());
        }
        Ok(listing(items, false))
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        let meta = self.head(&self.path(entry)?).await?;
        if Some(validator(&meta)) == entry.validator { Ok(()) } else { Err(self.failures.changed(&entry.locator)) }
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let whole = portion == Portion::Whole;
        let expected = match &portion {
            Portion::Whole => entry.size,
            Portion::Range(range) => Some(range.end - range.start),
        };
        let etag = entry.validator.as_deref().filter(|validator| !validator.starts_with(MODIFIED));
        let options = GetOptions {
            if_match: etag.map(str::to_owned),
            range: match portion {
                Portion::Whole => None,
                Portion::Range(range) => Some(GetRange::Bounded(range)),
            },
            ..GetOptions::default()
        };
        let path = &self.path(entry)?;
        let answer = self.store.ask(|store| {
            let options = options.clone();
            async move { store.get_opts(path, options).await }
        });
        let answer = answer.await;
        let answer = answer.map_err(|error| match self.failures.explain(error) {
            // It was listed a moment ago.
            error if error.kind() == ErrorKind::NotFound => self.failures.changed(&entry.locator),
            error => error,
        })?;
        if Some(validator(&answer.meta)) != entry.validator || Some(answer.meta.size) != entry.size {
            return Err(self.failures.changed(&entry.locator));
        }
        let declared = answer.extensions.get::<Declared>().copied().filter(|_| whole);
        let failures = self.failures.clone();
        let bytes = answer.into_stream().map_err(move |error| failures.explain(error)).boxed();
        let bytes = super::exactly(bytes, expected, self.failures.uri.to_string());
        Ok(match declared {
            Some(declared) => declared.verified(bytes, format!("{} \"{}\"", self.failures.uri, entry.locator)),
            None => bytes,
        })
    }
}

const MODIFIED: &str = "modified ";

/// What changes with the content: the ETag, or for servers without one the time of the last modification.
fn validator(meta: &ObjectMeta) -> String {
    etag(meta).unwrap_or_else(|| format!("{MODIFIED}{}", meta.last_modified.timestamp()))
}

fn etag(meta: &ObjectMeta) -> Option<String> {
    quoted(meta.e_tag.as_deref()?)
}

/// An ETag in the quotes that belong to it: `rclone serve s3` and Azure leave them out of their listings.
pub(super) fn quoted(etag: &str) -> Option<String> {
    let etag = Some(etag).filter(|etag| !etag.trim_matches('"').is_empty())?;
    let quoted = etag.starts_with('"') || etag.starts_with("W/");
    Some(if quoted { etag.to_owned() } else { format!("\"{etag}\"") })
}
