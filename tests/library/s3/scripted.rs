//! Answers that no real server gives on demand.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modelmount::ErrorKind;
use modelmount_test_support::ScriptedServer;
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::script::{Request, Response};

use crate::bucket::{Bucket, keys};
use crate::node::{Node, limits, resolve};

/// A bucket's listing as S3 writes it, of objects of three bytes.
fn listing(keys: &[&str]) -> Response {
    page(keys, "<IsTruncated>false</IsTruncated>")
}

/// A page of it; `more` says whether it is the last.
fn page(keys: &[&str], more: &str) -> Response {
    let objects = keys.iter().map(|key| {
        let key = key.replace('&', "&amp;").replace('<', "&lt;");
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{:x}&quot;</ETag><Size>3</Size><StorageClass>STANDARD</StorageClass></Contents>",
            key.len()
        )
    });
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>models</Name><Prefix></Prefix>\
         <KeyCount>{}</KeyCount><MaxKeys>1000</MaxKeys>{more}{}</ListBucketResult>",
        keys.len(),
        objects.collect::<String>()
    );
    Response::new(200).header("content-type", "application/xml").body(xml)
}

fn error(status: u16, code: &str) -> Response {
    let xml = format!("<Error><Code>{code}</Code><Message>CANARY-BODY</Message></Error>");
    Response::new(status).header("content-type", "application/xml").body(xml)
}

fn is_listing(request: &Request) -> bool {
    request.target.contains("list-type=2")
}

fn at(server: &ScriptedServer) -> Attributes {
    Bucket::attributes_at(&server.url(), "m")
}

async fn resolved(server: &ScriptedServer) -> Result<Vec<String>, modelmount::Error> {
    let (attributes, credentials) = (at(server), keys("AK", "CANARY-SECRET"));
    let answer = resolve(&attributes, &credentials);
    let (_, manifest) = tokio::time::timeout(Duration::from_secs(30), answer).await.expect("an answer")?;
    Ok(manifest.entries().iter().map(|entry| entry.path.as_str().to_owned()).collect())
}

/// Keys may have components that no path can: nothing is laid out elsewhere, and nothing panics.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_can_not_be_paths() {
    for odd in ["m/a//b", "m/./b", "m/../b", "m/../../etc/passwd", "m//", "m/a/..", "m/\u{1}"] {
        let server = ScriptedServer::start(move |request| match is_listing(request) {
            true => listing(&["m/good", odd]),
            false => error(404, "NoSuchKey"),
        })
        .await;
        let error = resolved(&server).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{odd:?}: {error:?}");
        let text = error.report();
        assert!(text.contains("s3://models/m"), "{odd:?}: {text}");
        assert!(text.contains("rename") || text.contains("ignorePatterns"), "{odd:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_refusals_are_told_without_their_words() {
    for (status, code, kind, hint) in [
        (403, "ExpiredToken", ErrorKind::Unauthenticated, "expired"),
        (403, "RequestTimeTooSkewed", ErrorKind::Unavailable, "clock"),
        (301, "PermanentRedirect", ErrorKind::InvalidArgument, "region"),
        (400, "AuthorizationHeaderMalformed", ErrorKind::InvalidArgument, "region"),
        (403, "AccessDenied", ErrorKind::PermissionDenied, "s3:ListBucket"),
        (503, "SlowDown", ErrorKind::Unavailable, "503"),
    ] {
        let server = ScriptedServer::start(move |_| error(status, code)).await;
        let error = resolved(&server).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error:?}");
        let text = format!("{} {error:?} {error:#?}", error.report());
        assert!(text.contains(hint), "{status} {code}: {text}");
        assert!(!text.contains("CANARY"), "{status} {code}: {text}");
    }
}

/// Memory is bounded: of what a hostile server sends, no more is read than an honest one would say. The rest of these
/// answers never comes.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_an_end() {
    const MIB: usize = 1 << 20;
    let server = ScriptedServer::start(|request| match is_listing(request) {
        true => Response::new(200).body(vec![b' '; 32 * MIB]).hang_after(17 * MIB),
        false => error(404, "NoSuchKey"),
    })
    .await;
    let error = resolved(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("listing is longer than 16.0 MiB"), "{error:?}");

    let server = ScriptedServer::start(|_| {
        let refusal = format!("<Error><Code>AccessDenied</Code><Message>{}", "é".repeat(MIB));
        Response::new(403).body(refusal).hang_after(MIB / 8)
    })
    .await;
    let error = resolved(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.report().contains("403 AccessDenied"), "{error:?}");
}

