//! Registries that lie, about content, sizes and names.

use modelmount::{Credentials, Digest, ErrorKind};
use modelmount_test_support::registry::MANIFEST;
use modelmount_test_support::script::{Response, ScriptedServer};
use serde_json::{Value, json};

use super::{OCTETS, Shelf, TITLE, assert_says, at, files, refused};
use crate::node::resolve;

/// A registry that says this of its only model.
async fn saying(document: Vec<u8>) -> ScriptedServer {
    let shelf = Shelf { manifest: document, blobs: [(Digest::of("x").to_string(), b"x".to_vec())].into() };
    ScriptedServer::start(move |request| shelf.answer(request)).await
}

fn manifest(layers: &[Value]) -> Value {
    let config = json!({"mediaType": "a/b", "digest": Digest::of("{}").to_string(), "size": 2});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
}

fn layer(more: Value) -> Value {
    let mut layer = json!({
        "mediaType": OCTETS, "digest": Digest::of("x").to_string(), "size": 1, "annotations": {TITLE: "model.bin"},
    });
    layer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    layer
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_manifests_are_refused() {
    let title = |name: &str| manifest(&[layer(json!({"annotations": {TITLE: name}}))]);
    for (document, hint) in [
        (manifest(&[layer(json!({"digest": "sha256:../../../../etc/passwd"}))]), "is no digest"),
        (manifest(&[layer(json!({"digest": format!("sha512:{}", "a".repeat(128))}))]), "sha512"),
        (manifest(&[layer(json!({"size": -1}))]), "can't be read"),
        (manifest(&[layer(json!({"urls": ["http://169.254.169.254/latest"]}))]), "never asked"),
        (manifest(&[layer(json!({"annotations": {}}))]), "without a file name"),
        (title("../../etc/cron.d/x"), "can't be laid out"),
        (title("/etc/passwd"), "can't be laid out"),
        (title("a//b"), "can't be laid out"),
        (title("a\0b"), "can't be laid out"),
        (manifest(&[layer(json!({})), layer(json!({}))]), "is there twice"),
        (json!({"schemaVersion": 2, "layers": [], "manifests": []}), "neither"),
        (json!({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}), "schema 1"),
    ] {
        let server = saying(document.to_string().into_bytes()).await;
        let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
        assert_says(&error, ErrorKind::FailedPrecondition, &[hint, "/m"]);
        assert_eq!(server.requests().len(), 1, "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_without_end_are_cut() {
    for declared in [true, false] {
        let server = ScriptedServer::start(move |_| {
            let pieces = (0..1000).map(|_| bytes::Bytes::from(vec![b' '; 64 << 10]));
            let answer = Response::new(200).chunks(pieces);
            if declared { answer } else { answer.header("transfer-encoding", "chunked") }
        })
        .await;
        let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
        assert_says(&error, ErrorKind::ResourceExhausted, &["longer than 8.0 MiB", "/m"]);
    }
    let layers: Vec<_> = (0..20_000).map(|_| layer(json!({"annotations": {}}))).collect();
    let mut image = manifest(&layers);
    image["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let server = saying(image.to_string().into_bytes()).await;
    let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
    assert_says(&error, ErrorKind::FailedPrecondition, &["20000 layers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_what_its_digest_says() {
    let server = saying(manifest(&[layer(json!({}))]).to_string().into_bytes()).await;
    let other = Digest::of("other");
    let error = refused(&at(&format!("{}/m@{other}", server.address())), &Credentials::none()).await;
    assert_says(&error, ErrorKind::Corrupt, &[&other.to_string(), "instead of"]);
    // Of an index, each manifest too.
    let index =
        json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": other.to_string(), "size": 1}]});
    let server = saying(index.to_string().into_bytes()).await;
    let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
    assert_says(&error, ErrorKind::Corrupt, &[&other.to_string(), "instead of"]);
    // By tag, the registry's own word for it.
    let document = manifest(&[layer(json!({}))]).to_string();
    let server = ScriptedServer::start(move |_| {
        Response::new(200).header("docker-content-digest", other.to_string()).body(document.clone())
    })
    .await;
    let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
    assert_says(&error, ErrorKind::Corrupt, &[&other.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_do_not_nest() {
    let inner = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let digest = Digest::of(&inner);
    let outer =
        json!({"schemaVersion": 2, "manifests": [{"mediaType": "x/y", "digest": digest.to_string(), "size": 1}]});
    let outer = outer.to_string();
    let server = ScriptedServer::start(move |request| {
        let by_digest = request.target.contains("sha256:");
        Response::new(200).body(if by_digest { inner.clone() } else { outer.clone() })
    })
    .await;
    let error = refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
    assert_says(&error, ErrorKind::FailedPrecondition, &["index of indexes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_the_manifest_says_never_arrives() {
    let digest = Digest::of("x").to_string();
    for (size, content, hint) in
        [(1, "y", "declares"), (2, "x", "1 bytes of a layer that has 2"), (1, "xx", "2 bytes of a layer that has 1")]
    {
        let document = manifest(&[layer(json!({"size": size}))]).to_string().into_bytes();
        let shelf = Shelf { manifest: document, blobs: [(digest.clone(), content.into())].into() };
        let server = ScriptedServer::start(move |request| shelf.answer(request)).await;
        let (model, manifest) = resolve(&at(&format!("{}/m", server.address())), &Credentials::none()).await.unwrap();
        let error = files(&model, &manifest).await.unwrap_err();
        assert_says(&error, ErrorKind::Corrupt, &[hint]);
    }
}

/// A challenge that is answered, and repeated for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_never_content_is_asked_twice() {
    let server = ScriptedServer::start(|_| Response::new(401).header("www-authenticate", "Basic realm=\"x\"")).await;
    let credentials = modelmount_test_support::registry::credentials("CANARY");
    let error = refused(&at(&format!("{}/m", server.address())), &credentials).await;
    assert_says(&error, ErrorKind::Unauthenticated, &["does not accept the credentials"]);
    assert_eq!(server.requests().len(), 2);
}
