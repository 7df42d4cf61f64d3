//! Amazon S3 and compatible stores: `s3://bucket`, `s3://bucket/prefix`, `s3://bucket/key`.
//!
//! The path names one object, or else all objects below it at a path boundary (`s3://b/model` never takes
//! `model-v2/…`). Rights needed: `s3:ListBucket` on the prefix and `s3:GetObject`; for a single object `GetObject`
//! alone. Versions are pinned by ETag: every read carries `If-Match`, and the answer's ETag is compared as well, for
//! the servers that ignore the condition.
//!
//! `object_store` falls back to the machine's own identity when it is given no credentials; this source always gives
//! it the caller's, or has it sign nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig, StaticCredentialProvider,
};

use super::{Attribute, ByteStream, Context, Options, Portion, Registration, Source};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Entry, Item, Listing, MAX_ENTRIES};
use crate::uri::ModelUri;

mod connector;
mod failure;

use connector::Connector;
use failure::Failures;

const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of the S3 server, for instance https://minio.example:9000; default: Amazon's for the region",
};
const REGION: Attribute = Attribute { name: "region", meaning: "the bucket's region; default us-east-1" };
const ADDRESSING: Attribute = Attribute {
    name: "addressingStyle",
    meaning: "\"path\" or \"virtual\"; default: path with an endpoint, virtual without",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "s3",
    forms: &["s3://bucket/path"],
    attributes: &[ENDPOINT, REGION, ADDRESSING],
    claims: |uri| uri.scheme().as_str() == "s3",
    open: |uri, options, credentials, context| Ok(Arc::new(S3::open(uri, options, credentials, context)?)),
};

/// Questions about single objects that are asked of the server at the same time.
const QUESTIONS: usize = 16;

#[derive(Debug)]
struct S3 {
    store: AmazonS3,
    failures: Failures,
    /// Endpoint and bucket: the name space that keys and ETags belong to.
    identity: String,
    /// The key or prefix, without slashes at the ends; empty for the whole bucket.
    key: Path,
    /// Whether the URI can only mean a directory.
    directory: bool,
}

