//! Who is shown what: tokens, passwords, and servers that must receive neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::registry::{Access, Kind, PASSWORD, credentials};
use modelmount_test_support::script::{Request, Response, ScriptedServer};
use modelmount_test_support::{Pattern, Registry};
use serde_json::json;

use super::{OCTETS, Shelf, TITLE, assert_says, at, files, found, refused};
use crate::node::{PART, resolve};

const MODEL: &[(&str, &[u8])] = &[("model.bin", b"weights")];

fn bearer(realm: &str) -> Response {
    Response::new(401).header("www-authenticate", format!("Bearer realm=\"{realm}/token\",service=\"s\",scope=\"all\""))
}

/// No header of any request, and nothing in its URL or body, has the password.
fn assert_innocent(requests: &[Request]) {
    for request in requests {
        assert!(request.header("authorization").is_none(), "{request:?}");
        let text = format!("{request:?}");
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_serves_all_requests_for_one_repository() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    let weights = Pattern::new(3).bytes(0, 12 * PART as usize);
    let layers = ["a", "b", "c"].map(|name| (OCTETS, json!({TITLE: name}), weights.as_slice()));
    registry.push("org/m", "latest", Kind::ORAS, &layers).await;
    let before = registry.tokens().requests().len();
    let (model, manifest) = found(&registry, "org/m").await;
    assert!(files(&model, &manifest).await.unwrap()["b"] == weights);
    let asked = registry.tokens().requests().split_off(before);
    let [asked] = asked.as_slice() else { panic!("{} tokens were asked for", asked.len()) };
    assert!(asked.target.contains("scope=repository%3Aorg%2Fm%3Apull"), "{}", asked.target);
    assert!(!asked.target.contains(PASSWORD), "{}", asked.target);
}

#[tokio::test(flavor = "multi_thread")]
async fn public_content_needs_a_token_and_no_password() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    registry.push("m", "latest", Kind::ORAS, &[(OCTETS, json!({TITLE: "a"}), b"a")]).await;
    registry.tokens().allow_anonymous();
    let (model, manifest) = resolve(&at(&registry.reference("m")), &Credentials::none()).await.unwrap();
    assert_eq!(files(&model, &manifest).await.unwrap()["a"], b"a");
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_tokens_are_exchanged_and_registry_tokens_sent() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    registry.push("m", "latest", Kind::ORAS, &[(OCTETS, json!({TITLE: "a"}), b"a")]).await;
    let secret = |entry: serde_json::Value| -> Credentials {
        let config = json!({"auths": {registry.address().to_string(): entry}});
        [(".dockerconfigjson", config.to_string())].into_iter().collect()
    };
    let attributes = at(&registry.reference("m"));
    resolve(&attributes, &secret(json!({"identitytoken": PASSWORD}))).await.unwrap();
    let asked = registry.tokens().requests().pop().unwrap();
    assert_eq!(asked.method, "POST");
    assert!(!asked.target.contains(PASSWORD), "{}", asked.target);
    let error = refused(&attributes, &secret(json!({"identitytoken": "CANARY"}))).await;
    assert_says(&error, ErrorKind::Unauthenticated, &["does not accept the credentials"]);

    let before = registry.tokens().requests().len();
    let token = registry.tokens().token("m", &["pull"]);
    resolve(&attributes, &secret(json!({"registrytoken": token}))).await.unwrap();
    assert_eq!(registry.tokens().requests().len(), before);
}

