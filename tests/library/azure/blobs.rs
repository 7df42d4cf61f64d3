//! Blobs, on Azurite.

use std::collections::BTreeMap;

use modelmount::{Credentials, ErrorKind, Policy};
use modelmount_test_support::Azurite;
use modelmount_test_support::azure_blob::{FAR_FUTURE, LONG_AGO};
use modelmount_test_support::model::{self, Files};

use super::{CONTAINER, assert_says, attributes, key, paths, resolved, signature};
use crate::node::{Node, assert_snapshot, limits, resolve, resolve_under};

async fn started() -> Option<Azurite> {
    let server = Azurite::start().await?;
    server.create_container(CONTAINER).await;
    server.put(CONTAINER, "model/weights", b"weights".to_vec()).await;
    Some(server)
}

fn weights() -> Files {
    BTreeMap::from([("weights".to_owned(), b"weights".to_vec())])
}

/// Azurite calls it "AuthorizationFailure" where Azure says "AuthenticationFailed".
fn assert_refused(error: &modelmount::Error, hints: &[&str]) {
    let kind = if error.kind() == ErrorKind::Unauthenticated { error.kind() } else { ErrorKind::PermissionDenied };
    assert_says(error, kind, hints);
}

/// All names of one model; the same content under each is known to be the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_uri_names_the_same_model() {
    let Some(server) = started().await else { return };
    let (account, key) = (server.account(), key(&server.key()));
    let mut ids = Vec::new();
    for uri in [
        format!("https://{account}.blob.core.windows.net/{CONTAINER}/model"),
        format!("https://{account}.dfs.core.windows.net/{CONTAINER}/model/"),
        format!("https://{account}.z01.blob.storage.azure.net/{CONTAINER}/model"),
        format!("abfs://{CONTAINER}@{account}.dfs.core.windows.net/model"),
        format!("abfss://{CONTAINER}@{account}.dfs.core.windows.net/model"),
        format!("az://{CONTAINER}/model"),
        format!("azure://{CONTAINER}/model"),
        format!("abfs://{CONTAINER}/model"),
    ] {
        let (source, manifest) = resolved(&uri, &server.endpoint(), &key).await.unwrap();
        assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &weights());
        ids.push(manifest.id());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// KServe fails at a container's root, drops empty blobs, and takes siblings along.
