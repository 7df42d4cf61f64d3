//! A real Hadoop.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount_test_support::Proxy;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::hdfs::OWNER;

use crate::hdfs::{Directory, uri, user, with_certificate};

struct HdfsFixture {
    directory: Directory,
    /// With TLS and a client certificate.
    tls: bool,
    unreachable: Proxy,
}

impl HdfsFixture {
    async fn start(tls: bool) -> Option<Self> {
        let directory = Directory::new().await?;
        let unreachable = Proxy::start(directory.hdfs.url().replace("http://", "").parse().unwrap()).await;
        unreachable.refuse(true).await;
        Some(Self { directory, tls, unreachable })
    }
}

#[async_trait]
impl Fixture for HdfsFixture {
    fn attributes(&self, path: &str) -> Attributes {
        if self.tls { self.directory.attributes_with_tls(path) } else { self.directory.attributes(path) }
    }

    fn credentials(&self) -> Credentials {
        if self.tls { with_certificate(&self.directory.hdfs, OWNER) } else { user(OWNER) }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.directory.put(path, &bytes).await;
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        self.directory.hdfs.make_directory(&format!("{}/{path}", self.directory.path)).await;
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        // With TLS, who has no certificates at all is not refused, but finds a server that he can't trust.
        (!self.tls).then(|| user("mallory"))
    }

    fn public_credential_names(&self) -> &[&str] {
        &["HADOOP_USER_NAME"]
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(uri(&format!("{}/m", self.unreachable.url().replace("http", "webhdfs"))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_conforms() {
    let Some(fixture) = HdfsFixture::start(false).await else { return };
    conformance(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs_conforms_with_tls() {
    let Some(fixture) = HdfsFixture::start(true).await else { return };
    conformance(&fixture).await;
}
