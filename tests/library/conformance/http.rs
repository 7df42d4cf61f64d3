//! Web servers: nginx, in the ways that it can be set up.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount::model::MODEL_URI;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::{Nginx, Proxy};
use tempfile::TempDir;

struct HttpFixture {
    nginx: Nginx,
    /// What nginx's special paths do: see [`modelmount_test_support::http`].
    prefix: &'static str,
    unreachable: Proxy,
    _root: TempDir,
}

impl HttpFixture {
    async fn start(prefix: &'static str) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let nginx = Nginx::start(root.path()).await?;
        let unreachable = Proxy::start(nginx.address()).await;
        unreachable.refuse(true).await;
        Some(Self { nginx, prefix, unreachable, _root: root })
    }

    fn url(&self, origin: &str, path: &str) -> Attributes {
        // A URL's path is encoded, unlike an object's key.
        let mut url = reqwest::Url::parse(origin).unwrap();
        url.path_segments_mut().unwrap().clear().extend(format!("{}{path}", self.prefix).split('/'));
        [(MODEL_URI.to_owned(), url.as_str().replace("%2F", "/"))].into()
    }
}

#[async_trait]
impl Fixture for HttpFixture {
    fn attributes(&self, path: &str) -> Attributes {
        self.url(&self.nginx.url(), path)
    }

    fn credentials(&self) -> Credentials {
        if self.prefix == "private/" { basic(modelmount_test_support::http::PASSWORD) } else { Credentials::none() }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.nginx.put(path, &bytes);
    }

    /// A web server has no listing that a program could read.
    fn holds_directories(&self) -> bool {
        false
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        (self.prefix == "private/").then(|| basic("no-such-password"))
    }

    fn public_credential_names(&self) -> &[&str] {
        &["username"]
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(self.url(&self.unreachable.url(), "conformance/model"))
    }
}

fn basic(password: &str) -> Credentials {
    [("username", modelmount_test_support::http::USER), ("password", password)].into_iter().collect()
}

async fn http(prefix: &'static str) {
    let Some(fixture) = HttpFixture::start(prefix).await else { return };
    conformance(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_on_nginx() {
    http("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_with_basic_authentication() {
    http("private/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_without_ranges() {
    http("noranges/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_without_validators() {
    http("novalidator/").await;
}