#[tokio::test(flavor = "multi_thread")]
async fn a_containers_root_and_directories_in_it() {
    let Some(server) = started().await else { return };
    server.put(CONTAINER, "model-v2/weights", b"another".to_vec()).await;
    server.put(CONTAINER, "model/empty", Vec::new()).await;
    // What Hadoop and Data Lake tools leave in place of a directory: an empty blob without a slash at its end.
    let folder = [("x-ms-meta-hdi_isfolder", "true")];
    server.put_with(CONTAINER, "model", Vec::new(), &folder).await;
    let key = key(&server.key());
    for (path, expected) in [
        ("", &["model/empty", "model/weights", "model-v2/weights"][..]),
        ("/model/", &["empty", "weights"]),
        ("/model", &["empty", "weights"]),
    ] {
        let uri = format!("az://{CONTAINER}{path}");
        let (_, manifest) = resolved(&uri, &server.endpoint(), &key).await.unwrap_or_else(|error| panic!("{error:?}"));
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(paths(&manifest), expected, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_in_the_uri_and_in_the_secret() {
    let Some(server) = started().await else { return };
    let (endpoint, uri) =
        (server.endpoint(), format!("https://{}.blob.core.windows.net/{CONTAINER}/model", server.account()));
    let good = server.signature(CONTAINER, "rl", FAR_FUTURE);
    for (uri, credentials) in [
        (format!("{uri}?{good}"), Credentials::none()),
        // The URI's own wins.
        (format!("{uri}?{good}"), key("bm8tc3VjaC1hY2NvdW50LWtleQ==")),
        (uri.clone(), signature(&good)),
        (uri.clone(), signature(&format!("?{good}"))),
        (format!("az://{CONTAINER}/model?{good}"), Credentials::none()),
    ] {
        let (source, manifest) = resolved(&uri, &endpoint, &credentials).await.unwrap();
        assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &weights());
        assert!(!format!("{source:?} {manifest:?}").contains("sig="), "{source:?} {manifest:?}");
    }
    let expired = server.signature(CONTAINER, "rl", LONG_AGO);
    let error = resolved(&format!("{uri}?{expired}"), &endpoint, &Credentials::none()).await.unwrap_err();
    assert_refused(&error, &[&uri, "credentials"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let Some(server) = started().await else { return };
    let (endpoint, good) = (server.endpoint(), key(&server.key()));
    let at = async |uri: &str, credentials: &Credentials| resolved(uri, &endpoint, credentials).await.unwrap_err();

    let missing = at("az://models/no-model", &good).await;
    assert_says(&missing, ErrorKind::NotFound, &["az://models/no-model", &endpoint, "check the path"]);
    let container = at("az://no-such-container/m", &good).await;
    assert_says(&container, ErrorKind::NotFound, &["container \"no-such-container\"", &endpoint]);
    let wrong = at("az://models/model", &key("Q0FOQVJZAAAA")).await;
    assert_refused(&wrong, &["az://models/model", &endpoint, "credentials"]);
    let nonsense = at("az://models/model", &key("CANARY!")).await;
    assert_says(&nonsense, ErrorKind::InvalidArgument, &["AZURE_STORAGE_ACCESS_KEY", "base64"]);
    let anonymous = at("az://models/model", &Credentials::none()).await;
    assert_says(&anonymous, ErrorKind::Unauthenticated, &["az://models/model", "anonymous", "nodePublishSecretRef"]);

    let mut patterns = attributes("az://models/model", &endpoint);
    patterns.insert("allowPatterns".to_owned(), "*.gguf".to_owned());
    let nothing = resolve(&patterns, &good).await.unwrap_err();
    assert_says(&nothing, ErrorKind::NotFound, &["az://models/model", "allowPatterns"]);

    let other = endpoint.replace(server.account(), "nosuchaccount");
    let elsewhere = resolved("az://models/model", &other, &good).await.unwrap_err();
    assert_says(&elsewhere, ErrorKind::NotFound, &["az://models/model", "nosuchaccount", "check the URI"]);
    let unknown = resolved("az://models/model", "http://azure.modelmount.invalid/acct", &good).await.unwrap_err();
    assert_says(&unknown, ErrorKind::Unavailable, &["az://models/model", "azure.modelmount.invalid"]);
    let nowhere = resolve(&[("modelUri".to_owned(), "az://models/model".to_owned())].into(), &good).await.unwrap_err();
    assert_says(&nowhere, ErrorKind::InvalidArgument, &["az://models/model", "attribute account"]);
}

/// A signature that lists and does not read stands for rights that were revoked in between.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_revoked_between_listing_and_reading() {
    let Some(server) = started().await else { return };
    let list_only = signature(&server.signature(CONTAINER, "l", FAR_FUTURE));
    let (source, manifest) = resolved("az://models/model/", &server.endpoint(), &list_only).await.unwrap();
    let error = source.sources()[0].authorize(&manifest.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["az://models/model", "Storage Blob Data Reader"]);
    let error = Node::new(limits(1)).fetch(&source, &manifest).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["az://models/model", "permissions r and l"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_container_needs_no_credentials() {
    let Some(server) = started().await else { return };
    server.create_public_container("public").await;
    server.put("public", "model/weights", b"weights".to_vec()).await;
    let (source, manifest) = resolved("az://public/model", &server.endpoint(), &Credentials::none()).await.unwrap();
    assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &weights());
}

/// More than one page of a listing, and empty blobs among them, which are looked at more closely.
#[tokio::test(flavor = "multi_thread")]
async fn more_blobs_than_a_page_holds() {
    let Some(server) = started().await else { return };
    let many = model::many(5, 5_100);
    let puts = many.iter().map(|(path, bytes)| {
        let (server, path) = (&server, format!("many/{path}"));
        async move { server.put(CONTAINER, &path, bytes.clone()).await }
    });
    use futures_util::StreamExt as _;
    futures_util::stream::iter(puts).buffer_unordered(16).collect::<Vec<()>>().await;
    let (_, manifest) = resolved("az://models/many", &server.endpoint(), &key(&server.key())).await.unwrap();
    assert_eq!(manifest.entries().len(), 5_100);
}

/// A pod's author must not reach the node's own services through the plugin.
#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_refused_unless_allowed() {
    let Some(server) = started().await else { return };
    let attributes = attributes("az://models/model", &server.endpoint());
    let error = resolve_under(Policy::default(), &attributes, &key(&server.key())).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["az://models/model", "--allow-address"]);
}
