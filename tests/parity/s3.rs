//! S3, on versitygw.

use modelmount_test_support::model::Files;
use modelmount_test_support::{S3Kind, S3Server};

use crate::{Both, differs, environment, names};

const BUCKET: &str = "models";

/// A server with a bucket, and both programs with its keys.
async fn start() -> Option<(S3Server, Both)> {
    let server = S3Server::start(S3Kind::Versitygw).await?;
    server.create_bucket(BUCKET).await;
    let both = Both::new(environment([
        ("AWS_ENDPOINT_URL", &server.endpoint()),
        ("AWS_ACCESS_KEY_ID", server.access_key()),
        ("AWS_SECRET_ACCESS_KEY", server.secret_key()),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ]))?;
    Some((server, both))
}

async fn put(server: &S3Server, files: &[(&str, &[u8])]) {
    for (key, bytes) in files {
        server.put(BUCKET, key, bytes.to_vec()).await;
    }
}

/// What KServe's deployments have in a bucket.
const MODEL: &[(&str, &[u8])] =
    &[("m/config.json", b"{}"), ("m/weights/1.bin", b"one"), ("m/weights/2.bin", b"two"), ("other/x", b"x")];

#[tokio::test(flavor = "multi_thread")]
async fn directories_objects_and_patterns() {
    let Some((server, both)) = start().await else { return };
    put(&server, MODEL).await;
    assert_eq!(names(&both.same("s3://models/m")), ["config.json", "weights/1.bin", "weights/2.bin"]);
    assert_eq!(names(&both.same("s3://models/m/")).len(), 3);
    assert_eq!(names(&both.same("s3://models/m/weights/1.bin")), ["1.bin"]);
    assert_eq!(names(&both.same("s3://models")).len(), 4);
    assert!(both.refused("s3://models/none").contains("s3://models/none"));
    assert!(both.refused("s3://none/m").contains("no bucket"));

    let both = both.with("STORAGE_ALLOW_PATTERNS", r#"["*.json", "weights/*"]"#);
    let both = both.with("STORAGE_IGNORE_PATTERNS", "*/2.bin");
    assert_eq!(names(&both.same("s3://models/m")), ["config.json", "weights/1.bin"]);
    // What is named in full is wanted, whatever the patterns say.
    assert_eq!(names(&both.same("s3://models/other/x")), ["x"]);
    let both = both.with("STORAGE_ALLOW_PATTERNS", "*.none");
    assert!(both.refused("s3://models/m").contains("allowPatterns"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_json_and_wrong_keys() {
    let Some((server, mut both)) = start().await else { return };
    put(&server, MODEL).await;
    for key in ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        both.environment.remove(key);
    }
    let secret = |key: &str| {
        let (endpoint, access) = (server.endpoint(), server.access_key());
        format!(r#"{{"type":"s3","endpoint_url":"{endpoint}","access_key_id":"{access}","secret_access_key":"{key}"}}"#)
    };
    let both = both.with("STORAGE_CONFIG", &secret(server.secret_key()));
    both.same("s3://models/m");
    let ours = both.with("STORAGE_CONFIG", &secret("hunter2")).refused("s3://models/m");
    assert!(ours.contains("does not accept the credentials") && !ours.contains("hunter2"), "{ours}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_are_not_repeated() {
    let Some((server, both)) = start().await else { return };
    put(&server, &[("m/a", b"a"), ("m/empty", b""), ("m-v2/b", b"b")]).await;
    differs("neighbours");
    differs("empty files");
    let (theirs, ours) = both.download("s3://models/m");
    // Its prefix ends nowhere, so that a neighbour comes along; and it drops empty files.
    let theirs = theirs.unwrap();
    assert!(!theirs.contains_key("empty") && theirs.len() > 1, "{theirs:?}");
    let expected: Files = [("a", "a"), ("empty", "")].map(|(name, bytes)| (name.into(), bytes.into())).into();
    assert_eq!(ours.unwrap(), expected);
}
