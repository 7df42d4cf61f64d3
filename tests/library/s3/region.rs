//! Buckets that are in another region than the one that the volume names, or that is taken for granted.

use std::collections::BTreeSet;

use modelmount::{Context, Credentials, ErrorKind, Model, ModelRequest, Policy};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::script::{Request, Response};
use modelmount_test_support::{S3Kind, ScriptedServer};

use crate::bucket::{Bucket, keys};
use crate::node::{Node, assert_snapshot, authorize, limits, read, resolve};

/// What versitygw is not in.
const WRONG: &str = "ap-south-1";

fn in_region(attributes: Attributes, region: &str) -> Attributes {
    attributes.into_iter().chain([("region".to_owned(), region.to_owned())]).collect()
}

/// A real server's refusal tells the region where it has a body, which it does not have for the one object that a URI may
/// name.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_which_one_it_is() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let files = [("a".to_owned(), b"1".to_vec()), ("b/c".to_owned(), b"2".to_vec())].into();
    bucket.put_model("m", &files).await;
    bucket.put("single", b"3").await;
    for (path, expected) in [("m", files), ("single", [("single".to_owned(), b"3".to_vec())].into())] {
        let attributes = in_region(bucket.attributes(path), WRONG);
        let (source, manifest) = resolve(&attributes, &bucket.credentials()).await.unwrap();
        authorize(&source, &manifest.entries()[0]).await.unwrap();
        assert_snapshot(&Node::new(limits(2)).fetch(&source, &manifest).await.unwrap(), &expected);
        let (_, same) = bucket.resolve(path).await.unwrap();
        assert_eq!(manifest.id(), same.id());
        // Of a model that is opened anew, with newer credentials, nobody asks for a listing.
        let entry = &manifest.entries()[0];
        authorize(&open(&attributes, &bucket.credentials()), entry).await.unwrap();
        assert_eq!(
            &read(&open(&attributes, &bucket.credentials()), entry).await.unwrap(),
            &expected[entry.path.as_str()]
        );
    }
}

fn open(attributes: &Attributes, credentials: &Credentials) -> Model {
    let request = ModelRequest::from_attributes(attributes).unwrap();
    request.open(credentials, &Context::new(Policy::unrestricted()).unwrap()).unwrap()
}

/// A HEAD is refused there without a word; what is missing and what is empty is known for what it is all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_empty_in_another_region() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    bucket.put("m/__init__.py", b"").await;
    let at = |path| in_region(bucket.attributes(path), WRONG);
    let error = resolve(&at("missing"), &bucket.credentials()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let (_, manifest) = resolve(&at("m"), &bucket.credentials()).await.unwrap();
    authorize(&open(&at("m"), &bucket.credentials()), &manifest.entries()[0]).await.unwrap();
}

/// The region that a request is signed for (AWS Signature Version 4: `Credential=key/date/region/s3/aws4_request`).
fn signed_for(request: &Request) -> String {
    let authorization = request.header("authorization").unwrap();
    let (_, scope) = authorization.split_once("Credential=").unwrap();
    scope.split('/').nth(2).unwrap().to_owned()
}

fn object(request: &Request) -> Response {
    match request.target.contains("list-type=2") {
        true => Response::new(200).header("content-type", "application/xml").body(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>m/a</Key>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag><Size>3</Size></Contents>\
             </ListBucketResult>",
        ),
        false if request.target.ends_with("/m") => Response::new(404),
        false => Response::new(200)
            .header("etag", "\"1\"")
            .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            .body("abc"),
    }
}

/// Amazon's answers say it in a header, whatever is asked: a redirect that leads nowhere, or a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn amazons_answers_are_followed() {
    for status in [301, 307, 400, 403] {
        let server = ScriptedServer::start(move |request| match signed_for(request).as_str() {
            "eu-west-1" => object(request),
            _ => Response::new(status).header("x-amz-bucket-region", "eu-west-1"),
        })
        .await;
        let credentials = keys("AK", "CANARY-SECRET");
        let attributes = Bucket::attributes_at(&server.url(), "m");
        let (source, manifest) = resolve(&attributes, &credentials).await.unwrap();
        assert_eq!(read(&source, &manifest.entries()[0]).await.unwrap(), b"abc", "{status}");
        let wrong = server.requests().iter().filter(|request| signed_for(request) != "eu-west-1").count();
        assert!(wrong <= 2, "{status}: {wrong} requests went to the wrong region");
        let before = server.requests().len();
        authorize(&open(&attributes, &credentials), &manifest.entries()[0]).await.unwrap();
        assert_eq!(server.requests().len() - before, 2, "{status}: one to learn it");
    }
}

/// Nor is anybody led around: what is refused in the region that was told is refused.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_can_not_agree() {
    for (told, asked) in [("eu-west-1", 2), ("evil.example/", 1), ("EU", 1), ("us-east-1", 1)] {
        let server = ScriptedServer::start(move |request| {
            let region = if signed_for(request) == "us-east-1" { told } else { "eu-west-3" };
            Response::new(400)
                .body(format!("<Error><Code>AuthorizationHeaderMalformed</Code><Region>{region}</Region>"))
        })
        .await;
        let attributes = Bucket::attributes_at(&server.url(), "m/");
        let error = resolve(&attributes, &keys("AK", "CANARY-SECRET")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        assert!(error.report().contains("set the attribute region"), "{error:?}");
        assert!(!error.report().contains("evil"), "{error:?}");
        assert_eq!(server.requests().len(), asked, "{told}");
        // Nor is it led on by the next question.
        let source = open(&attributes, &keys("AK", "CANARY-SECRET"));
        for _ in 0..3 {
            source.sources()[0].list().await.unwrap_err();
        }
        let regions: BTreeSet<String> = server.requests().iter().map(signed_for).collect();
        assert!(!regions.contains("eu-west-3") && regions.len() <= 2, "{regions:?}");
    }
}
