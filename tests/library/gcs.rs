//! The `gcs` source against fake-gcs-server, beyond what every source must do.

use std::collections::BTreeMap;
use std::time::Duration;

use modelmount::model::MODEL_URI;
use modelmount::{Credentials, Error, ErrorKind, Manifest, Model};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::gcs::{Access, ServiceAccount};
use modelmount_test_support::script::Response;
use modelmount_test_support::{GcsServer, ScriptedServer, model};

use crate::node::{Node, assert_snapshot, limits, resolve};

/// The bucket that each test's server has.
pub(crate) const BUCKET: &str = "models";

pub(crate) fn attributes(uri: &str, endpoint: &str) -> Attributes {
    [(MODEL_URI, uri), ("endpoint", endpoint)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// A credentials file, as KServe's Secrets hold it.
pub(crate) fn file(json: &str) -> Credentials {
    [("gcloud-application-credentials.json", json)].into_iter().collect()
}

/// Long enough for any machine, and far less than a user waits before asking what is wrong.
const SECONDS: Duration = Duration::from_secs(25);

async fn started() -> Option<GcsServer> {
    let server = GcsServer::start().await?;
    server.create_bucket(BUCKET).await;
    server.put(BUCKET, "model/weights", b"weights".to_vec()).await;
    Some(server)
}

async fn at(server: &GcsServer, path: &str, credentials: &Credentials) -> Result<(Model, Manifest), Error> {
    let attributes = attributes(&format!("gs://{BUCKET}/{path}"), &server.endpoint());
    tokio::time::timeout(SECONDS, resolve(&attributes, credentials)).await.expect("an answer")
}

fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let shown = format!("{} {error:?} {error:#?}", error.report());
    for hint in hints {
        assert!(shown.contains(hint), "{shown:?} does not say {hint:?}");
    }
    assert!(!shown.contains("CANARY") && !shown.contains("PRIVATE KEY"), "{shown}");
}

/// A service account signs its tokens itself: one for a whole transfer, and no token endpoint is asked. The gate checks
/// signature and claims of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_arrives_with_a_service_accounts_key() {
    let Some(server) = started().await else { return };
    let (files, credentials) = (model::small(1), file(&server.account().json()));
    for (path, bytes) in &files {
        server.put(BUCKET, &format!("deep/model/{path}"), bytes.clone()).await;
    }
    let (source, manifest) = at(&server, "deep/model", &credentials).await.unwrap();
    assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), &files);
    assert_eq!(server.tokens_issued(), 0);
}

/// The bucket itself is a model too.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_bucket() {
    let Some(server) = started().await else { return };
    let (source, manifest) = at(&server, "", &file(&server.account().json())).await.unwrap();
    let expected = BTreeMap::from([("model/weights".to_owned(), b"weights".to_vec())]);
    assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), &expected);
}

/// Many parts at once ask for one token.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_refresh_token_is_exchanged_once() {
    let Some(server) = started().await else { return };
    let many = model::many(3, 40);
    for (path, bytes) in &many {
        server.put(BUCKET, &format!("many/{path}"), bytes.clone()).await;
    }
    let (source, manifest) = at(&server, "many", &file(&server.user())).await.unwrap();
    assert_snapshot(&Node::new(limits(8)).fetch(&source, &manifest).await.unwrap(), &many);
    assert_eq!(server.tokens_issued(), 1);

    let revoked = server.user().replace("1//", "1//CANARY");
    let error = at(&server, "many", &file(&revoked)).await.unwrap_err();
    let hints = ["gs://models/many", "invalid_grant", "gcloud-application-credentials.json"];
    assert_says(&error, ErrorKind::Unauthenticated, &hints);
}

