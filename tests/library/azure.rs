//! The `azure` source against Azurite and an emulator of Azure Files, beyond what every source must do.

use std::time::Duration;

use modelmount::model::MODEL_URI;
use modelmount::{Credentials, Error, ErrorKind, Manifest, Model};
use modelmount_test_support::conformance::Attributes;

use crate::node::resolve;

mod blobs;
mod files;
mod token;

/// The container or share that each test's server has.
pub(crate) const CONTAINER: &str = "models";

pub(crate) fn attributes(uri: &str, endpoint: &str) -> Attributes {
    [(MODEL_URI, uri), ("endpoint", endpoint)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

pub(crate) fn key(key: &str) -> Credentials {
    [("AZURE_STORAGE_ACCESS_KEY", key)].into_iter().collect()
}

fn signature(signature: &str) -> Credentials {
    [("AZURE_STORAGE_SAS_TOKEN", signature)].into_iter().collect()
}

/// Long enough for any machine, and far less than a user waits before asking what is wrong.
const SECONDS: Duration = Duration::from_secs(25);

async fn resolved(uri: &str, endpoint: &str, credentials: &Credentials) -> Result<(Model, Manifest), Error> {
    let attributes = attributes(uri, endpoint);
    tokio::time::timeout(SECONDS, resolve(&attributes, credentials)).await.expect("an answer")
}

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries().iter().map(|entry| entry.path.as_str()).collect()
}

/// Checks an error's kind and words, and that it shows no secret: all that the tests use have a part in common.
fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let shown = format!("{} {error:?} {error:#?}", error.report());
    for hint in hints {
        assert!(shown.contains(hint), "{shown:?} does not say {hint:?}");
    }
    for secret in ["CANARY", "sig=", "AAAA"] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}
