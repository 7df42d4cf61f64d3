//! Registries, by the client of ORAS, on docker-registry.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modelmount_test_support::Registry;
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::registry::{Access, Kind, MANIFEST, PASSWORD, USER};
use serde_json::json;

use crate::{Both, differs, environment, names};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const IMAGE: Kind<'static> = Kind { artifact: None, config: "application/vnd.oci.image.config.v1+json" };

async fn start(access: Access) -> Option<(Registry, Both)> {
    let registry = Registry::start_with(access).await?;
    Some((registry, Both::new(environment([("KSERVE_OCI_INSECURE_REGISTRY", "true")]))?))
}

fn files(pairs: &[(&str, &str)]) -> Files {
    pairs.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

/// A layer with these files, compressed by `compression` (an argument of tar's).
fn layer(registry: &Registry, files: &Files, compression: &str) -> Vec<u8> {
    let (content, archive) = (registry.scratch().join("content"), registry.scratch().join("layer"));
    model::write(files, &content).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-c").arg(compression).arg("-f").arg(&archive).arg("-C").arg(&content);
    let top = fs::read_dir(&content).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(tar.args(top).status().unwrap().success());
    fs::remove_dir_all(content).unwrap();
    fs::read(archive).unwrap()
}

/// A model in two layers, beside what an image has.
async fn push(registry: &Registry, repository: &str, tag: &str) -> String {
    let base = layer(registry, &files(&[("etc/passwd", "root"), ("models.txt", "none of it")]), "--gzip");
    let one = layer(registry, &files(&[("models/config.json", "old"), ("models/deep/er/x", "x")]), "--gzip");
    let two =
        layer(registry, &files(&[("models/config.json", "{}"), ("models/w.bin", "weights")]), "--no-auto-compress");
    let layers = [(GZIP, json!({}), base.as_slice()), (GZIP, json!({}), &one), (PLAIN, json!({}), &two)];
    registry.push(repository, tag, IMAGE, &layers).await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn modelcars_by_tag_digest_and_platform() {
    let Some((registry, both)) = start(Access::Anonymous).await else { return };
    let digest = push(&registry, "car", "v1").await;
    let uri = |name: &str| format!("oci://{}", registry.reference(name));
    let expected = ["config.json", "deep/er/x", "w.bin"];
    let found = both.same(&uri("car:v1"));
    assert_eq!(names(&found), expected);
    assert_eq!(found["config.json"], b"{}");
    assert_eq!(names(&both.same(&uri(&format!("car@{digest}")))), expected);

    let other = layer(&registry, &files(&[("models/other", "of another architecture")]), "--gzip");
    let other = registry.push("car", "other", IMAGE, &[(GZIP, json!({}), &other)]).await;
    let manifest = |digest: &str, architecture: &str| {
        // Neither program looks at the size of a manifest that it asks for by digest.
        json!({"mediaType": MANIFEST, "digest": digest, "size": 1,
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type,
                       "manifests": [manifest(&other.to_string(), "s390x"), manifest(&digest, here)]});
    registry.push_manifest("car", "latest", &index).await;
    assert_eq!(names(&both.same(&uri("car:latest"))), expected);
    assert!(both.refused(&uri("car:none")).contains("car:none"));
    both.refused(&uri("none:v1"));

    let empty = layer(&registry, &files(&[("etc/passwd", "root")]), "--gzip");
    registry.push("empty", "v1", IMAGE, &[(GZIP, json!({}), &empty)]).await;
    assert!(both.refused(&uri("empty:v1")).contains("has no files below /models"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_configuration() {
    // A registry of another kind its client asks for minutes, since it takes the realm of the answer for an address; and
    // so it does one that refuses it.
    let Some((registry, both)) = start(Access::Token).await else { return };
    push(&registry, "car", "v1").await;
    let uri = format!("oci://{}", registry.reference("car:v1"));
    let file = both.directory.path().join("config.json");
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let auths = json!({"auths": {registry.address().to_string(): {"auth": auth}}});
    fs::write(&file, auths.to_string()).unwrap();
    let both = both.with("KSERVE_OCI_DOCKER_CONFIG", file.to_str().unwrap());
    assert_eq!(both.same(&uri).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_are_not_repeated() {
    let Some((registry, both)) = start(Access::Anonymous).await else { return };
    let uri = |name: &str| format!("oci://{}", registry.reference(name));

    differs("files that a layer removes");
    let one = layer(&registry, &files(&[("models/a", "a"), ("models/gone", "gone")]), "--gzip");
    let two = layer(&registry, &files(&[("models/.wh.gone", "")]), "--gzip");
    registry.push("removing", "v1", IMAGE, &[(GZIP, json!({}), &one), (GZIP, json!({}), &two)]).await;
    let (theirs, ours) = both.download(&uri("removing:v1"));
    assert_eq!(names(&theirs.unwrap()), [".wh.gone", "a", "gone"]);
    assert_eq!(names(&ours.unwrap()), ["a"]);

    differs("layers of zstd");
    let zstd = layer(&registry, &files(&[("models/a", "a")]), "--zstd");
    registry.push("zstd", "v1", IMAGE, &[(ZSTD, json!({}), &zstd)]).await;
    let (theirs, ours) = both.download(&uri("zstd:v1"));
    assert!(theirs.unwrap_err().said.contains("zstd"));
    assert_eq!(names(&ours.unwrap()), ["a"]);

    differs("artifacts");
    let title = json!({"org.opencontainers.image.title": "m.gguf"});
    registry.push("artifact", "v1", Kind::ORAS, &[("application/octet-stream", title, b"weights")]).await;
    let (theirs, ours) = both.download(&uri("artifact:v1"));
    theirs.unwrap_err();
    assert_eq!(names(&ours.unwrap()), ["m.gguf"]);
}
