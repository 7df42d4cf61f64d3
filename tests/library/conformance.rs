//! Every source passes the suite of `tests/support`, over servers that this project did not write.

use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use modelmount::model::MODEL_URI;
use modelmount::{Credentials, Policy};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::{Nginx, Proxy, S3Kind};
use tempfile::TempDir;

use crate::node::{BUCKET, Bucket, attributes, keys};

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

struct FileFixture(TempDir);

#[async_trait]
impl Fixture for FileFixture {
    fn attributes(&self, path: &str) -> Attributes {
        [(MODEL_URI.to_owned(), format!("file://{}/{path}", self.0.path().display()))].into()
    }

    fn credentials(&self) -> Credentials {
        Credentials::none()
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        let target = self.0.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let staged = self.0.path().join("staged");
        std::fs::write(&staged, bytes).unwrap();
        let staged_file = std::fs::File::options().write(true).open(&staged).unwrap();
        staged_file.set_modified(SystemTime::now()).unwrap();
        std::fs::rename(&staged, target).unwrap();
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        std::fs::create_dir_all(self.0.path().join(path)).unwrap();
        true
    }

    fn policy(&self) -> Policy {
        Policy::new(Vec::new(), vec![self.0.path().to_owned()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_in_a_directory() {
    conformance(&FileFixture(tempfile::tempdir().unwrap())).await;
}

/// A file that is written to in place has a new version, although it is the same file.
#[tokio::test(flavor = "multi_thread")]
async fn file_written_in_place() {
    struct InPlace(FileFixture);

    #[async_trait]
    impl Fixture for InPlace {
        fn attributes(&self, path: &str) -> Attributes {
            self.0.attributes(path)
        }

        fn credentials(&self) -> Credentials {
            Credentials::none()
        }

        async fn put(&self, path: &str, bytes: Vec<u8>) {
            let target: &Path = &self.0.0.path().join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
        }

        fn policy(&self) -> Policy {
            self.0.policy()
        }
    }

    conformance(&InPlace(FileFixture(tempfile::tempdir().unwrap()))).await;
}
