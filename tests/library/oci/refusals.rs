//! What a user is told when it does not work: the right kind, the name of the thing, what to do, and no secret.

use modelmount::source::Portion;
use modelmount::{Credentials, ErrorKind, Policy};
use modelmount_test_support::registry::{Access, Kind, PASSWORD, USER, credentials};
use modelmount_test_support::{Nginx, Proxy, Registry, RegistryKind};
use serde_json::json;

use super::{OCTETS, TITLE, assert_says, at, found, refused, refused_under, with};
use crate::node::resolve;

async fn push(registry: &Registry, repository: &str) {
    let layer = (OCTETS, json!({TITLE: "model.bin"}), &b"weights"[..]);
    registry.push(repository, "v1", Kind::ORAS, &[layer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing() {
    for kind in [RegistryKind::Distribution, RegistryKind::Crane] {
        let Some(registry) = Registry::start(kind).await else { return };
        push(&registry, "org/m").await;
        let none = Credentials::none();
        let host = registry.address().to_string();
        let error = refused(&at(&registry.reference("org/m:v2")), &none).await;
        assert_says(&error, ErrorKind::NotFound, &["org/m:v2", &host, "check the URI"]);
        let error = refused(&at(&registry.reference("org/none:v1")), &none).await;
        assert_says(&error, ErrorKind::NotFound, &["org/none", &host, "check the URI"]);
        let digest = format!("sha256:{}", "0".repeat(64));
        let error = refused(&at(&registry.reference(&format!("org/m@{digest}"))), &none).await;
        assert_says(&error, ErrorKind::NotFound, &[&digest, "check the URI"]);
        registry.push("org/empty", "v1", Kind::ORAS, &[]).await;
        let error = refused(&at(&registry.reference("org/empty:v1")), &none).await;
        assert_says(&error, ErrorKind::NotFound, &["org/empty:v1", "has no files"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in() {
    for access in [Access::Password, Access::Token] {
        let Some(registry) = Registry::start_with(access).await else { return };
        push(&registry, "org/m").await;
        let attributes = at(&registry.reference("org/m:v1"));
        let error = refused(&attributes, &credentials("CANARY-PASSWORD")).await;
        assert_says(&error, ErrorKind::Unauthenticated, &["org/m:v1", "does not accept the credentials", "Secret"]);
        let error = refused(&attributes, &Credentials::none()).await;
        assert_says(&error, ErrorKind::Unauthenticated, &["org/m:v1", "anonymous access", "image pull secret"]);

        let secret = |config: serde_json::Value| -> Credentials {
            [(".dockerconfigjson", config.to_string())].into_iter().collect()
        };
        let entry = json!({"username": USER, "password": PASSWORD});
        let host = registry.address().to_string();
        resolve(&attributes, &secret(json!({"auths": {host.as_str(): entry}}))).await.unwrap();
        resolve(&attributes, &secret(json!({"auths": {format!("http://{host}/v2/"): entry}}))).await.unwrap();
        for (config, hint) in [
            (json!({"auths": {"ghcr.io": entry}}), "no entry for this registry"),
            (json!({"auths": {format!("{host}/other"): entry}}), "no entry for this registry"),
            (json!({"auths": {}, "credsStore": "desktop"}), "credential helper"),
        ] {
            assert_says(&refused(&attributes, &secret(config)).await, ErrorKind::Unauthenticated, &[hint, "org/m:v1"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_gone_after_listing() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    push(&registry, "org/m").await;
    registry.tokens().claim_seconds(1);
    let (model, manifest) = found(&registry, "org/m:v1").await;
    let (source, entry) = (&model.sources()[0], &manifest.entries()[0]);
    source.authorize(entry).await.unwrap();
    registry.tokens().revoke();
    // The token that it has may be used until it expires, and not longer.
    let until = tokio::time::Instant::now() + crate::node::SOON;
    let error = loop {
        match source.authorize(entry).await {
            Ok(()) => assert!(tokio::time::Instant::now() < until, "the old token is used for ever"),
            Err(error) => break error,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_says(&error, ErrorKind::PermissionDenied, &["org/m:v1", "the right to pull"]);
    let error = source.read(entry, Portion::Whole).await.err().unwrap();
    assert_says(&error, ErrorKind::PermissionDenied, &["org/m:v1", "the right to pull"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_gone_after_listing() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    push(&registry, "org/m").await;
    let (model, manifest) = found(&registry, "org/m:v1").await;
    let (source, entry) = (&model.sources()[0], &manifest.entries()[0]);
    registry.delete_blob("org/m", entry.digest.unwrap()).await;
    let gone: [modelmount::Error; 2] =
        [source.authorize(entry).await.unwrap_err(), source.read(entry, Portion::Whole).await.err().unwrap()];
    for error in gone {
        assert_says(&error, ErrorKind::NotFound, &["org/m:v1", "push the model again"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there_or_no_registries() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let none = Credentials::none();
    let proxy = Proxy::start(registry.address()).await;
    proxy.refuse(true).await;
    let error = refused(&at(&format!("{}/m:v1", proxy.address())), &none).await;
    assert_says(&error, ErrorKind::Unavailable, &["/m:v1", &proxy.url(), "can't connect"]);
    let error = refused(&at("registry.modelmount.invalid/m:v1"), &none).await;
    assert_says(&error, ErrorKind::Unavailable, &["registry.modelmount.invalid"]);
    // A registry without TLS that is spoken to with it.
    push(&registry, "m").await;
    let mut https = at(&registry.reference("m:v1"));
    https.remove("plainHttp");
    let error = refused(&https, &none).await;
    assert_says(&error, ErrorKind::Unavailable, &["/m:v1", "plainHttp"]);

    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    nginx.put("v2/page/manifests/v1", b"<html>welcome</html>");
    let error = refused(&at(&format!("{}/page:v1", nginx.address())), &none).await;
    assert_says(&error, ErrorKind::FailedPrecondition, &["/page:v1", "can't be read"]);
    let error = refused(&at(&format!("{}/none:v1", nginx.address())), &none).await;
    assert_says(&error, ErrorKind::NotFound, &["/none:v1"]);
    assert!(nginx.requests().iter().all(|request| request.authorization.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_and_loopback_are_for_operators_to_allow() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    push(&registry, "m").await;
    let proxy = Proxy::start(registry.address()).await;
    let attributes = at(&format!("{}/m:v1", proxy.address()));
    let none = Credentials::none();
    let loopback = || vec!["127.0.0.0/8".parse().unwrap()];
    let error = refused_under(Policy::new(loopback(), Vec::new()), &attributes, &none).await;
    assert_says(&error, ErrorKind::PermissionDenied, &["plain HTTP", "--allow-plain-http", "/m:v1"]);
    let plain = |policy: Policy| policy.with_plain_http(vec![proxy.address().to_string()]);
    let error = refused_under(plain(Policy::default()), &attributes, &none).await;
    assert_says(&error, ErrorKind::PermissionDenied, &["--allow-address", "/m:v1"]);
    assert_eq!(proxy.connections(), 0, "refused before a connection is made");
    crate::node::resolve_under(plain(Policy::new(loopback(), Vec::new())), &attributes, &none).await.unwrap();
    let error = refused(&with(attributes, "plainHttp", "yes"), &none).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["plainHttp", "\"true\""]);
}