/// Pages with nothing on them but the name of the next: nothing but their number would end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_an_end() {
    let server = ScriptedServer::start(|request| match is_listing(request) {
        true => Response::new(200).header("content-type", "application/xml").body(format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>{}</NextContinuationToken></ListBucketResult>",
            request.number
        )),
        false => error(404, "NoSuchKey"),
    })
    .await;
    let error = resolved(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("does not come to an end"), "{error:?}");
}

/// Listings are held in memory, with those of all other volumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_endless_names() {
    let server = ScriptedServer::start(|request| match is_listing(request) {
        true => {
            let key = format!("m/{}{}", request.number, "x".repeat(9 << 20));
            let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>";
            page(&[&key], more)
        }
        false => error(404, "NoSuchKey"),
    })
    .await;
    let error = resolved(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("16 MiB of names: name a path further down"), "{error:?}");
}

/// Both are relied on: most servers honour the condition, and some ignore it.
#[tokio::test(flavor = "multi_thread")]
async fn reads_are_bound_to_the_listed_version() {
    for (sent, matches) in [("\"3\"", true), ("\"other\"", false)] {
        let server = ScriptedServer::start(move |request| match (is_listing(request), request.header("if-match")) {
            (true, _) => listing(&["m/a"]),
            (false, Some("\"3\"")) => Response::new(200).header("etag", sent).body("abc"),
            (false, _) => error(404, "NoSuchKey"),
        })
        .await;
        let (source, manifest) = resolve(&at(&server), &keys("AK", "CANARY-SECRET")).await.unwrap();
        let node = Node::new(limits(1));
        let outcome = node.fetch(&source, &manifest).await;
        match outcome {
            Ok(_) => assert!(matches, "another version was taken"),
            Err(error) => assert_eq!((error.kind(), matches), (ErrorKind::Changed, false), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_be_left_alone_is() {
    // Longer than all attempts take at which nobody says how long to wait.
    const WAIT: Duration = Duration::from_secs(9);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&refused);
    let server = ScriptedServer::start(move |request| {
        let mut times = times.lock().unwrap();
        match times.first().map(Instant::elapsed) {
            _ if is_listing(request) => listing(&["m/a"]),
            _ if request.target.ends_with("/m") => error(404, "NoSuchKey"),
            Some(since) if since >= WAIT => Response::new(200).header("etag", "\"3\"").body("abc"),
            _ => {
                times.push(Instant::now());
                error(503, "SlowDown").header("retry-after", WAIT.as_secs().to_string())
            }
        }
    })
    .await;
    let (source, manifest) = resolve(&at(&server), &keys("AK", "CANARY-SECRET")).await.unwrap();
    Node::new(limits(1)).fetch(&source, &manifest).await.unwrap();
    assert_eq!(refused.lock().unwrap().len(), 1, "it was asked again before its time");
}

/// Servers that are busy for a moment are asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_asked_again() {
    let server = ScriptedServer::start(|request| match (is_listing(request), request.number) {
        (_, 0..2) => error(503, "SlowDown"),
        (true, _) => listing(&["m/a", "m/b"]),
        (false, _) => error(404, "NoSuchKey"),
    })
    .await;
    assert_eq!(resolved(&server).await.unwrap(), ["a", "b"]);
}

/// Something that is not S3 at all, as when an endpoint is a console's or a proxy's login page.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_speak_s3() {
    let server = ScriptedServer::start(|request| {
        let text = "<html>Sign in</html>";
        let response = Response::new(200).header("content-type", "text/html");
        if request.method == "HEAD" { response } else { response.body(text) }
    })
    .await;
    let error = resolved(&server).await.unwrap_err();
    assert!(error.report().contains("s3://models/m"), "{error:?}");
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
}
