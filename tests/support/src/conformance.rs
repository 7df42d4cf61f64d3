//! What every source must do: one suite, run against each implementation over a real server.
//!
//! ```text
//! #[tokio::test]
//! async fn s3_conforms() {
//!     let Some(server) = S3Server::start(S3Kind::Versitygw).await else { return };
//!     conformance(&S3Fixture::new(server)).await;
//! }
//! ```
//!
//! Each check has a number, with which its message begins. A fixture is new: it holds nothing under `conformance/`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use modelmount::model::MODEL_URI;
use modelmount::source::{Context, Portion, Source};
use modelmount::{Credentials, Entry, Error, ErrorKind, Manifest, Model, ModelRequest, ModelUri, Policy};

use crate::model::Files;

mod listing;
mod reading;
mod refusing;

/// Attributes of a volume, as a user writes them.
pub type Attributes = BTreeMap<String, String>;

/// A store that a source reads, as the suite needs it: a container (a bucket, a root) with files by path.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The attributes that name the model at `path`: `modelUri` and what else the source needs. A `path` that ends in a
    /// slash gives a URI that does. Encodes the path if the source's URIs are encoded.
    fn attributes(&self, path: &str) -> Attributes;

    /// Credentials that may read everything.
    fn credentials(&self) -> Credentials;

    /// Puts a file.
    async fn put(&self, path: &str, bytes: Vec<u8>);

    /// Replaces a file in one step, such that its validator changes if it has one. May be given the same number of bytes.
    async fn replace(&self, path: &str, bytes: Vec<u8>) {
        self.put(path, bytes).await;
    }

    /// Makes a directory without files, or the store's stand-in for one; `false` when there is no such thing.
    async fn make_empty_directory(&self, _path: &str) -> bool {
        false
    }

    /// What requests may reach.
    fn policy(&self) -> Policy {
        Policy::unrestricted()
    }

    /// Whether the source lists directories; otherwise a URI names one file.
    fn holds_directories(&self) -> bool {
        true
    }

    /// Whether the store keeps what a manifest names when it is replaced, so that it is still what is read.
    fn keeps_versions(&self) -> bool {
        false
    }

    /// Whether a listing tells every file's size.
    fn knows_sizes(&self) -> bool {
        true
    }

    /// Whether the store can hold [`crate::model::ODD_NAMES`].
    fn odd_names(&self) -> bool {
        true
    }

    /// Credentials that the store refuses. With some, the store is private, and refuses anonymous access too.
    fn wrong_credentials(&self) -> Option<Credentials> {
        None
    }

    /// Names among the credentials whose values are no secrets: errors may show them.
    fn public_credential_names(&self) -> &[&str] {
        &["AWS_ACCESS_KEY_ID", "awsAccessKeyID"]
    }

    /// The attributes of a model at an address where nothing listens: see [`crate::free_address`].
    fn unreachable(&self) -> Option<Attributes> {
        None
    }

    /// The attributes of a model in a container that does not exist. The URI's authority is the container's name.
    fn missing_container(&self) -> Option<Attributes> {
        None
    }
}

/// Runs all checks.
///
/// # Panics
/// At the first check that fails.
pub async fn conformance(fixture: &dyn Fixture) {
    let context = Context::new(fixture.policy()).expect("a context can be made");
    let suite = Suite { fixture, context };
    if fixture.holds_directories() {
        listing::directories(&suite).await;
    }
    listing::single_files(&suite).await;
    listing::identity(&suite).await;
    reading::portions(&suite).await;
    reading::replaced_content(&suite).await;
    refusing::missing(&suite).await;
    refusing::wrong_credentials(&suite).await;
    refusing::unreachable(&suite).await;
}

struct Suite<'a> {
    fixture: &'a dyn Fixture,
    context: Context,
}

impl Suite<'_> {
    async fn put_all(&self, directory: &str, files: &Files) {
        for (path, bytes) in files {
            self.fixture.put(&format!("{directory}/{path}"), bytes.clone()).await;
        }
    }

    fn open(&self, attributes: &Attributes, credentials: &Credentials) -> (ModelRequest, Model) {
        let request = ModelRequest::from_attributes(attributes)
            .unwrap_or_else(|error| panic!("the fixture's attributes {attributes:?}: {error:?}"));
        let model = request
            .open(credentials, &self.context)
            .unwrap_or_else(|error| panic!("can't open {:?}: {error:?}", attributes.get(MODEL_URI)));
        (request, model)
    }

    async fn try_resolve(&self, attributes: &Attributes, credentials: &Credentials) -> Result<Manifest, Error> {
        let (request, model) = self.open(attributes, credentials);
        request.resolve(&model).await
    }

    /// The source and the manifest of the model at `path`, with the right credentials.
    async fn resolve(&self, path: &str) -> (Arc<dyn Source>, Manifest) {
        let (request, model) = self.open(&self.fixture.attributes(path), &self.fixture.credentials());
        let manifest = request.resolve(&model).await;
        (sole(&model), manifest.unwrap_or_else(|error| panic!("can't resolve {path:?}: {error:?}")))
    }

    /// As [`Self::resolve`], for a model of one file.
    async fn resolve_file(&self, path: &str) -> (Arc<dyn Source>, Entry) {
        let (source, manifest) = self.resolve(path).await;
        let [entry] = manifest.entries() else { panic!("{path:?} is one file, and lists as {:?}", paths(&manifest)) };
        (source, Entry::clone(entry))
    }

    /// Checks that neither the error nor the source's `Debug` shows a secret.
    fn assert_no_leak(&self, check: &str, shown: &dyn Debug, credentials: &Credentials) {
        let mut text = format!("{shown:?} {shown:#?}");
        text.push_str(&format!("{credentials:?}"));
        for name in credentials.names().filter(|name| !self.fixture.public_credential_names().contains(name)) {
            let Some(value) = credentials.get(&[name]) else { continue };
            assert!(!text.contains(value.expose().as_str()), "{check}: the value of {name} is shown: {text}");
        }
    }
}

/// The source of a model that has one.
fn sole(model: &Model) -> Arc<dyn Source> {
    Arc::clone(&model.sources()[0])
}

/// Reads a portion to its end.
async fn read(source: &dyn Source, entry: &Entry, portion: Portion) -> Result<Vec<u8>, Error> {
    let pieces: Vec<_> = source.read(entry, portion).await?.try_collect().await?;
    Ok(pieces.concat())
}

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn authority(attributes: &Attributes) -> String {
    let uri = attributes.get(MODEL_URI).expect("a fixture's attributes have a modelUri");
    ModelUri::parse(uri).expect("a fixture's URI is one").authority().to_owned()
}

/// The error of `result`, which must be of one of these kinds.
fn expect_error<T: Debug>(check: &str, result: Result<T, Error>, kinds: &[ErrorKind]) -> Error {
    match result {
        Ok(value) => panic!("{check}: expected an error of kind {kinds:?}, got {value:?}"),
        Err(error) if kinds.contains(&error.kind()) => error,
        Err(error) => panic!("{check}: expected an error of kind {kinds:?}, got {error:?}"),
    }
}
