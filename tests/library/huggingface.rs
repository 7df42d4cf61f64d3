//! The Hugging Face source against an emulator of the hub, which the hub's own client is tried on as well.

use async_trait::async_trait;
use modelmount::{Context, Credentials, Digest, ErrorKind, ModelRequest, Policy};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::hub::{Access, READER};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{HuggingFaceHub, Proxy};

use crate::node::{Node, assert_snapshot, attributes, authorize, limits, read, resolve};

mod official;
mod refusals;
mod scripted;

const REPOSITORY: &str = "acme/Tiny-1.5";

fn token(token: &str) -> Credentials {
    [("HF_TOKEN", token)].into_iter().collect()
}

fn files_of(files: Files) -> impl Iterator<Item = (String, bytes::Bytes)> {
    files.into_iter().map(|(path, bytes)| (path, bytes.into()))
}

/// A hub with one model, on `main` and as the tag `v1`.
async fn hub(files: &Files) -> HuggingFaceHub {
    let hub = HuggingFaceHub::start().await;
    hub.put_all(REPOSITORY, "main", files_of(files.clone()));
    hub.tag(REPOSITORY, "v1");
    hub
}

fn at(hub: &HuggingFaceHub, rest: &str) -> Attributes {
    attributes(&format!("hf://{REPOSITORY}{rest}"), &hub.url())
}

struct HubFixture {
    hub: HuggingFaceHub,
    repository: &'static str,
    private: bool,
    unreachable: Proxy,
}

impl HubFixture {
    async fn start(repository: &'static str, private: bool) -> Self {
        let hub = HuggingFaceHub::start().await;
        hub.put(repository, "README.md", "# A model");
        if private {
            hub.set_access(repository, Access::Private);
        }
        let unreachable = Proxy::start(hub.address()).await;
        unreachable.refuse(true).await;
        Self { hub, repository, private, unreachable }
    }
}

#[async_trait]
impl Fixture for HubFixture {
    fn attributes(&self, path: &str) -> Attributes {
        attributes(&format!("hf://{}/{path}", self.repository), &self.hub.url())
    }

    fn credentials(&self) -> Credentials {
        if self.private { token(READER) } else { Credentials::none() }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.hub.put(self.repository, path, bytes);
    }

    fn keeps_versions(&self) -> bool {
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        self.private.then(|| token("hf_no_such_token"))
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(attributes(&format!("hf://{}/conformance/model", self.repository), &self.unreachable.url()))
    }

