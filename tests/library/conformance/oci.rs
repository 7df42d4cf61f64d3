//! The suite that every source passes. A registry holds no directories: each file, and each directory, is an artifact of
//! its own, pushed anew whenever something in it changes.

use std::sync::Mutex;

use async_trait::async_trait;
use modelmount::{Credentials, Digest};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::model::Files;
use modelmount_test_support::registry::{Access, Kind, credentials};
use modelmount_test_support::{Proxy, Registry, RegistryKind};
use serde_json::json;

use crate::oci::{OCTETS, TITLE, at};

struct OciFixture {
    registry: Registry,
    access: Access,
    files: Mutex<Files>,
    /// Refuses connections; holds the port, so that nobody else listens there.
    unreachable: Proxy,
}

impl OciFixture {
    async fn new(registry: Registry, access: Access) -> Self {
        let unreachable = Proxy::start(registry.address()).await;
        unreachable.refuse(true).await;
        Self { registry, access, files: Mutex::default(), unreachable }
    }

    /// The repository of a path: its name where that can be one.
    fn repository(path: &str) -> String {
        let path = path.trim_end_matches('/');
        let plain = path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/-.".contains(&b));
        if plain { path.to_owned() } else { format!("odd/{}", &Digest::of(path).hex()[..32]) }
    }
}

#[async_trait]
impl Fixture for OciFixture {
    fn attributes(&self, path: &str) -> Attributes {
        at(&self.registry.reference(&Self::repository(path)))
    }

    fn credentials(&self) -> Credentials {
        self.registry.credentials()
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes);
        let ends = path.match_indices('/').map(|(end, _)| end).skip(1).chain([path.len()]);
        for artifact in ends.map(|end| &path[..end]) {
            let files = self.files.lock().unwrap().clone();
            let inside = files.iter().filter_map(|(name, bytes)| {
                let base = name.rsplit('/').next().filter(|_| name == artifact);
                let title = base.or_else(|| name.strip_prefix(artifact)?.strip_prefix('/'))?;
                Some((OCTETS, json!({TITLE: title}), bytes.as_slice()))
            });
            let layers: Vec<_> = inside.collect();
            self.registry.push(&Self::repository(artifact), "latest", Kind::ORAS, &layers).await;
        }
    }

    fn keeps_versions(&self) -> bool {
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        (self.access != Access::Anonymous).then(|| credentials("no-such-password"))
    }

    fn public_credential_names(&self) -> &[&str] {
        &["username"]
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(at(&format!("{}/conformance/model", self.unreachable.address())))
    }
}

async fn distribution(access: Access) {
    let Some(registry) = Registry::start_with(access).await else { return };
    conformance(&OciFixture::new(registry, access).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_on_distribution() {
    distribution(Access::Anonymous).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_with_a_password() {
    distribution(Access::Password).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_with_tokens() {
    distribution(Access::Token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_on_crane() {
    let Some(registry) = Registry::start(RegistryKind::Crane).await else { return };
    conformance(&OciFixture::new(registry, Access::Anonymous).await).await;
}
