//! What a user is told when it does not work: the right kind, the name of the thing, what to do, and no secret.

use modelmount::{Credentials, Error, ErrorKind, Policy};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::hub::{Access, GUEST, READER};
use modelmount_test_support::script::Response;
use modelmount_test_support::{HuggingFaceHub, ScriptedServer, model};

use super::{REPOSITORY, at, hub, token};
use crate::node::{attributes, authorize, read, resolve, resolve_under};

fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for hint in hints.iter().chain(&["hf://"]) {
        assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
    }
    assert!(!format!("{error:?} {error:#?} {}", error.report()).contains("CANARY"), "{error:?}");
}

async fn refused(attributes: &Attributes, credentials: &Credentials) -> Error {
    resolve(attributes, credentials).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let hub = hub(&model::small(1)).await;
    let place = hub.url();
    let reader = token(READER);
    for (rest, hints) in [
        ("@no-such-branch", &["no revision \"no-such-branch\""][..]),
        ("@0123456789012345678901234567890123456789", &["no revision"]),
        ("/no/such/file", &["nothing at \"no/such/file\"", "check the URI"]),
        ("@v1/tokenizer/vocab", &["nothing at"]),
        ("/config.json/", &["no directory \"config.json\""]),
        ("/config.json/x", &["nothing at"]),
    ] {
        for credentials in [&Credentials::none(), &reader] {
            assert_says(&refused(&at(&hub, rest), credentials).await, ErrorKind::NotFound, hints);
        }
    }
    let missing = attributes("hf://acme/no-such-model", &place);
    let error = refused(&missing, &reader).await;
    assert_says(&error, ErrorKind::NotFound, &["hf://acme/no-such-model", &place, "no such repository"]);
    // Without a token, the hub does not tell what is not there from what is private.
    let error = refused(&missing, &Credentials::none()).await;
    assert_says(&error, ErrorKind::Unauthenticated, &["hf://acme/no-such-model", "no such repository", "HF_TOKEN"]);
    let set = attributes(&format!("hf://datasets/{REPOSITORY}"), &place);
    assert_says(&refused(&set, &reader).await, ErrorKind::NotFound, &["no such repository"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_model_and_a_pattern_that_matches_nothing() {
    let hub = hub(&model::small(1)).await;
    hub.put_all("acme/empty", "main", []);
    let error = refused(&attributes("hf://acme/empty", &hub.url()), &Credentials::none()).await;
    assert_says(&error, ErrorKind::NotFound, &["hf://acme/empty has no files"]);
    let mut patterns = at(&hub, "");
    patterns.insert("allowPatterns".into(), "*.gguf".into());
    assert_says(
        &refused(&patterns, &Credentials::none()).await,
        ErrorKind::NotFound,
        &["allowPatterns", "none of the 5"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_open_it() {
    let hub = hub(&model::small(1)).await;
    let bad = token("hf_CANARY_expired");
    // Also for what everybody may read.
    assert_says(&refused(&at(&hub, ""), &bad).await, ErrorKind::Unauthenticated, &["HF_TOKEN", "expired"]);
    hub.set_access(REPOSITORY, Access::Private);
    let error = refused(&at(&hub, ""), &Credentials::none()).await;
    assert_says(&error, ErrorKind::Unauthenticated, &["private", "HF_TOKEN"]);
    assert_says(&refused(&at(&hub, ""), &bad).await, ErrorKind::Unauthenticated, &["expired"]);
    assert_says(&refused(&at(&hub, ""), &token(GUEST)).await, ErrorKind::NotFound, &["may not see it"]);
}

/// Everybody may list a gated repository, so that only reading tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_gated_model_says_where_to_accept_its_terms() {
    let hub = hub(&model::small(1)).await;
    hub.set_access(REPOSITORY, Access::Gated);
    let page = format!("accept its terms at {}/{REPOSITORY}", hub.url());
    for (credentials, kind, hint) in [
        (Credentials::none(), ErrorKind::Unauthenticated, "HF_TOKEN"),
        (token(GUEST), ErrorKind::PermissionDenied, "the token's account"),
    ] {
        let (source, manifest) = resolve(&at(&hub, ""), &credentials).await.unwrap();
        for entry in manifest.entries() {
            assert_says(&authorize(&source, entry).await.unwrap_err(), kind, &[&page, hint]);
            assert_says(&read(&source, entry).await.unwrap_err(), kind, &[&page, hint]);
        }
    }
    let (source, manifest) = resolve(&at(&hub, ""), &token(READER)).await.unwrap();
    authorize(&source, &manifest.entries()[0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_revoked_after_listing() {
    let hub = hub(&model::small(1)).await;
    for (access, kind) in [(Access::Gated, ErrorKind::PermissionDenied), (Access::Private, ErrorKind::NotFound)] {
        hub.set_access(REPOSITORY, Access::Public);
        let (source, manifest) = resolve(&at(&hub, ""), &token(GUEST)).await.unwrap();
        hub.set_access(REPOSITORY, access);
        for entry in manifest.entries() {
            assert_says(&authorize(&source, entry).await.unwrap_err(), kind, &[]);
            assert_says(&read(&source, entry).await.unwrap_err(), kind, &[]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_not_the_hub() {
    let uri = format!("hf://{REPOSITORY}");
    let nowhere = refused(&attributes(&uri, "http://hub.modelmount.invalid"), &token(READER)).await;
    assert_says(&nowhere, ErrorKind::Unavailable, &["hub.modelmount.invalid"]);

    let page = ScriptedServer::start(|_| Response::new(200).body("<html>Sign in, CANARY</html>")).await;
    assert_says(
        &refused(&attributes(&uri, &page.url()), &token(READER)).await,
        ErrorKind::InvalidArgument,
        &["endpoint"],
    );
    let nothing = ScriptedServer::start(|_| Response::new(404).body("CANARY")).await;
    assert_says(&refused(&attributes(&uri, &nothing.url()), &token(READER)).await, ErrorKind::NotFound, &["endpoint"]);
    let busy = ScriptedServer::start(|_| Response::new(429)).await;
    assert_says(&refused(&attributes(&uri, &busy.url()), &token(READER)).await, ErrorKind::Unavailable, &["too many"]);
}

/// A pod's author must not reach the node's own services through the plugin, nor by a redirect.
#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_refused_unless_allowed() {
    let hub: HuggingFaceHub = hub(&model::small(1)).await;
    let error = resolve_under(Policy::default(), &at(&hub, ""), &Credentials::none()).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["--allow-address"]);
    assert!(hub.requests().is_empty());
}