    fn missing_container(&self) -> Option<Attributes> {
        // Without a token, the hub does not tell what is not there from what is private.
        self.private.then(|| attributes("hf://no-such-owner/no-such-model", &self.hub.url()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_model_conforms() {
    conformance(&HubFixture::start(REPOSITORY, false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_model_conforms() {
    conformance(&HubFixture::start(REPOSITORY, true).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_conforms() {
    conformance(&HubFixture::start("datasets/acme/Words", false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_shows_the_commit_and_each_files_identity() {
    let files = model::small(1);
    let hub = hub(&files).await;
    let (_, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    assert_eq!(manifest.revision(), Some(hub.commit(REPOSITORY, "main").as_str()));
    assert_eq!(manifest.known_bytes(), files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    for entry in manifest.entries() {
        let lfs = entry.path.as_str() == "model.safetensors";
        assert_eq!(entry.digest, lfs.then(|| Digest::of(&files["model.safetensors"])), "{entry:?}");
        assert!(entry.validator.as_deref().unwrap().starts_with(if lfs { "sha256 " } else { "git " }), "{entry:?}");
    }
    assert!(hub.store_requests().is_empty(), "nothing is downloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_uri() {
    let files = model::small(1);
    let hub = hub(&files).await;
    let first = hub.commit(REPOSITORY, "main");
    hub.tag(REPOSITORY, "refs/pr/1");
    hub.tag(REPOSITORY, "feature/x");
    hub.put(REPOSITORY, "new", "since then");
    let all: Vec<&str> = files.keys().map(String::as_str).collect();
    let with_new: Vec<&str> =
        ["config.json", "empty", "model.safetensors", "new"].into_iter().chain(all[3..].iter().copied()).collect();
    let tokenizer = ["deep/er/merges.txt", "vocab.txt"];
    for (rest, revision, expected) in [
        ("", "", &with_new[..]),
        ("@main", "", &with_new),
        ("@v1", "", &all),
        (":v1", "", &all),
        ("", "v1", &all),
        ("@v1", "v1", &all),
        ("@refs/pr/1", "", &all),
        ("@feature%2Fx", "", &all),
        ("", "feature/x", &all),
        (&format!("@{first}"), "", &all),
        (&format!("@{}", &first[..8]), "", &all),
        ("@v1/tokenizer", "", &tokenizer),
        ("@refs/pr/1/tokenizer/", "", &tokenizer),
        ("/tokenizer", "v1", &tokenizer),
        ("/tokenizer/deep/er/merges.txt", "", &["merges.txt"]),
        ("@v1/model.safetensors", "", &["model.safetensors"]),
    ] {
        let mut attributes = at(&hub, rest);
        if !revision.is_empty() {
            attributes.insert("revision".into(), revision.into());
        }
        let (_, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
        let paths: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, expected, "{rest} {revision}");
        let commit = if expected == with_new || rest.starts_with("/tokenizer/deep") { "main" } else { "v1" };
        assert_eq!(manifest.revision(), Some(hub.commit(REPOSITORY, commit).as_str()), "{rest} {revision}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_pages_is_whole() {
    let files = model::many(1, 250);
    let hub = hub(&files).await;
    hub.set_page(40);
    let (_, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    let paths: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, files.keys().map(String::as_str).collect::<Vec<_>>());
    let pages = hub.requests().iter().filter(|request| request.target.contains("/tree/")).count();
    assert_eq!(pages, 7, "253 entries with directories");
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
    let expected = format!("Bearer {READER}");
    assert!(hub.requests().iter().all(|request| request.header("authorization") == Some(&expected)));
    // In parts, at another origin: its server refuses tokens, too.
    let store = hub.store_requests();
    assert!(store.len() > 1 && store.iter().all(|request| request.range().is_some()), "{store:?}");
    assert!(store.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_costs_what_it_has_changed() {
    let mut files = model::small(1);
    let hub = hub(&files).await;
    let node = Node::new(limits(4));
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    node.fetch(&source, &manifest).await.unwrap();
    let downloads = |hub: &HuggingFaceHub| hub.requests().iter().filter(|r| r.target.contains("/resolve/")).count();
    let before = downloads(&hub);

    hub.put(REPOSITORY, "config.json", "{}");
    files.insert("config.json".into(), b"{}".to_vec());
    let (source, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &files);
    assert_eq!(downloads(&hub), before + 1);
}

/// A download goes on with the newest token that its volume was given, by a source that has listed nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_takes_over_reads_what_another_has_listed() {
    let files = model::small(1);
    let hub = hub(&files).await;
    let (_, manifest) = resolve(&at(&hub, ""), &Credentials::none()).await.unwrap();
    hub.put(REPOSITORY, "config.json", "another");
    let request = ModelRequest::from_attributes(&at(&hub, "")).unwrap();
    let fresh = || request.open(&token(READER), &Context::new(Policy::unrestricted()).unwrap()).unwrap();
    for entry in manifest.entries() {
        let (authorized, bytes) = (authorize(&fresh(), entry).await, read(&fresh(), entry).await);
        if entry.path.as_str() == "config.json" {
            assert_eq!(authorized.unwrap_err().kind(), ErrorKind::Changed);
            assert_eq!(bytes.unwrap_err().kind(), ErrorKind::Changed);
        } else {
            authorized.unwrap();
            assert_eq!(bytes.unwrap(), files[entry.path.as_str()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repository_is_found() {
    let files = model::small(1);
    let hub = hub(&files).await;
    hub.set_access(REPOSITORY, Access::Private);
    hub.rename(REPOSITORY, "acme/renamed");
    for (rest, expected) in [
        ("", &files),
        ("/tokenizer/vocab.txt", &[("vocab.txt".to_owned(), files["tokenizer/vocab.txt"].clone())].into()),
    ] {
        let (source, manifest) = resolve(&at(&hub, rest), &token(READER)).await.unwrap();
        authorize(&source, &manifest.entries()[0]).await.unwrap();
        assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_among_the_files() {
    let hub = hub(&model::small(1)).await;
    let mut attributes = at(&hub, "@v1");
    attributes.insert("allowPatterns".into(), "*.safetensors,*.json".into());
    let (_, manifest) = resolve(&attributes, &Credentials::none()).await.unwrap();
    let paths: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["config.json", "model.safetensors"]);
}
