//! Git's own server.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::git::Options;
use modelmount_test_support::{GitServer, Proxy};

use crate::git::{at, credentials, password};

struct GitFixture {
    server: GitServer,
    options: Options,
    /// Files of this many bytes and more are kept by Git LFS.
    lfs_from: usize,
    unreachable: Proxy,
}

impl GitFixture {
    async fn start(options: Options, lfs_from: usize) -> Option<Self> {
        let server = GitServer::start(options).await?;
        // Branches begin with a commit.
        server.put("README.md", b"models");
        let unreachable = Proxy::start(server.address()).await;
        unreachable.refuse(true).await;
        Some(Self { server, options, lfs_from, unreachable })
    }
}

#[async_trait]
impl Fixture for GitFixture {
    fn attributes(&self, path: &str) -> Attributes {
        at(&self.server.url(), "main", path)
    }

    fn credentials(&self) -> Credentials {
        if self.options.private { credentials() } else { Credentials::none() }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        if bytes.len() >= self.lfs_from { self.server.put_lfs(path, &bytes) } else { self.server.put(path, &bytes) }
    }

    /// A blob that is left out of a fetch is of unknown size, unless the server can be asked for it.
    fn knows_sizes(&self) -> bool {
        self.options.sizes || !self.options.filter
    }

    /// Contents are named by their hashes.
    fn keeps_versions(&self) -> bool {
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        self.options.private.then(|| password("no-such-password"))
    }

    fn public_credential_names(&self) -> &[&str] {
        &["GIT_USERNAME"]
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(at(&self.unreachable.url(), "main", "model"))
    }
}

async fn git(options: Options, lfs_from: usize) {
    let Some(fixture) = GitFixture::start(options, lfs_from).await else { return };
    conformance(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_with_filters() {
    git(Options::default(), usize::MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_with_sizes_and_sha256() {
    git(Options { sizes: true, format: "sha256", ..Options::default() }, usize::MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_without_filters() {
    // Nothing large: all of a commit is fetched to list it.
    git(Options { filter: false, ..Options::default() }, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_with_lfs_and_a_password() {
    git(Options { private: true, ..Options::default() }, 1).await;
}