/// Nothing is sent to where a credentials file says, unless that is Google or the volume's own endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_sent_to_nobody_else() {
    let Some(server) = started().await else { return };
    let sink = ScriptedServer::start(|_| Response::new(200).body(r#"{"access_token":"x","expires_in":3600}"#)).await;
    let elsewhere = server.user().replace("127.0.0.1", "localhost");
    let elsewhere = elsewhere.replace(&server.address().port().to_string(), &sink.address().port().to_string());
    let error = at(&server, "model", &file(&elsewhere)).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, &["token endpoint", "localhost"]);
    assert_eq!(sink.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let Some(server) = started().await else { return };
    let Some(stranger) = ServiceAccount::new() else { return };
    let good = file(&server.account().json());
    let endpoint = server.endpoint();

    let missing = at(&server, "no-model", &good).await.unwrap_err();
    assert_says(&missing, ErrorKind::NotFound, &["gs://models/no-model", &endpoint, "check the path"]);
    let bucket = resolve(&attributes("gs://no-such-bucket/m", &endpoint), &good).await.unwrap_err();
    assert_says(&bucket, ErrorKind::NotFound, &["\"no-such-bucket\"", &endpoint, "check the URI"]);
    let wrong = at(&server, "model", &file(&stranger.json())).await.unwrap_err();
    let hints = ["gs://models/model", &endpoint, "gcloud-application-credentials.json"];
    assert_says(&wrong, ErrorKind::Unauthenticated, &hints);
    let anonymous = at(&server, "model", &Credentials::none()).await.unwrap_err();
    assert_says(&anonymous, ErrorKind::Unauthenticated, &["gs://models/model", "anonymous", "nodePublishSecretRef"]);

    let mut patterns = attributes("gs://models/model", &endpoint);
    patterns.insert("allowPatterns".to_owned(), "*.gguf".to_owned());
    let nothing = resolve(&patterns, &good).await.unwrap_err();
    assert_says(&nothing, ErrorKind::NotFound, &["gs://models/model", "allowPatterns"]);

    let unknown = resolve(&attributes("gs://models/m", "http://gcs.modelmount.invalid:4443"), &good).await.unwrap_err();
    assert_says(&unknown, ErrorKind::Unavailable, &["gs://models/m", "gcs.modelmount.invalid"]);

    server.allow(Access::Nothing);
    let denied = at(&server, "model", &good).await.unwrap_err();
    assert_says(&denied, ErrorKind::PermissionDenied, &["gs://models/model", "storage.objects.list"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_revoked_between_listing_and_reading() {
    let Some(server) = started().await else { return };
    let (source, manifest) = at(&server, "model", &file(&server.account().json())).await.unwrap();
    server.allow(Access::ListOnly);
    let error = source.sources()[0].authorize(&manifest.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["gs://models/model", "storage.objects.get"]);
    let error = Node::new(limits(1)).fetch(&source, &manifest).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["gs://models/model", "storage.objects.get"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_bucket_needs_no_credentials() {
    let Some(server) = started().await else { return };
    server.allow(Access::Public);
    let (source, manifest) = at(&server, "model/weights", &Credentials::none()).await.unwrap();
    let expected = BTreeMap::from([("weights".to_owned(), b"weights".to_vec())]);
    assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &expected);
}

/// Google's servers decompress such objects on the way: what arrives is neither what was listed nor as long.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_would_be_decompressed_are_refused() {
    let Some(server) = started().await else { return };
    // The gzip of no bytes at all.
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    server.put_gzip(BUCKET, "model/vocab.json", &gzip).await;
    let credentials = file(&server.account().json());
    let exact = at(&server, "model/vocab.json", &credentials).await.unwrap_err();
    assert_says(&exact, ErrorKind::FailedPrecondition, &["gs://models/model/vocab.json", "Content-Encoding"]);
    let (source, manifest) = at(&server, "model", &credentials).await.unwrap();
    let error = Node::new(limits(1)).fetch(&source, &manifest).await.unwrap_err();
    assert_says(&error, ErrorKind::FailedPrecondition, &["gs://models/model", "Content-Encoding", "ignorePatterns"]);
}

/// A listing of one object "m/a" of three bytes, and the object itself with what `head` adds.
async fn scripted(head: fn(Response) -> Response) -> ScriptedServer {
    ScriptedServer::start(move |request| {
        let object =
            || Response::new(200).header("etag", "\"1\"").header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
        if request.target.contains("list-type=2") {
            return Response::new(200).header("content-type", "application/xml").body(
                "<ListBucketResult><Contents><Key>m/a</Key><Generation>1</Generation><ETag>\"1\"</ETag>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>3</Size></Contents></ListBucketResult>",
            );
        }
        match request.target.ends_with("/m%2Fa") {
            true => head(object()).body("abc"),
            false => Response::new(404).body("<Error><Code>NoSuchKey</Code></Error>"),
        }
    })
    .await
}

/// Google declares a checksum with every object.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_the_store_declares_is_corrupt() {
    // CRC-32C of "abc", and of something else.
    let good: fn(Response) -> Response = |response| response.header("x-goog-hash", "crc32c=Nks/tw==");
    let bad: fn(Response) -> Response = |response| response.header("x-goog-hash", "crc32c=Nks/tg==");
    for (head, is_good) in [(good, true), (bad, false)] {
        let server = scripted(head).await;
        let (source, manifest) = resolve(&attributes("gs://b/m", &server.url()), &Credentials::none()).await.unwrap();
        match Node::new(limits(1)).fetch(&source, &manifest).await {
            Ok(_) => assert!(is_good, "another checksum was taken"),
            Err(error) => assert_eq!((error.kind(), is_good), (ErrorKind::Corrupt, false), "{error:?}"),
        }
    }
}

/// A server of another kind, as when an endpoint is a console's or a proxy's login page.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_object_store() {
    let server = ScriptedServer::start(|_| Response::new(200).body("<html>CANARY Sign in</html>")).await;
    let error = resolve(&attributes("gs://b/m", &server.url()), &Credentials::none()).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, &["gs://b/m", "check the endpoint"]);
}