impl S3 {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, text);
        let bucket = uri.authority();
        if !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(invalid(format!("{uri}: a bucket's name has only letters, digits, '.', '-' and '_'")));
        }
        let raw = uri.path().strip_prefix('/').unwrap_or(uri.path());
        let directory = raw.is_empty() || raw.ends_with('/');
        let key = Path::parse(raw).map_err(|_| {
            invalid(format!(
                "{uri}: a key with an empty, \".\" or \"..\" component between slashes can't be a model's path"
            ))
        })?;

        let option = |attribute: Attribute, names: &[&str]| {
            let attribute = options.get(attribute.name).map(|value| value.trim().to_owned());
            attribute.or_else(|| credentials.get(names).map(|value| value.expose().clone())).filter(|v| !v.is_empty())
        };
        let region = option(REGION, &["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".into());
        let endpoint = match option(ENDPOINT, &["AWS_ENDPOINT_URL"]) {
            Some(endpoint) => Some(parse_endpoint(&endpoint)?),
            None => None,
        };
        let virtual_hosted = match options.get(ADDRESSING.name).map(String::as_str) {
            None => endpoint.is_none(),
            Some("virtual") => true,
            Some("path") => false,
            Some(other) => {
                return Err(invalid(format!("{} is {other:?}: write \"path\" or \"virtual\"", ADDRESSING.name)));
            }
        };

        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&region)
            .with_virtual_hosted_style_request(virtual_hosted)
            .with_http_connector(Connector::new(context.http.clone()))
            .with_retry(RetryConfig {
                max_retries: 2,
                retry_timeout: Duration::from_secs(15),
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(2),
                    base: 2.0,
                },
            });
        let place = endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        if let Some(endpoint) = &endpoint {
            let url = if virtual_hosted { with_bucket_host(endpoint, bucket)? } else { endpoint.clone() };
            builder = builder.with_endpoint(url).with_allow_http(endpoint.starts_with("http://"));
        }
        let credential = static_credentials(credentials)?;
        let anonymous = credential.is_none();
        builder = match credential {
            Some(credential) => builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential))),
            None => builder.with_skip_signature(true),
        };
        let store = builder
            .build()
            .map_err(|error| Error::with_source(ErrorKind::InvalidArgument, format!("{uri} can't be opened"), error))?;
        let identity = format!("s3|{place}|{bucket}");
        let failures = Failures { uri: uri.clone(), bucket: bucket.to_owned(), place, anonymous };
        Ok(Self { store, failures, identity, key, directory })
    }

    /// The object that the URI names exactly, if there is one.
    async fn exact(&self) -> Result<Option<ObjectMeta>> {
        if self.directory {
            return Ok(None);
        }
        match self.store.head(&self.key).await {
            // The start of 1970 stands for no time at all. Every S3 server tells one or the other.
            Ok(meta) if etag(&meta).is_none() && meta.last_modified.timestamp() == 0 => Err(self.failures.not_s3()),
            Ok(meta) => Ok(Some(meta)),
            Err(error) => match self.failures.explain(error) {
                error if error.kind() == ErrorKind::NotFound => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn below(&self) -> Result<Vec<ObjectMeta>> {
        let mut listing = self.store.list(Some(&self.key));
        let mut objects = Vec::new();
        while let Some(meta) = listing.next().await {
            objects.push(meta.map_err(|error| self.failures.explain(error))?);
            if objects.len() > MAX_ENTRIES {
                return Err(self.failures.too_many());
            }
        }
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
                None => self.store.head(&meta.location).await.map_err(|error| self.failures.explain(error)),
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
        objects.retain(|meta| meta.location != self.key || meta.size > 0);
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
                match self.store.head(&location).await.map_err(|error| self.failures.explain(error)) {
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

    fn item(meta: &ObjectMeta, path: &str) -> Item {
        Item {
            path: path.to_owned(),
            size: Some(meta.size),
            locator: meta.location.as_ref().to_owned(),
            validator: Some(validator(meta)),
            digest: None,
            unpack: None,
        }
    }
}

#[async_trait]
impl Source for S3 {
    async fn list(&self) -> Result<Listing> {
        let (exact, below) = future::join(self.exact(), self.below()).await;
        let listing = |items, exact| Listing { store: self.identity.clone(), revision: None, items, exact };
        // An exact object needs no right to list.
        if let Ok(Some(meta)) = exact {
            let name = self.key.filename().unwrap_or_default();
            return Ok(listing(vec![Self::item(&meta, name)], true));
        }
        let objects = below?;
        let prefix = self.key.as_ref();
        let items: Vec<Item> = objects
            .iter()
            .map(|meta| {
                let path = meta.location.as_ref();
                let path = path.strip_prefix(prefix).map_or(path, |rest| rest.trim_start_matches('/'));
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
        let meta = self.store.head(&self.path(entry)?).await;
        let meta = meta.map_err(|error| self.failures.explain(error))?;
        if Some(validator(&meta)) == entry.validator { Ok(()) } else { Err(self.failures.changed(&entry.locator)) }
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
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
        let answer = self.store.get_opts(&self.path(entry)?, options).await;
        let answer = answer.map_err(|error| match self.failures.explain(error) {
            // It was listed a moment ago.
            error if error.kind() == ErrorKind::NotFound => self.failures.changed(&entry.locator),
            error => error,
        })?;
        if Some(validator(&answer.meta)) != entry.validator || Some(answer.meta.size) != entry.size {
            return Err(self.failures.changed(&entry.locator));
        }
        let failures = self.failures.clone();
        let bytes = answer.into_stream().map_err(move |error| failures.explain(error));
        Ok(super::exactly(bytes.boxed(), expected, self.failures.uri.to_string()))
    }
}

const MODIFIED: &str = "modified ";

/// What changes with the content: the ETag, or for servers without one the time of the last modification.
fn validator(meta: &ObjectMeta) -> String {
    etag(meta).unwrap_or_else(|| format!("{MODIFIED}{}", meta.last_modified.timestamp()))
}

/// The ETag, in the quotes that belong to it: `rclone serve s3` leaves them out of its listings.
fn etag(meta: &ObjectMeta) -> Option<String> {
    let etag = meta.e_tag.as_deref().filter(|etag| !etag.trim_matches('"').is_empty())?;
    let quoted = etag.starts_with('"') || etag.starts_with("W/");
    Some(if quoted { etag.to_owned() } else { format!("\"{etag}\"") })
}

/// The names that KServe and the AWS tools use in Secrets.
fn static_credentials(credentials: &Credentials) -> Result<Option<AwsCredential>> {
    let key = credentials.get(&["AWS_ACCESS_KEY_ID", "awsAccessKeyID"]);
    let secret = credentials.get(&["AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey"]);
    let token = credentials.get(&["AWS_SESSION_TOKEN", "awsSessionToken"]);
    match (key, secret) {
        (Some(key), Some(secret)) => Ok(Some(AwsCredential {
            key_id: key.expose().clone(),
            secret_key: secret.expose().clone(),
            token: token.map(|token| token.expose().clone()),
        })),
        (None, None) => Ok(None),
        (key, _) => {
            let missing = if key.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            Err(Error::new(
                ErrorKind::Unauthenticated,
                format!("the Secret has only half of an S3 key pair: add {missing}"),
            ))
        }
    }
}

/// Checks an endpoint and takes the slash from its end.
fn parse_endpoint(text: &str) -> Result<String> {
    let invalid = |problem: &str| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "endpoint {:?} {problem}: write for instance https://s3.example:9000",
                crate::uri::shown_text(text)
            ),
        )
    };
    let url = url::Url::parse(text).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("is not an http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a user, a query or a fragment, which can't be used"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// `object_store` wants the bucket inside a virtual-hosted endpoint.
fn with_bucket_host(endpoint: &str, bucket: &str) -> Result<String> {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let already = rest.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'));
    Ok(if already { endpoint.to_owned() } else { format!("{scheme}://{bucket}.{rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn open(uri: &str, options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<S3> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let credentials = secrets.iter().copied().collect();
        S3::open(&ModelUri::parse(uri)?, &options, &credentials, &Context::new(Policy::default())?)
    }

    #[test]
    fn wrong_settings_are_named() {
        let keys = &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")][..];
        for (uri, options, secrets, hint) in [
            ("s3://b u/m", &[][..], keys, "bucket's name"),
            ("s3://b/m//n", &[], keys, "component"),
            ("s3://b/../n", &[], keys, "component"),
            ("s3://b/m", &[("endpoint", "minio:9000")], keys, "endpoint"),
            ("s3://b/m", &[("endpoint", "https://u:p@minio")], keys, "has a user"),
            ("s3://b/m", &[("addressingStyle", "dns")], keys, "addressingStyle"),
            ("s3://b/m", &[], &keys[..1], "AWS_SECRET_ACCESS_KEY"),
            ("s3://b/m", &[], &keys[1..], "AWS_ACCESS_KEY_ID"),
        ] {
            let error = open(uri, options, secrets).unwrap_err().report();
            assert!(error.contains(hint), "{uri}: {error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn the_store_is_part_of_the_identity() {
        let amazon = open("s3://b/m", &[("region", "eu-west-1")], &[]).unwrap();
        let own = open("s3://b/m/", &[("endpoint", "http://minio:9000/")], &[]).unwrap();
        assert_eq!(amazon.identity, "s3|https://s3.eu-west-1.amazonaws.com|b");
        assert_eq!(own.identity, "s3|http://minio:9000|b");
        assert!(own.directory && !amazon.directory);
    }
}
