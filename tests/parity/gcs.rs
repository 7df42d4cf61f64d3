//! Google Cloud Storage, by Google's own client, on fake-gcs-server.

use std::fs;

use modelmount_test_support::gcs::Access;
use modelmount_test_support::{GcsServer, Hosts, model};

use crate::{Both, differs, environment, names, packed};

const BUCKET: &str = "models";

const MODEL: &[(&str, &[u8])] = &[
    ("m/config.json", b"{}"),
    ("m/empty", b""),
    ("m/weights/1.bin", b"one"),
    ("m/weights/deep/2.bin", b"two"),
    ("m-v2/config.json", b"a neighbour"),
];

/// A server that everybody may read, with a bucket; and both programs, pointed at it.
async fn start() -> Option<(GcsServer, Both)> {
    let server = GcsServer::start().await?;
    server.create_bucket(BUCKET).await;
    server.allow(Access::Public);
    for (name, bytes) in MODEL {
        server.put(BUCKET, name, bytes.to_vec()).await;
    }
    let both = Both::new(environment([("STORAGE_EMULATOR_HOST", &server.endpoint())]))?;
    Some((server, both))
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_objects_and_patterns() {
    let Some((server, both)) = start().await else { return };
    let all = ["config.json", "empty", "weights/1.bin", "weights/deep/2.bin"];
    assert_eq!(names(&both.same("gs://models/m")), all);
    assert_eq!(names(&both.same("gs://models/m/")), all);
    assert_eq!(names(&both.same("gs://models/m/weights")), ["1.bin", "deep/2.bin"]);
    assert_eq!(names(&both.same("gs://models/m/weights/1.bin")), ["1.bin"]);
    assert!(both.refused("gs://models/none").contains("gs://models/none"));
    assert!(both.refused("gs://none/m").contains("no bucket"));

    // The only file is an archive, named in full or not.
    let scratch = tempfile::tempdir().unwrap();
    server.put(BUCKET, "archives/one/m.tar.gz", packed(&model::small(1), scratch.path())).await;
    assert_eq!(both.same("gs://models/archives/one/m.tar.gz"), model::small(1));
    assert_eq!(both.same("gs://models/archives"), both.same("gs://models/archives/"));

    let both = both.with("STORAGE_ALLOW_PATTERNS", "*.json, weights/*").with("STORAGE_IGNORE_PATTERNS", "*/deep/*");
    assert_eq!(names(&both.same("gs://models/m")), ["config.json", "weights/1.bin"]);
    assert_eq!(names(&both.same("gs://models/m-v2/config.json")), ["config.json"]);
    assert!(both.with("STORAGE_ALLOW_PATTERNS", "*.none").refused("gs://models/m").contains("allowPatterns"));
}

/// Google's client asks an emulator as nobody, and another endpoint as the one that the file names.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_a_file() {
    let Some((server, mut both)) = start().await else { return };
    server.allow(Access::Private);
    assert!(both.refused("gs://models/m").contains("gcloud-application-credentials.json"));
    let file = both.directory.path().join("user.json");
    fs::write(&file, server.user()).unwrap();
    both.environment.remove("STORAGE_EMULATOR_HOST");
    // Google's client exchanges a user's token nowhere else, whatever the file says.
    let hosts = Hosts::start(&[("oauth2.googleapis.com", server.address())]).await;
    let both = both
        .among(&hosts)
        .with("API_ENDPOINT_OVERRIDE", &server.endpoint())
        .with("GOOGLE_CLOUD_PROJECT", "any")
        .with("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap());
    assert_eq!(names(&both.same("gs://models/m/weights")), ["1.bin", "deep/2.bin"]);
    server.allow(Access::Nothing);
    both.refused("gs://models/m");
    fs::remove_file(&file).unwrap();
    assert!(both.refused("gs://models/m").contains("GOOGLE_APPLICATION_CREDENTIALS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_bucket() {
    let Some((_server, both)) = start().await else { return };
    differs("whole buckets");
    let (theirs, ours) = both.download("gs://models");
    theirs.unwrap_err();
    let ours = ours.unwrap();
    assert_eq!(ours.len(), MODEL.len());
    assert!(ours["m-v2/config.json"] == b"a neighbour");
}