/// The registry takes each token three times only.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_renewed_in_the_middle() {
    let weights = Pattern::new(5).bytes(0, 20 * PART as usize);
    let shelf = Shelf::new(&[("model.bin", &weights)]);
    let (given, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (script_given, script_used) = (Arc::clone(&given), Arc::clone(&used));
    let server = ScriptedServer::start(move |request| {
        if request.target.starts_with("/token") {
            let number = script_given.fetch_add(1, Ordering::SeqCst) + 1;
            script_used.store(0, Ordering::SeqCst);
            return Response::new(200).body(json!({"token": format!("t{number}"), "expires_in": 300}).to_string());
        }
        let current = format!("Bearer t{}", script_given.load(Ordering::SeqCst));
        if request.header("authorization") == Some(&current) && script_used.fetch_add(1, Ordering::SeqCst) < 3 {
            return shelf.answer(request);
        }
        bearer(&format!("http://{}", request.header("host").unwrap()))
    })
    .await;
    let attributes = at(&format!("{}/m", server.address()));
    let (model, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
    // One request at a time: others would use up the token of the one that has just asked.
    let destination = tempfile::tempdir().unwrap();
    let limits = crate::node::limits(1);
    let limits = modelmount::Limits { part_size: PART, ..limits };
    modelmount::fetch::pull(&manifest, model, destination.path(), limits, Arc::default()).await.unwrap();
    assert!(std::fs::read(destination.path().join("model.bin")).unwrap() == weights);
}

/// A registry that names somebody else for its tokens (CVE-2020-15157 and its kin).
#[tokio::test(flavor = "multi_thread")]
async fn credentials_never_go_to_another_hosts_realm() {
    let sink = ScriptedServer::start(|_| Response::new(200).body("{\"token\": \"t\"}")).await;
    // The same machine by another name is another host.
    let realm = format!("http://localhost:{}", sink.address().port());
    let server = ScriptedServer::start(move |_| bearer(&realm)).await;
    let error = refused(&at(&format!("{}/m", server.address())), &credentials(PASSWORD)).await;
    assert_says(&error, ErrorKind::PermissionDenied, &["another host", "http://localhost", "not sent"]);
    assert!(sink.requests().is_empty(), "{:?}", sink.requests());
    assert_innocent(&server.requests());
    // Who has nothing to lose may ask there.
    refused(&at(&format!("{}/m", server.address())), &Credentials::none()).await;
    assert_eq!(sink.requests().len(), 1);
    assert_innocent(&sink.requests());
}

/// A token server that sends its callers on.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_token_servers_redirect() {
    let sink = ScriptedServer::start(|_| Response::new(200).body("{\"token\": \"t\"}")).await;
    let elsewhere = format!("{}/token", sink.url());
    let server = ScriptedServer::start(move |request| match request.target.starts_with("/token") {
        true => Response::new(307).header("location", elsewhere.clone()),
        false => bearer(&format!("http://{}", request.header("host").unwrap())),
    })
    .await;
    let config = |entry: serde_json::Value| -> Credentials {
        let config = json!({"auths": {server.address().to_string(): entry}});
        [(".dockerconfigjson", config.to_string())].into_iter().collect()
    };
    for credentials in [credentials(PASSWORD), config(json!({"identitytoken": PASSWORD}))] {
        refused(&at(&format!("{}/m", server.address())), &credentials).await;
        assert!(sink.requests().is_empty(), "{:?}", sink.requests());
    }
}

/// Blobs are kept by a storage host, which gets the request and nothing else, whatever it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_blob_to_its_storage() {
    let shelf = Shelf::new(MODEL);
    for challenge in [None, Some("Basic realm=\"x\""), Some("Bearer realm=\"http://127.0.0.1/token\"")] {
        let storage_shelf = shelf.clone();
        let storage = ScriptedServer::start(move |request| match challenge {
            None => storage_shelf.answer(request),
            Some(challenge) => Response::new(401).header("www-authenticate", challenge),
        })
        .await;
        let (registry_shelf, place) = (shelf.clone(), storage.url());
        let server = ScriptedServer::start(move |request| {
            if request.header("authorization").is_none() {
                return Response::new(401).header("www-authenticate", "Basic realm=\"x\"");
            }
            match request.target.contains("/blobs/") {
                true => Response::new(307).header("location", format!("{place}{}", request.target)),
                false => registry_shelf.answer(request),
            }
        })
        .await;
        let attributes = at(&format!("{}/m", server.address()));
        let (model, manifest) = resolve(&attributes, &credentials(PASSWORD)).await.unwrap();
        // Being sent on is being let in.
        model.sources()[0].authorize(&manifest.entries()[0]).await.unwrap();
        assert!(storage.requests().is_empty());
        match (files(&model, &manifest).await, challenge) {
            (Ok(files), None) => assert_eq!(files["model.bin"], b"weights"),
            (Err(error), Some(_)) => assert_says(&error, ErrorKind::Unauthenticated, &[&storage.url()]),
            (other, _) => panic!("{other:?}"),
        }
        assert!(!storage.requests().is_empty());
        assert_innocent(&storage.requests());
    }
}

/// Nobody is shown a password before asking for it.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_not_sent_unasked() {
    let shelf = Shelf::new(MODEL);
    let server = ScriptedServer::start(move |request| shelf.answer(request)).await;
    resolve(&at(&format!("{}/m", server.address())), &credentials(PASSWORD)).await.unwrap();
    assert_innocent(&server.requests());
}

/// The pod's own rights decide, and not those of a process: two opened models share nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_whom_it_was_given() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    registry.push("m", "latest", Kind::ORAS, &[(OCTETS, json!({TITLE: "a"}), b"a")]).await;
    let (_, manifest) = found(&registry, "m").await;
    let request = modelmount::ModelRequest::from_attributes(&at(&registry.reference("m"))).unwrap();
    let context = modelmount::Context::new(modelmount::Policy::unrestricted()).unwrap();
    let stranger = request.open(&Credentials::none(), &context).unwrap();
    let error = stranger.sources()[0].authorize(&manifest.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::Unauthenticated, &["anonymous access"]);
}
