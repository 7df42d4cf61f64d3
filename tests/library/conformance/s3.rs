//! S3 over three servers.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::{Proxy, S3Kind};

use crate::bucket::{BUCKET, Bucket, attributes, keys};

struct S3Fixture {
    bucket: Bucket,
    /// Refuses connections; holds the port, so that nobody else listens there.
    unreachable: Proxy,
}

impl S3Fixture {
    async fn start(kind: S3Kind) -> Option<Self> {
        let bucket = Bucket::start(kind).await?;
        let unreachable = Proxy::start(bucket.server.address()).await;
        unreachable.refuse(true).await;
        Some(Self { bucket, unreachable })
    }
}

#[async_trait]
impl Fixture for S3Fixture {
    fn attributes(&self, path: &str) -> Attributes {
        self.bucket.attributes(path)
    }

    fn credentials(&self) -> Credentials {
        self.bucket.credentials()
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.bucket.put(path, &bytes).await;
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        // rclone makes the object `dir` of the marker `dir/`: an empty file, which nothing tells from a real one. s3s-fs
        // fails (500) when it is asked for the object `dir` where there is a marker `dir/`.
        if self.bucket.server.kind() != S3Kind::Versitygw {
            return false;
        }
        self.bucket.put(&format!("{path}/"), b"").await;
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        Some(keys(self.bucket.server.access_key(), "no-such-secret-key"))
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(Bucket::attributes_at(&self.unreachable.url(), "conformance/model"))
    }

    fn missing_container(&self) -> Option<Attributes> {
        Some(attributes(&format!("s3://no-such-{BUCKET}/model"), &self.bucket.server.endpoint()))
    }
}

async fn s3(kind: S3Kind) {
    let Some(fixture) = S3Fixture::start(kind).await else { return };
    conformance(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_on_versitygw() {
    s3(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_on_rclone() {
    s3(S3Kind::Rclone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_on_s3s_fs() {
    s3(S3Kind::S3sFs).await;
}
