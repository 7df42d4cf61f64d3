//! Artifacts whose layers are files.

use std::process::Command;

use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::registry::{Access, Kind, MANIFEST, PASSWORD, USER};
use modelmount_test_support::{Pattern, Registry, RegistryKind, model, tools};
use serde_json::json;

use super::{OCTETS, TITLE, assert_same, assert_says, at, files, found, paths, read, refused, run, with};
use crate::node::resolve;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What `oras push` made is what `oras pull` makes of it.
async fn as_oras_has_it(registry: Registry, login: bool) {
    let Some(oras) = tools::require("oras") else { return };
    let directory = registry.scratch().join("model");
    let mut expected = model::small(7);
    expected.insert("weights.bin".into(), Pattern::new(7).bytes(0, 300_001));
    model::write(&expected, &directory).unwrap();
    let reference = registry.reference("oras/model:v1");
    let oras = |verb: &str| {
        let mut command = Command::new(&oras);
        command.args([verb, "--plain-http", &reference]).env("HOME", registry.scratch());
        if login {
            command.args(["--username", USER, "--password", PASSWORD]);
        }
        command
    };
    let mut push = oras("push");
    run(push.current_dir(&directory).args(expected.keys()));
    let pulled = registry.scratch().join("pulled");
    run(oras("pull").arg("--output").arg(&pulled));

    let (model, manifest) = found(&registry, "oras/model:v1").await;
    let ours = files(&model, &manifest).await.unwrap();
    assert_same(&ours, &read(&pulled));
    assert_same(&ours, &expected);
    let digest = run(oras("resolve").current_dir(&directory));
    assert!(manifest.revision().unwrap().ends_with(digest.trim()), "{:?} {digest}", manifest.revision());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oras_artifact_on_distribution() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    as_oras_has_it(registry, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oras_artifact_behind_a_token() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    as_oras_has_it(registry, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oras_artifact_on_crane() {
    let Some(registry) = Registry::start(RegistryKind::Crane).await else { return };
    as_oras_has_it(registry, false).await;
}

/// Laid out by hand after the specifications: their own tools can't be had from a package registry.
#[tokio::test(flavor = "multi_thread")]
async fn model_packs_and_docker_models() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let path = |path: &str| json!({"org.cncf.model.filepath": path});
    let pack = Kind {
        artifact: Some("application/vnd.cncf.model.manifest.v1+json"),
        config: "application/vnd.cncf.model.config.v1+json",
    };
    let metadata = json!({"name": "model.safetensors", "mode": 420, "uid": 0, "gid": 0, "size": 7, "typeflag": 48});
    let weight = json!({
        "org.cncf.model.filepath": "weights/model.safetensors",
        "org.cncf.model.file.metadata+json": metadata.to_string(),
    });
    let layers = [
        ("application/vnd.cncf.model.weight.v1.raw", weight, &b"weights"[..]),
        ("application/vnd.cncf.model.weight.config.v1.raw", path("config.json"), b"{}"),
        ("application/vnd.cncf.model.doc.v1.raw", path("README.md"), b"read me"),
    ];
    registry.push("pack", "v1", pack, &layers).await;
    let (model, manifest) = found(&registry, "pack:v1").await;
    let ours = files(&model, &manifest).await.unwrap();
    let expected = [("README.md", "read me"), ("config.json", "{}"), ("weights/model.safetensors", "weights")];
    assert_same(&ours, &expected.map(|(path, text)| (path.to_owned(), text.into())).into());

    let docker = Kind { artifact: None, config: "application/vnd.docker.ai.model.config.v0.1+json" };
    let layers = [
        ("application/vnd.docker.ai.gguf.v3", json!({}), &b"GGUF"[..]),
        ("application/vnd.docker.ai.license", json!({}), b"free"),
    ];
    registry.push("ai/smollm2", "latest", docker, &layers).await;
    let (model, manifest) = found(&registry, "ai/smollm2").await;
    let ours = files(&model, &manifest).await.unwrap();
    let expected = [("LICENSE", "free"), ("model.gguf", "GGUF")];
    assert_same(&ours, &expected.map(|(path, text)| (path.to_owned(), text.into())).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_pinned_and_a_digest_stays() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let push = async |text: &'static str| {
        let layer = (OCTETS, json!({TITLE: "model.bin"}), text.as_bytes());
        registry.push("m", "v1", Kind::ORAS, &[layer]).await
    };
    let old = push("old").await;
    let (opened, listed) = found(&registry, "m:v1").await;
    let new = push("new").await;
    // What was listed is what is read.
    assert_eq!(files(&opened, &listed).await.unwrap()["model.bin"], b"old");
    let none = Credentials::none();
    for (attributes, digest, text) in [
        (at(&registry.reference("m:v1")), new, "new"),
        (at(&registry.reference(&format!("m@{old}"))), old, "old"),
        (at(&registry.reference(&format!("m:v1@{old}"))), old, "old"),
        (with(at(&registry.reference("m")), "revision", "v1"), new, "new"),
        (with(at(&registry.reference("m")), "revision", &old.to_string()), old, "old"),
    ] {
        let (model, manifest) = resolve(&attributes, &none).await.unwrap();
        assert!(manifest.revision().unwrap().ends_with(&digest.to_string()), "{attributes:?}");
        assert_eq!(files(&model, &manifest).await.unwrap()["model.bin"], text.as_bytes(), "{attributes:?}");
    }
    assert_ne!(listed.id(), found(&registry, "m:v1").await.1.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_platforms_manifest() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let mut manifests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64/v8", "unknown/unknown"] {
        let layer = (OCTETS, json!({TITLE: "model.bin"}), platform.as_bytes());
        let tag = platform.replace('/', "-");
        let digest = registry.push("m", &tag, Kind::ORAS, &[layer]).await;
        let (os, architecture) = platform.split_once('/').unwrap();
        let (architecture, variant) = architecture.split_once('/').unwrap_or((architecture, ""));
        let size = raw(&registry, "m", &digest.to_string()).await.len();
        manifests.push(json!({
            "mediaType": MANIFEST, "digest": digest.to_string(), "size": size,
            "platform": {"os": os, "architecture": architecture, "variant": variant},
        }));
    }
    // The last says something about the first.
    manifests[2]["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index_digest = registry.push_manifest("m", "both", &index).await;
    let none = Credentials::none();
    let both = at(&registry.reference("m:both"));
    let own = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64/v8" };
    for (attributes, expected) in [
        (both.clone(), own),
        (with(both.clone(), "platform", "linux/amd64"), "linux/amd64"),
        (with(both.clone(), "platform", "linux/arm64"), "linux/arm64/v8"),
        (with(at(&registry.reference(&format!("m@{index_digest}"))), "platform", "linux/arm64"), "linux/arm64/v8"),
    ] {
        let (model, manifest) = resolve(&attributes, &none).await.unwrap();
        assert_eq!(files(&model, &manifest).await.unwrap()["model.bin"], expected.as_bytes());
        // What is pinned is the model's own manifest.
        assert!(!manifest.revision().unwrap().ends_with(&index_digest.to_string()));
    }
    let error = refused(&with(both.clone(), "platform", "linux/s390x"), &none).await;
    assert_says(&error, ErrorKind::FailedPrecondition, &["linux/amd64, linux/arm64/v8", "attribute platform"]);
    let error = refused(&with(both, "platform", "amd64"), &none).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["platform", "linux/amd64"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_among_titles() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let layers = ["a.bin", "b.json", "sub/c.json"].map(|name| (OCTETS, json!({TITLE: name}), name.as_bytes()));
    registry.push("m", "latest", Kind::ORAS, &layers).await;
    let attributes = with(at(&registry.reference("m")), "allowPatterns", "*.json");
    let (_, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
    assert_eq!(paths(&manifest), ["b.json", "sub/c.json"]);
    let attributes = with(at(&registry.reference("m")), "allowPatterns", "*.gguf");
    let error = refused(&attributes, &Credentials::none()).await;
    assert_says(&error, ErrorKind::NotFound, &["none of the 3 files", &registry.reference("m")]);
}

async fn raw(registry: &Registry, repository: &str, version: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/{repository}/manifests/{version}", registry.address());
    let request = modelmount_test_support::http::client().get(url).header("accept", MANIFEST);
    request.send().await.unwrap().bytes().await.unwrap().to_vec()
}
