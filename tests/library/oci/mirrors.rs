//! Mirrors: they bring the bytes, and decide nothing.

use std::net::SocketAddr;

use modelmount::net::CaCertificates;
use modelmount::source::RegistryMirror;
use modelmount::{Context, Credentials, ErrorKind, Policy};
use modelmount_test_support::registry::{Access, Kind, PASSWORD, credentials};
use modelmount_test_support::script::{Request, Response, ScriptedServer};
use modelmount_test_support::{Pattern, Proxy, Registry, RegistryKind};
use serde_json::json;

use super::{OCTETS, Shelf, TITLE, assert_says, at, files, resolve_with};
use crate::node::PART;

fn context(registry: SocketAddr, mirrors: &[(String, bool)]) -> Context {
    let mirrors = mirrors.iter().map(|(url, resolves)| {
        let mirror: RegistryMirror = format!("{registry}={url}").parse().unwrap();
        if *resolves { mirror.resolving() } else { mirror }
    });
    let context = Context::new(Policy::unrestricted()).unwrap();
    context.with_registry_mirrors(mirrors.collect(), &CaCertificates::default()).unwrap()
}

fn blobs(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.target.contains("/blobs/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_the_blobs_and_the_registry_the_rights() {
    let Some(registry) = Registry::start_with(Access::Token).await else { return };
    let Some(mirror) = Registry::start(RegistryKind::Crane).await else { return };
    let weights = Pattern::new(9).bytes(0, 20 * PART as usize);
    let layers = [(OCTETS, json!({TITLE: "model.bin"}), weights.as_slice())];
    registry.push("org/m", "latest", Kind::ORAS, &layers).await;
    mirror.push("org/m", "latest", Kind::ORAS, &layers).await;
    let (before, after) = (Proxy::start(registry.address()).await, Proxy::start(mirror.address()).await);
    let context = context(before.address(), &[(after.url(), false)]);
    let attributes = at(&format!("{}/org/m", before.address()));
    let (model, manifest) = resolve_with(&context, &attributes, &credentials(PASSWORD)).await.unwrap();
    assert_eq!(after.connections(), 0, "the manifest is the registry's to give");
    assert!(files(&model, &manifest).await.unwrap()["model.bin"] == weights);
    assert!(after.received() > 0);
    assert!(before.sent() < weights.len() as u64, "the registry sent {} bytes", before.sent());

    // That a mirror would serve everybody helps nobody.
    let error = resolve_with(&context, &attributes, &Credentials::none()).await.map(drop).unwrap_err();
    assert_says(&error, ErrorKind::Unauthenticated, &["anonymous access"]);
    let request = modelmount::ModelRequest::from_attributes(&attributes).unwrap();
    let stranger = request.open(&Credentials::none(), &context).unwrap();
    let error = stranger.sources()[0].authorize(&manifest.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::Unauthenticated, &["anonymous access"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_as_containerd_asks_and_gets_no_credentials() {
    let shelf = Shelf::new(&[("model.bin", b"weights")]);
    let mirror_shelf = shelf.clone();
    let mirror = ScriptedServer::start(move |request| match request.header("x-tried") {
        None => mirror_shelf.answer(request),
        Some(_) => Response::new(500),
    })
    .await;
    let challenging =
        ScriptedServer::start(|_| Response::new(401).header("www-authenticate", "Basic realm=\"x\"")).await;
    let server = ScriptedServer::start(move |request| match request.header("authorization") {
        Some(_) => shelf.answer(request),
        None => Response::new(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    let context = context(server.address(), &[(challenging.url(), true), (mirror.url(), false)]);
    let attributes = at(&format!("{}/org/m:v1", server.address()));
    let (model, manifest) = resolve_with(&context, &attributes, &credentials(PASSWORD)).await.unwrap();
    assert_eq!(files(&model, &manifest).await.unwrap()["model.bin"], b"weights");
    for requests in [challenging.requests(), mirror.requests()] {
        assert!(!requests.is_empty());
        for request in requests {
            let encoded = server.address().to_string().replace(':', "%3A");
            assert!(request.target.ends_with(&format!("?ns={encoded}")), "{}", request.target);
            assert!(request.header("authorization").is_none(), "{request:?}");
        }
    }
    assert_eq!(blobs(&server.requests()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_has_what_mirrors_have_not() {
    let weights = Pattern::new(11).bytes(0, 6 * PART as usize);
    let shelf = Shelf::new(&[("model.bin", &weights)]);
    let gone = ScriptedServer::start(|_| Response::new(404)).await;
    let broken = ScriptedServer::start(|_| Response::new(503)).await;
    let server_shelf = shelf.clone();
    let server = ScriptedServer::start(move |request| server_shelf.answer(request)).await;
    let dead = Proxy::start(server.address()).await;
    dead.refuse(true).await;
    let mirrors = [(dead.url(), true), (gone.url(), true), (broken.url(), false)];
    let context = context(server.address(), &mirrors);
    let attributes = at(&format!("{}/m", server.address()));
    let (model, manifest) = resolve_with(&context, &attributes, &Credentials::none()).await.unwrap();
    assert!(files(&model, &manifest).await.unwrap()["model.bin"] == weights);
    // Once on each of the three connections that begin at the same time.
    assert!(blobs(&gone.requests()) <= 3, "a blob that is not there is asked for again");
    assert!(broken.requests().len() <= 3, "a mirror that fails is not left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_is_found_out_and_passed_over() {
    let weights = Pattern::new(13).bytes(0, 6 * PART as usize);
    let shelf = Shelf::new(&[("model.bin", &weights)]);
    let mut lies = shelf.clone();
    for blob in lies.blobs.values_mut() {
        blob[100] ^= 1;
    }
    let mirror = ScriptedServer::start(move |request| lies.answer(request)).await;
    let server = ScriptedServer::start(move |request| shelf.answer(request)).await;
    let context = context(server.address(), &[(mirror.url(), false)]);
    let attributes = at(&format!("{}/m", server.address()));
    let (model, manifest) = resolve_with(&context, &attributes, &Credentials::none()).await.unwrap();
    let error = files(&model, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(blobs(&server.requests()), 0);
    // The next attempt, with a model that was opened anew, as a publish does it.
    let (model, manifest) = resolve_with(&context, &attributes, &Credentials::none()).await.unwrap();
    assert!(files(&model, &manifest).await.unwrap()["model.bin"] == weights);
}

/// A mirror that the operator has said to be as good as the registry, in a network that the registry is not in.
#[tokio::test(flavor = "multi_thread")]
async fn a_resolving_mirror_stands_for_a_registry_that_is_away() {
    let Some(mirror) = Registry::start(RegistryKind::Crane).await else { return };
    mirror.push("m", "v1", Kind::ORAS, &[(OCTETS, json!({TITLE: "model.bin"}), b"weights")]).await;
    let away = Proxy::start(mirror.address()).await;
    away.refuse(true).await;
    let attributes = at(&format!("{}/m:v1", away.address()));
    let url = format!("http://{}", mirror.address());
    let believed = context(away.address(), &[(url.clone(), true)]);
    let (model, manifest) = resolve_with(&believed, &attributes, &Credentials::none()).await.unwrap();
    model.sources()[0].authorize(&manifest.entries()[0]).await.unwrap();
    assert_eq!(files(&model, &manifest).await.unwrap()["model.bin"], b"weights");
    let error = resolve_with(&context(away.address(), &[(url, false)]), &attributes, &Credentials::none()).await;
    assert_says(&error.map(drop).unwrap_err(), ErrorKind::Unavailable, &["can't connect"]);
}

/// A mirror of this machine may be configured where pods may not reach this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_may_be_on_this_machine_and_a_registry_not() {
    let shelf = Shelf::new(&[("model.bin", b"weights")]);
    let mirror = ScriptedServer::start(move |request| shelf.answer(request)).await;
    let context = Context::new(Policy::default()).unwrap();
    let resolving: RegistryMirror = format!("*={}", mirror.url()).parse().unwrap();
    let context = context.with_registry_mirrors(vec![resolving.resolving()], &CaCertificates::default()).unwrap();
    let mut attributes = at("registry.modelmount.invalid/m");
    attributes.remove("plainHttp");
    let (model, manifest) = resolve_with(&context, &attributes, &Credentials::none()).await.unwrap();
    assert_eq!(files(&model, &manifest).await.unwrap()["model.bin"], b"weights");
    // The same address as a registry, and as the place that the mirror sends its callers to by another name.
    let mut direct = at(&format!("{}/m", mirror.address()));
    direct.remove("plainHttp");
    let plain = Context::new(Policy::default()).unwrap();
    let error = resolve_with(&plain, &direct, &Credentials::none()).await.map(drop).unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["--allow-address"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_does_not_lead_into_this_machine() {
    let inside = ScriptedServer::start(|_| Response::new(200).body("secret")).await;
    let place = format!("http://localhost:{}/", inside.address().port());
    let mirror = ScriptedServer::start(move |_| Response::new(307).header("location", place.clone())).await;
    let context = Context::new(Policy::default()).unwrap();
    let resolving: RegistryMirror = format!("*={}", mirror.url()).parse().unwrap();
    let context = context.with_registry_mirrors(vec![resolving.resolving()], &CaCertificates::default()).unwrap();
    let mut attributes = at("registry.modelmount.invalid/m");
    attributes.remove("plainHttp");
    resolve_with(&context, &attributes, &Credentials::none()).await.map(drop).unwrap_err();
    assert_eq!(mirror.requests().len(), 1);
    assert!(inside.requests().is_empty());
}
