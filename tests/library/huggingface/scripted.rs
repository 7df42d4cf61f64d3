//! Answers that no real hub gives.

use std::time::Duration;

use modelmount::{Credentials, Error, ErrorKind};
use modelmount_test_support::script::{Request, Response};
use modelmount_test_support::{HuggingFaceHub, ScriptedServer};

use super::{REPOSITORY, at, hub, token};
use crate::node::{Node, attributes, limits, read, resolve};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Of "hello\n".
const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

fn file(path: &str) -> String {
    format!(r#"{{"type":"file","oid":"{HELLO}","size":6,"path":"{path}"}}"#)
}

/// A hub that lists what `page` says and serves "hello\n" as whatever it is asked for.
async fn server(page: impl Fn(&Request) -> Response + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::start(move |request| match request.target.as_str() {
        target if target.contains("/revision/") => Response::new(200).body(format!(r#"{{"sha":"{COMMIT}"}}"#)),
        target if target.contains("/tree/") => page(request),
        _ => Response::new(200).body("hello\n"),
    })
    .await
}

async fn refused(server: &ScriptedServer) -> Error {
    let attributes = attributes(&format!("hf://{REPOSITORY}"), &server.url());
    let answer = tokio::time::timeout(Duration::from_secs(60), resolve(&attributes, &token("CANARY"))).await;
    let error = answer.expect("an answer").unwrap_err();
    assert!(error.report().contains("hf://"), "{error:?}");
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_can_not_be_paths() {
    for odd in ["../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "./a", "a/", "\\u0000"] {
        let server = server(move |_| Response::new(200).body(format!("[{},{}]", file("good"), file(odd)))).await;
        assert_eq!(refused(&server).await.kind(), ErrorKind::FailedPrecondition, "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_endless_names() {
    let server = server(|_| {
        let files: Vec<String> = (0..17).map(|number| file(&format!("{number}{}", "x".repeat(1 << 20)))).collect();
        Response::new(200).body(format!("[{}]", files.join(",")))
    })
    .await;
    let error = refused(&server).await;
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("16 MiB of names; name a path further down"), "{error:?}");
}

/// The token goes where the link leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_continues_elsewhere_is_not_followed() {
    let sink = ScriptedServer::start(|_| Response::new(200).body("[]")).await;
    let link = format!("<{}/api/models/{REPOSITORY}/tree/x?cursor=1>; rel=\"next\"", sink.url());
    let server =
        server(move |_| Response::new(200).header("link", link.clone()).body(format!("[{}]", file("a")))).await;
    let error = refused(&server).await;
    assert!(error.kind() == ErrorKind::PermissionDenied && error.report().contains("endpoint"), "{error:?}");
    assert!(sink.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_elsewhere_brings_no_token_there() {
    let sink = ScriptedServer::start(|_| Response::new(404)).await;
    let place = sink.url();
    let server = ScriptedServer::start(move |request| {
        Response::new(307).header("location", format!("{place}{}", request.target))
    })
    .await;
    refused(&server).await;
    let requests = sink.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_without_an_end() {
    let link = |cursor: usize| format!("</api/models/{REPOSITORY}/tree/{COMMIT}?cursor={cursor}>; rel=\"next\"");
    // The same page again and again; pages of nothing; a redirect to itself.
    let same = server(move |_| Response::new(200).header("link", link(1)).body(format!("[{}]", file("a")))).await;
    let nothing = server(move |request| Response::new(200).header("link", link(request.number)).body("[]")).await;
    let circle = server(|request| Response::new(302).header("location", request.target.clone())).await;
    for server in [same, nothing, circle] {
        assert_eq!(refused(&server).await.kind(), ErrorKind::Unavailable);
        assert!(server.requests().len() < 20, "{}", server.requests().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_too_long_are_not_read() {
    let server = server(|_| Response::new(200).header("content-length", (1u64 << 40).to_string()).body("[")).await;
    assert_eq!(refused(&server).await.kind(), ErrorKind::ResourceExhausted);
}

/// Every byte is verified, also of files that have no SHA-256.
#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_listed_are_corrupt() {
    let fetch = async |server: &ScriptedServer| {
        let attributes = attributes(&format!("hf://{REPOSITORY}"), &server.url());
        let (source, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
        Node::new(limits(1)).fetch(&source, &manifest).await
    };
    let good = server(|_| Response::new(200).body(format!("[{}]", file("small")))).await;
    fetch(&good).await.unwrap();
    let other = file("small").replace(HELLO, COMMIT);
    let wrong = server(move |_| Response::new(200).body(format!("[{other}]"))).await;
    let error = fetch(&wrong).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.report().contains(COMMIT), "{error:?}");

    let content = vec![7; 200_000];
    let hub: HuggingFaceHub = hub(&[("weights.bin".to_owned(), content.clone())].into()).await;
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    read(&source, &manifest.entries()[0]).await.unwrap();
    hub.corrupt_store(&content, vec![8; 200_000]);
    let error = Node::new(limits(4)).fetch(&source, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

/// The signature of a download's address expires; the hub gives a new one when it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_signature_is_tried_again() {
    let hub = hub(&[("weights.bin".to_owned(), vec![7; 1000])].into()).await;
    let store = ScriptedServer::start(|_| Response::new(403).body("Request has expired, CANARY")).await;
    let (real, elsewhere) = (hub.url(), store.url());
    let front = ScriptedServer::start(move |request| match request.target.contains("/resolve/") {
        true => Response::new(302).header("location", format!("{elsewhere}/x?signature=CANARY")),
        false => Response::new(307).header("location", format!("{real}{}", request.target)),
    })
    .await;
    let (source, manifest) =
        resolve(&attributes(&format!("hf://{REPOSITORY}"), &front.url()), &Credentials::none()).await.unwrap();
    let error = read(&source, &manifest.entries()[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.report().contains(&store.url()) && !format!("{error:?}").contains("CANARY"), "{error:?}");
}
