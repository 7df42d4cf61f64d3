//! What a user is told when it does not work: the right kind, the name of the thing, what to do, and no secret.

use std::time::Duration;

use modelmount::{Credentials, Error, ErrorKind, Policy};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::hub::{Access, GUEST, READER};
use modelmount_test_support::script::Response;
use modelmount_test_support::{ScriptedServer, model};

use super::{REPOSITORY, at, hub, token};
use crate::node::{Node, attributes, authorize, limits, read, resolve, resolve_under};

fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for hint in hints.iter().chain(&["modelscope://"]) {
        assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
    }
    assert!(!format!("{error:?} {error:#?} {}", error.report()).contains("CANARY"), "{error:?}");
}

async fn refused(attributes: &Attributes, credentials: &Credentials) -> Error {
    let answer = tokio::time::timeout(Duration::from_secs(60), resolve(attributes, credentials)).await;
    answer.expect("an answer").unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let hub = hub(&model::small(1)).await;
    for (rest, hints) in [
        (":main", &["at revision \"main\"", "\"master\""][..]),
        (":main/config.json", &["at revision \"main\"", "\"master\""]),
        ("/no/such/file", &["no such model or file"]),
        ("/tokenizer/vocab", &["nothing at \"tokenizer/vocab\""]),
        ("/config.json/", &["nothing at \"config.json\""]),
    ] {
        assert_says(&refused(&at(&hub, rest), &Credentials::none()).await, ErrorKind::NotFound, hints);
    }
    let missing = attributes("modelscope://acme/no-such-model", &hub.url());
    let error = refused(&missing, &Credentials::none()).await;
    assert_says(&error, ErrorKind::NotFound, &["acme/no-such-model", "MODELSCOPE_API_TOKEN"]);
    assert_says(&refused(&missing, &token(READER)).await, ErrorKind::NotFound, &["may not see it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_model_and_a_pattern_that_matches_nothing() {
    let hub = hub(&model::small(1)).await;
    hub.put_all("acme/empty", "master", []);
    let error = refused(&attributes("modelscope://acme/empty", &hub.url()), &Credentials::none()).await;
    assert_says(&error, ErrorKind::NotFound, &["modelscope://acme/empty has no files"]);
    let mut patterns = at(&hub, "");
    patterns.insert("allowPatterns".into(), "*.gguf".into());
    assert_says(&refused(&patterns, &Credentials::none()).await, ErrorKind::NotFound, &["none of the 5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_open_it() {
    let hub = hub(&model::small(1)).await;
    hub.set_access(REPOSITORY, Access::Private);
    for (credentials, kind, hint) in [
        (Credentials::none(), ErrorKind::Unauthenticated, "give a Secret with MODELSCOPE_API_TOKEN"),
        (token("ms-CANARY-expired"), ErrorKind::Unauthenticated, "may have expired"),
        (token(GUEST), ErrorKind::PermissionDenied, "right to download"),
    ] {
        assert_says(&refused(&at(&hub, ""), &credentials).await, kind, &[hint]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_revoked_after_listing() {
    let hub = hub(&model::small(1)).await;
    for access in [Access::Gated, Access::Private] {
        hub.set_access(REPOSITORY, Access::Public);
        let (source, manifest) = resolve(&at(&hub, ""), &token(GUEST)).await.unwrap();
        hub.set_access(REPOSITORY, access);
        for entry in manifest.entries() {
            assert_says(&authorize(&source, entry).await.unwrap_err(), ErrorKind::PermissionDenied, &[]);
            assert_says(&read(&source, entry).await.unwrap_err(), ErrorKind::PermissionDenied, &[]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_not_the_hub() {
    let uri = format!("modelscope://{REPOSITORY}");
    let nowhere = refused(&attributes(&uri, "http://hub.modelmount.invalid"), &token(READER)).await;
    assert_says(&nowhere, ErrorKind::Unavailable, &["hub.modelmount.invalid"]);
    let page = ScriptedServer::start(|_| Response::new(200).body("<html>Sign in, CANARY</html>")).await;
    let error = refused(&attributes(&uri, &page.url()), &token(READER)).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["check the endpoint"]);
    let busy = ScriptedServer::start(|_| Response::new(429).body("CANARY")).await;
    assert_says(&refused(&attributes(&uri, &busy.url()), &token(READER)).await, ErrorKind::Unavailable, &["too many"]);
    let refusing = ScriptedServer::start(|_| {
        Response::new(200).body(r#"{"Code":10010205001,"Message":"CANARY","Data":null,"Success":false}"#)
    })
    .await;
    let error = refused(&attributes(&uri, &refusing.url()), &token(READER)).await;
    assert_says(&error, ErrorKind::NotFound, &["code 10010205001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_refused_unless_allowed() {
    let hub = hub(&model::small(1)).await;
    let error = resolve_under(Policy::default(), &at(&hub, ""), &Credentials::none()).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["--allow-address"]);
    assert!(hub.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_can_not_be_paths() {
    for odd in ["../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "\\u0000"] {
        let server = ScriptedServer::start(move |_| {
            let files =
                format!(r#"[{{"Path":"good","Type":"blob","Size":1}},{{"Path":"{odd}","Type":"blob","Size":1}}]"#);
            Response::new(200).body(format!(r#"{{"Code":200,"Success":true,"Data":{{"Files":{files}}}}}"#))
        })
        .await;
        let error = refused(&attributes(&format!("modelscope://{REPOSITORY}"), &server.url()), &token("CANARY")).await;
        assert_says(&error, ErrorKind::FailedPrecondition, &[]);
    }
}

/// A directory that lists 3,000 others, each of which does so again.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_an_end_is_given_up() {
    let server = ScriptedServer::start(|request| {
        let (_, root) = request.target.split_once("Root=").unwrap_or_default();
        let root = root.replace("%2F", "/");
        let nested = (0..if request.target.contains("Recursive=True") { 3000 } else { 2 })
            .map(|i| format!(r#"{{"Path":"{root}{}{i}","Type":"tree"}}"#, if root.is_empty() { "" } else { "/" }));
        let nested: Vec<String> = nested.collect();
        Response::new(200).body(format!(r#"{{"Success":true,"Data":{{"Files":[{}]}}}}"#, nested.join(",")))
    })
    .await;
    let error = refused(&attributes(&format!("modelscope://{REPOSITORY}"), &server.url()), &Credentials::none()).await;
    assert_says(&error, ErrorKind::ResourceExhausted, &["name a path further down"]);
}

/// The same, of directories that can be listed one by one, and have files of endless names.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_endless_names() {
    let server = ScriptedServer::start(|request| {
        let root = !request.target.contains("Root=d");
        let entries = match request.target.contains("Recursive=True") {
            true if root => (0..3000).map(|i| format!(r#"{{"Path":"{i}","Type":"tree"}}"#)).collect(),
            true => vec![format!(r#"{{"Path":"d/{}","Type":"blob","Size":1}}"#, "x".repeat(17 << 20))],
            false => vec![r#"{"Path":"d","Type":"tree"}"#.to_owned()],
        };
        Response::new(200).body(format!(r#"{{"Success":true,"Data":{{"Files":[{}]}}}}"#, entries.join(",")))
    })
    .await;
    let error = refused(&attributes(&format!("modelscope://{REPOSITORY}"), &server.url()), &Credentials::none()).await;
    assert_says(&error, ErrorKind::ResourceExhausted, &["16 MiB of names; name a path further down"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_listed_are_corrupt() {
    let content = vec![7; 200_000];
    let hub = hub(&[("weights.bin".to_owned(), content.clone())].into()).await;
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    read(&source, &manifest.entries()[0]).await.unwrap();
    hub.corrupt_store(&content, vec![8; 200_000]);
    let error = Node::new(limits(4)).fetch(&source, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}
