//! What a user is told when it does not work: the right kind, the name of the thing, what to do, and no secret.

use std::time::Duration;

use modelmount::{Credentials, Error, ErrorKind, Policy};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::{Proxy, S3Kind};

use crate::bucket::{BUCKET, Bucket, attributes, keys};
use crate::node::{resolve, resolve_under};

/// Long enough for any machine, and far less than a user waits before asking what is wrong.
const SECONDS: Duration = Duration::from_secs(25);

async fn refused(attributes: &Attributes, credentials: &Credentials) -> Error {
    let answer = tokio::time::timeout(SECONDS, resolve(attributes, credentials)).await;
    let error = answer.unwrap_or_else(|_| panic!("no answer within {SECONDS:?}")).unwrap_err();
    for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        let Some(secret) = credentials.get(&[name]) else { continue };
        for shown in [error.report(), format!("{error:?}"), format!("{error:#?}")] {
            assert!(!shown.contains(secret.expose().as_str()), "{name} is shown: {shown}");
        }
    }
    error
}

fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for hint in hints {
        assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
    }
}

async fn refusals(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    bucket.put("model/weights", b"weights").await;
    let (endpoint, good) = (bucket.server.endpoint(), bucket.credentials());
    let there = bucket.attributes("model");

    let empty = refused(&bucket.attributes("no-model"), &good).await;
    assert_says(&empty, ErrorKind::NotFound, &["s3://models/no-model", &endpoint, "check the path"]);

    let missing = refused(&attributes("s3://no-such-bucket/model", &endpoint), &good).await;
    assert_says(&missing, ErrorKind::NotFound, &["\"no-such-bucket\"", &endpoint, "check"]);

    let access = bucket.server.access_key().to_owned();
    let wrong = [keys(&access, "CANARY-SECRET-0123456789"), keys("AKIANOSUCHKEY", "CANARY-SECRET-0123456789")];
    for wrong in &wrong {
        let error = refused(&there, wrong).await;
        assert!(matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied), "{error:?}");
        assert_says(&error, error.kind(), &["s3://models/model", &endpoint, "credentials"]);
    }

    let anonymous = refused(&there, &Credentials::none()).await;
    assert_says(&anonymous, ErrorKind::Unauthenticated, &["s3://models/model", "AWS_ACCESS_KEY_ID", "Secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_versitygw() {
    refusals(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_rclone() {
    refusals(S3Kind::Rclone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_s3s_fs() {
    refusals(S3Kind::S3sFs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_key_pair_is_never_sent() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    let proxy = Proxy::start(bucket.server.address()).await;
    let at = Bucket::attributes_at(&proxy.url(), "model");
    for (name, missing) in
        [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
    {
        let half: Credentials = [(name, "CANARY-HALF")].into_iter().collect();
        let error = refused(&at, &half).await;
        assert_says(&error, ErrorKind::Unauthenticated, &[missing]);
        assert!(!error.report().contains("CANARY"), "{error:?}");
    }
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    let proxy = Proxy::start(bucket.server.address()).await;
    proxy.refuse(true).await;
    let error = refused(&Bucket::attributes_at(&proxy.url(), "model"), &bucket.credentials()).await;
    assert_says(&error, ErrorKind::Unavailable, &["s3://models/model", &proxy.url()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve() {
    // RFC 6761: no resolver may ever know a name below "invalid".
    let uri = format!("s3://{BUCKET}/model");
    let error = refused(&attributes(&uri, "http://s3.modelmount.invalid:9000"), &keys("AK", "CANARY-SECRET")).await;
    assert_says(&error, ErrorKind::Unavailable, &["s3.modelmount.invalid"]);
}

/// A pod's author must not reach the node's own services through the plugin.
#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_refused_unless_allowed() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    bucket.put("model/weights", b"weights").await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let port = proxy.address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0x7f.1"] {
        let at = Bucket::attributes_at(&format!("http://{host}:{port}"), "model");
        let answer = tokio::time::timeout(SECONDS, resolve_under(Policy::default(), &at, &bucket.credentials())).await;
        let error = answer.unwrap().unwrap_err();
        assert_says(&error, ErrorKind::PermissionDenied, &["s3://models/model", "--allow-address"]);
    }
    assert_eq!(proxy.connections(), 0, "refused before a connection is made");

    let allowed = Policy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new());
    let at = Bucket::attributes_at(&proxy.url(), "model");
    resolve_under(allowed, &at, &bucket.credentials()).await.unwrap();
}
