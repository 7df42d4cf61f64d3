//! A bucket on a real S3 server.

use modelmount::{Credentials, Error, Manifest, Model};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::model::Files;
use modelmount_test_support::{S3Kind, S3Server};

pub(crate) use crate::node::attributes;
use crate::node::resolve;

/// The bucket that each test's server has.
pub(crate) const BUCKET: &str = "models";

/// An S3 server with one bucket.
pub(crate) struct Bucket {
    pub(crate) server: S3Server,
}

impl Bucket {
    /// `None`, reported as a skip, when the server is not installed.
    pub(crate) async fn start(kind: S3Kind) -> Option<Self> {
        let server = S3Server::start(kind).await?;
        server.create_bucket(BUCKET).await;
        Some(Self { server })
    }

    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) {
        self.server.put(BUCKET, key, bytes.to_vec()).await;
    }

    /// Puts a model below `prefix`, without a slash at its end.
    pub(crate) async fn put_model(&self, prefix: &str, files: &Files) {
        self.server.put_model(BUCKET, &format!("{prefix}/"), files).await;
    }

    pub(crate) fn attributes(&self, path: &str) -> Attributes {
        Self::attributes_at(&self.server.endpoint(), path)
    }

    /// As [`Self::attributes`], through a proxy.
    pub(crate) fn attributes_at(endpoint: &str, path: &str) -> Attributes {
        attributes(&format!("s3://{BUCKET}/{path}"), endpoint)
    }

    pub(crate) fn credentials(&self) -> Credentials {
        keys(self.server.access_key(), self.server.secret_key())
    }

    pub(crate) async fn resolve(&self, path: &str) -> Result<(Model, Manifest), Error> {
        resolve(&self.attributes(path), &self.credentials()).await
    }

    pub(crate) async fn resolve_at(&self, endpoint: &str, path: &str) -> (Model, Manifest) {
        resolve(&Self::attributes_at(endpoint, path), &self.credentials()).await.unwrap()
    }
}

pub(crate) fn keys(access: &str, secret: &str) -> Credentials {
    [("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)].into_iter().collect()
}
