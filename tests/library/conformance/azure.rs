//! Azure Blob Storage over Azurite, under two of its URIs, and Azure Files over an emulator.

use async_trait::async_trait;
use modelmount::Credentials;
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use modelmount_test_support::{Azurite, FileShares, Proxy};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::azure::{CONTAINER, attributes, key};

/// What a URL's path holds as it is.
const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');

/// How a URI names a blob.
#[derive(Clone, Copy)]
enum Form {
    /// `az://container/path`
    Short,
    /// `https://account.blob.core.windows.net/container/path`
    Url,
}

struct BlobFixture {
    server: Azurite,
    form: Form,
    unreachable: Proxy,
}

impl BlobFixture {
    fn named(&self, container: &str, path: &str, endpoint: &str) -> Attributes {
        attributes(&self.uri(container, path), endpoint)
    }

    fn uri(&self, container: &str, path: &str) -> String {
        match self.form {
            Form::Short => format!("az://{container}/{path}"),
            Form::Url => {
                let path = utf8_percent_encode(path, &KEPT);
                format!("https://{}.blob.core.windows.net/{container}/{path}", self.server.account())
            }
        }
    }
}

#[async_trait]
impl Fixture for BlobFixture {
    fn attributes(&self, path: &str) -> Attributes {
        self.named(CONTAINER, path, &self.server.endpoint())
    }

    fn credentials(&self) -> Credentials {
        key(&self.server.key())
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.server.put(CONTAINER, path, bytes).await;
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        self.server.put(CONTAINER, &format!("{path}/"), Vec::new()).await;
        true
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        Some(key("bm8tc3VjaC1hY2NvdW50LWtleQ=="))
    }

    fn unreachable(&self) -> Option<Attributes> {
        let endpoint = self.server.endpoint_at(&self.unreachable.url());
        Some(self.named(CONTAINER, "conformance/model", &endpoint))
    }

    fn missing_container(&self) -> Option<Attributes> {
        let named = self.named("no-such-container", "model", &self.server.endpoint());
        // The suite looks for the URI's authority in the error: in a URL that is the account.
        matches!(self.form, Form::Short).then_some(named)
    }
}

async fn blobs(form: Form) {
    let Some(server) = Azurite::start().await else { return };
    server.create_container(CONTAINER).await;
    let unreachable = Proxy::start(server.address()).await;
    unreachable.refuse(true).await;
    conformance(&BlobFixture { server, form, unreachable }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blobs_on_azurite() {
    blobs(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blobs_by_url_on_azurite() {
    blobs(Form::Url).await;
}

struct FilesFixture {
    server: FileShares,
    unreachable: Proxy,
}

impl FilesFixture {
    fn named(&self, share: &str, path: &str, endpoint: &str) -> Attributes {
        attributes(&format!("https://{}.file.core.windows.net/{share}/{path}", self.server.account()), endpoint)
    }
}

#[async_trait]
impl Fixture for FilesFixture {
    fn attributes(&self, path: &str) -> Attributes {
        self.named(CONTAINER, path, &self.server.endpoint())
    }

    fn credentials(&self) -> Credentials {
        key(&self.server.key())
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.server.put(CONTAINER, path, bytes);
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        self.server.make_directory(CONTAINER, path);
        true
    }

    /// Names on a share are those of Windows: see the module `azure` for odd ones that they may have.
    fn odd_names(&self) -> bool {
        false
    }

    fn wrong_credentials(&self) -> Option<Credentials> {
        Some(key("bm8tc3VjaC1hY2NvdW50LWtleQ=="))
    }

    fn unreachable(&self) -> Option<Attributes> {
        Some(self.named(CONTAINER, "conformance/model", &self.unreachable.url()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_files_on_an_emulator() {
    let server = FileShares::start().await;
    server.create_share(CONTAINER);
    let unreachable = Proxy::start(server.address()).await;
    unreachable.refuse(true).await;
    conformance(&FilesFixture { server, unreachable }).await;
}
