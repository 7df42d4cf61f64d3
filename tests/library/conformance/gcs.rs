//! Google Cloud Storage over fake-gcs-server.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::gcs::ServiceAccount;
use modelmount_test_support::{GcsServer, Proxy};

use crate::gcs::{BUCKET, attributes, file};

struct GcsFixture {
    server: GcsServer,
    stranger: ServiceAccount,
    unreachable: Proxy,
}

#[async_trait]
impl Fixture for GcsFixture {
    fn attributes(&self, path: &str) -> Attributes {
        attributes(&format!("gs://{BUCKET}/{path}"), &self.server.endpoint())
    }

    fn credentials(&self) -> Credentials {
        file(&self.server.account().json())
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.server.put(BUCKET, path, bytes).await;
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        self.server.put(BUCKET, &format!("{path}/"), Vec::new()).await;
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        Some(file(&self.stranger.json()))
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(attributes(&format!("gs://{BUCKET}/conformance/model"), &self.unreachable.url()))
    }

    fn missing_container(&self) -> Option<Attributes> {
        Some(attributes("gs://no-such-bucket/model", &self.server.endpoint()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_on_fake_gcs_server() {
    let Some(server) = GcsServer::start().await else { return };
    let Some(stranger) = ServiceAccount::new() else { return };
    server.create_bucket(BUCKET).await;
    let unreachable = Proxy::start(server.address()).await;
    unreachable.refuse(true).await;
    conformance(&GcsFixture { server, stranger, unreachable }).await;
}
