//! The ModelScope source against an emulator of the hub, which the hub's own client is tried on as well.

use async_trait::async_trait;
use modelmount::{Credentials, Digest};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::hub::{Access, READER};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{ModelScopeHub, Proxy};

use crate::node::{Node, assert_snapshot, attributes, limits, resolve};

mod official;
mod refusals;

const REPOSITORY: &str = "acme/Tiny-1.5";

fn token(token: &str) -> Credentials {
    [("MODELSCOPE_API_TOKEN", token)].into_iter().collect()
}

fn put(hub: &ModelScopeHub, branch: &str, files: &Files) {
    let files = files.iter().map(|(path, bytes)| (path.clone(), bytes.clone().into()));
    hub.put_all(REPOSITORY, branch, files);
}

/// A hub with one model, on `master` and `v1`.
async fn hub(files: &Files) -> ModelScopeHub {
    let hub = ModelScopeHub::start().await;
    put(&hub, "v1", files);
    put(&hub, "master", files);
    hub
}

fn at(hub: &ModelScopeHub, rest: &str) -> Attributes {
    attributes(&format!("modelscope://{REPOSITORY}{rest}"), &hub.url())
}

struct HubFixture {
    hub: ModelScopeHub,
    private: bool,
    unreachable: Proxy,
}

impl HubFixture {
    async fn start(private: bool) -> Self {
        let hub = ModelScopeHub::start().await;
        hub.put(REPOSITORY, "README.md", "# A model");
        if private {
            hub.set_access(REPOSITORY, Access::Private);
        }
        let unreachable = Proxy::start(hub.address()).await;
        unreachable.refuse(true).await;
        Self { hub, private, unreachable }
    }
}

#[async_trait]
impl Fixture for HubFixture {
    fn attributes(&self, path: &str) -> Attributes {
        at(&self.hub, &format!("/{path}"))
    }

    fn credentials(&self) -> Credentials {
        if self.private { token(READER) } else { Credentials::none() }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.hub.put(REPOSITORY, path, bytes);
    }

    fn keeps_versions(&self) -> bool {
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        self.private.then(|| token("ms-no-such-token"))
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(attributes(&format!("modelscope://{REPOSITORY}/conformance/model"), &self.unreachable.url()))
    }

    fn missing_container(&self) -> Option<Attributes> {
        Some(attributes("modelscope://no-such-owner/no-such-model", &self.hub.url()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_model_conforms() {
    conformance(&HubFixture::start(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_model_conforms() {
    conformance(&HubFixture::start(true).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_shows_the_commit_and_each_files_identity() {
    let files = model::small(1);
    let hub = hub(&files).await;
    let (_, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    // The hub tells the beginning of it, and the whole with the files that it changed.
    assert_eq!(manifest.revision(), Some(hub.commit(REPOSITORY, "master").as_str()));
    for entry in manifest.entries() {
        let bytes = &files[entry.path.as_str()];
        assert_eq!((entry.size, entry.digest), (Some(bytes.len() as u64), Some(Digest::of(bytes))), "{entry:?}");
    }
    assert!(hub.store_requests().is_empty(), "nothing is downloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_uri() {
    let files = model::small(1);
    let hub = hub(&files).await;
    hub.put(REPOSITORY, "new", "since then");
    let v1 = hub.commit(REPOSITORY, "v1");
    let all: Vec<&str> = files.keys().map(String::as_str).collect();
    let tokenizer = ["deep/er/merges.txt", "vocab.txt"];
    for (rest, revision, expected) in [
        (":v1", "", &all[..]),
        ("@v1", "", &all),
        ("", "v1", &all),
        (&format!(":{v1}"), "", &all),
        (":v1/tokenizer", "", &tokenizer),
        ("/tokenizer/", "", &tokenizer),
        ("/tokenizer/deep/er/merges.txt", "", &["merges.txt"]),
        ("/new", "", &["new"]),
        ("@v1/model.safetensors", "", &["model.safetensors"]),
    ] {
        let mut attributes = at(&hub, rest);
        if !revision.is_empty() {
            attributes.insert("revision".into(), revision.into());
        }
        let (_, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
        let paths: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, expected, "{rest} {revision}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_model_arrives_and_the_token_stays_at_the_hub() {
    let files = model::small(1);
    let hub = hub(&files).await;
    hub.set_access(REPOSITORY, Access::Private);
    let (source, manifest) = resolve(&at(&hub, ""), &token(READER)).await.unwrap();
    let node = Node::new(limits(4));
    let snapshot = node.fetch(&source, &manifest).await.unwrap();
    assert_snapshot(&snapshot, &files);
    for request in hub.requests() {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {READER}").as_str()));
        assert_eq!(request.header("cookie"), Some(format!("m_session_id={READER}").as_str()));
    }
    // In parts, at another origin: its server refuses tokens, too.
    let store = hub.store_requests();
    assert!(store.len() > 1 && store.iter().all(|request| request.range().is_some()), "{store:?}");
    let secret = |name| store.iter().any(|request| request.header(name).is_some());
    assert!(!secret("authorization") && !secret("cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_costs_what_it_has_changed() {
    let mut files = model::small(1);
    let hub = hub(&files).await;
    let node = Node::new(limits(4));
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    node.fetch(&source, &manifest).await.unwrap();
    let downloads = |hub: &ModelScopeHub| hub.requests().iter().filter(|r| r.target.contains("/repo?")).count();
    let before = downloads(&hub);

    hub.put(REPOSITORY, "config.json", "{}");
    files.insert("config.json".into(), b"{}".to_vec());
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    assert_eq!(downloads(&hub), before + 1);
}

/// The hub cuts a listing at 3,000 entries and does not say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_the_hub_cuts_is_whole_all_the_same() {
    let mut files = model::many(1, 3500);
    files.extend(model::small(1));
    let hub = hub(&files).await;
    let (_, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    let paths: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, files.keys().map(String::as_str).collect::<Vec<_>>());
}
