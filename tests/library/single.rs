//! What the tests of sources share: a model of one source, what it holds, and how its refusals read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use modelmount::source::Portion;
use modelmount::{Credentials, Entry, Error, ErrorKind, Manifest, Source};
use modelmount_test_support::conformance::Attributes;

/// Long enough for any machine, and far less than a user waits before asking what is wrong.
const SECONDS: Duration = Duration::from_secs(25);

/// What no error may show, where a test gives it as a secret.
pub(crate) const CANARY: &str = "CANARY-0123456789";

/// Opens and lists a model, as anything may that reaches loopback.
pub(crate) async fn resolve(
    attributes: &Attributes,
    credentials: &Credentials,
) -> Result<(Arc<dyn Source>, Manifest), Error> {
    let (model, manifest) = crate::node::resolve(attributes, credentials).await?;
    Ok((Arc::clone(&model.sources()[0]), manifest))
}

pub(crate) async fn read(source: &dyn Source, entry: &Entry, portion: Portion) -> Result<Vec<u8>, Error> {
    let pieces: Vec<_> = source.read(entry, portion).await?.try_collect().await?;
    Ok(pieces.concat())
}

pub(crate) async fn read_whole(source: &dyn Source, entry: &Entry) -> Result<Vec<u8>, Error> {
    read(source, entry, Portion::Whole).await
}

/// All files of a model, by path.
pub(crate) async fn read_all(source: &dyn Source, manifest: &Manifest) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut files = BTreeMap::new();
    for entry in manifest.entries() {
        files.insert(entry.path.to_string(), read_whole(source, entry).await?);
    }
    Ok(files)
}

pub(crate) async fn refused(attributes: &Attributes, credentials: &Credentials) -> Error {
    let answer = tokio::time::timeout(SECONDS, resolve(attributes, credentials)).await;
    answer.unwrap_or_else(|_| panic!("no answer within {SECONDS:?}")).map(|(_, manifest)| manifest).unwrap_err()
}

pub(crate) fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for hint in hints {
        assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
    }
    for shown in [error.report(), format!("{error:?}"), format!("{error:#?}")] {
        assert!(!shown.contains(CANARY), "a secret is shown: {shown}");
    }
}
