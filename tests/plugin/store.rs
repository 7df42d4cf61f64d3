//! An S3 server that holds models, behind a proxy that counts and slows down.

use modelmount_test_support::{Proxy, S3Kind, S3Server};

use crate::pod::Volume;

const BUCKET: &str = "models";

/// versitygw and a proxy in front of it.
pub(crate) struct Store {
    pub(crate) server: S3Server,
    pub(crate) proxy: Proxy,
}

impl Store {
    /// `None`, reported as a skip, when the server is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let server = S3Server::start(S3Kind::Versitygw).await?;
        server.create_bucket(BUCKET).await;
        let proxy = Proxy::start(server.address()).await;
        Some(Self { server, proxy })
    }

    /// Puts a model below `path`, which ends in a slash.
    pub(crate) async fn put_model(&self, path: &str, files: &modelmount_test_support::model::Files) {
        self.server.put_model(BUCKET, path, files).await;
    }

    /// Puts an object of `size` pseudo-random bytes.
    pub(crate) async fn put_pattern(&self, key: &str, pattern: modelmount_test_support::Pattern, size: u64) {
        self.server.put_pattern(BUCKET, key, pattern, size).await;
    }

    /// The model at `path`, through the proxy, with credentials that are right.
    pub(crate) fn volume(&self, path: &str) -> Volume {
        Volume::of(&format!("s3://{BUCKET}/{path}"))
            .with("endpoint", &self.proxy.url())
            .secret("AWS_ACCESS_KEY_ID", self.server.access_key())
            .secret("AWS_SECRET_ACCESS_KEY", self.server.secret_key())
    }

    /// Ends the server, for good.
    pub(crate) fn stop(&self) {
        self.server.process().unwrap().kill();
    }
}
