//! `modelmount resolve`, for each source: files, sizes, what identifies their content, and the pinned revision, without
//! downloading them.

use std::net::SocketAddr;

use modelmount::Digest;
use modelmount_test_support::git::Options;
use modelmount_test_support::hdfs::OWNER;
use modelmount_test_support::hub::{Access, READER};
use modelmount_test_support::registry::{Kind, RegistryKind};
use modelmount_test_support::{
    Azurite, FileShares, GcsServer, GitServer, Hdfs, HuggingFaceHub, ModelScopeHub, Nginx, Pattern, Proxy, Registry,
    S3Kind, S3Server, gcs,
};
use serde_json::{Value, json};

use crate::command::{failed, succeeded};
use crate::harness::modelmount;

/// A file that nobody could bring along unnoticed.
const SIZE: usize = 3_000_001;
const CONFIG: &[u8] = b"{}";

fn weights() -> Vec<u8> {
    Pattern::new(1).bytes(0, SIZE)
}

/// What identifies a file.
#[derive(Clone, Copy, Debug)]
enum Identity {
    /// The digest of its content.
    Digest,
    /// Its source's name for this version.
    Validator,
}

/// Counts what a server sends, and looks at what `resolve` makes of it.
struct Watched(Proxy);

impl Watched {
    async fn new(server: SocketAddr) -> Self {
        Self(Proxy::start(server).await)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    /// The answer for a URI, after its weights were looked at.
    #[track_caller]
    fn shown(&self, arguments: &[&str], environment: &[(&str, &str)], weights: &str, identity: Identity) -> Value {
        let arguments = [&["resolve", "--output", "json"], arguments].concat();
        let answer: Value = serde_json::from_str(&succeeded(modelmount(&arguments, environment))).unwrap();
        let files = answer["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["path"] == weights).unwrap_or_else(|| panic!("{answer:#}"));
        assert_eq!(file["size"], SIZE, "{answer:#}");
        for file in files {
            match identity {
                Identity::Digest if file["path"] == weights => {
                    assert_eq!(file["digest"], Digest::of(self::weights()).to_string(), "{answer:#}");
                }
                // Beside a digest, a file may have the name that its source gives to its content.
                Identity::Digest => {
                    assert!(file["digest"].is_string() || file["validator"].is_string(), "{answer:#}");
                }
                Identity::Validator => {
                    assert!(file["validator"].as_str().is_some_and(|text| !text.is_empty()), "{answer:#}");
                }
            }
        }
        assert!(self.0.received() < SIZE as u64 / 10, "{} bytes were read", self.0.received());
        // The same for people.
        let text = succeeded(modelmount(&[&["resolve"], &arguments[3..]].concat(), environment));
        let shown = match identity {
            Identity::Digest => &file["digest"],
            Identity::Validator => &file["validator"],
        };
        assert!(text.contains(&SIZE.to_string()) && text.contains(shown.as_str().unwrap()), "{text}");
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let Some(server) = S3Server::start(S3Kind::Versitygw).await else { return };
    server.create_bucket("models").await;
    server.put("models", "m/w.bin", weights()).await;
    server.put("models", "m/config.json", CONFIG).await;
    let watched = Watched::new(server.address()).await;
    let endpoint = watched.url();
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", server.access_key()),
        ("AWS_SECRET_ACCESS_KEY", server.secret_key()),
    ];
    assert_eq!(watched.shown(&["s3://models/m"], &environment, "w.bin", Identity::Validator)["bytes"], SIZE + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage() {
    let Some(server) = GcsServer::start().await else { return };
    server.allow(gcs::Access::Public);
    server.create_bucket("models").await;
    server.put("models", "m/w.bin", weights()).await;
    server.put("models", "m/config.json", CONFIG).await;
    let watched = Watched::new(server.address()).await;
    let environment = [("STORAGE_EMULATOR_HOST", watched.url())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(watched.shown(&["gs://models/m"], &environment, "w.bin", Identity::Validator)["bytes"], SIZE + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_blobs() {
    let Some(server) = Azurite::start().await else { return };
    server.create_container("models").await;
    server.put("models", "m/w.bin", weights()).await;
    server.put("models", "m/config.json", CONFIG).await;
    let watched = Watched::new(server.address()).await;
    let uri = format!("https://{}.blob.core.windows.net/models/m", server.account());
    let endpoint = format!("endpoint={}", server.endpoint_at(&watched.url()));
    let key = server.key();
    let environment = [("AZURE_STORAGE_ACCESS_KEY", key.as_str())];
    watched.shown(&[&uri, "--attribute", &endpoint], &environment, "w.bin", Identity::Validator);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_files() {
    let server = FileShares::start().await;
    server.create_share("models");
    server.put("models", "m/w.bin", weights());
    server.put("models", "m/config.json", CONFIG);
    let watched = Watched::new(server.address()).await;
    let uri = format!("https://{}.file.core.windows.net/models/m", server.account());
    let (key, endpoint) = (server.key(), format!("endpoint={}", watched.url()));
    let environment = [("AZURE_STORAGE_ACCESS_KEY", key.as_str())];
    watched.shown(&[&uri, "--attribute", &endpoint], &environment, "w.bin", Identity::Validator);
}

/// The mirror and the token come from the environment, under the names that Hugging Face's own tools read.
#[tokio::test(flavor = "multi_thread")]
async fn hugging_face() {
    let hub = HuggingFaceHub::start().await;
    hub.put("acme/m", "config.json", CONFIG);
    hub.put("acme/m", "w.bin", weights());
    hub.set_access("acme/m", Access::Private);
    let watched = Watched::new(hub.address()).await;
    let endpoint = watched.url();
    let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", READER)];
    let answer = watched.shown(&["hf://acme/m"], &environment, "w.bin", Identity::Digest);
    assert_eq!(answer["revision"], hub.commit("acme/m", "main"));
    assert!(hub.store_requests().is_empty());
    failed(&modelmount(&["resolve", "hf://acme/m"], &environment[..1]), 1, "give a Secret with HF_TOKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn model_scope() {
    let hub = ModelScopeHub::start().await;
    hub.put("acme/m", "config.json", CONFIG);
    hub.put("acme/m", "w.bin", weights());
    let watched = Watched::new(hub.address()).await;
    let endpoint = watched.url();
    let environment = [("MODELSCOPE_ENDPOINT", endpoint.as_str())];
    let answer = watched.shown(&["modelscope://acme/m"], &environment, "w.bin", Identity::Digest);
    // The hub may tell only how it begins.
    let revision = answer["revision"].as_str().unwrap();
    assert!(revision.len() >= 8 && hub.commit("acme/m", "master").starts_with(revision), "{revision}");
    assert!(hub.store_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn registries() {
    let Some(registry) = Registry::start(RegistryKind::Distribution).await else { return };
    let (weights, title) = (weights(), |name: &str| json!({"org.opencontainers.image.title": name}));
    let octets = "application/octet-stream";
    let layers = [(octets, title("w.bin"), weights.as_slice()), (octets, title("config.json"), CONFIG)];
    let digest = registry.push("m", "v1", Kind::ORAS, &layers).await;
    let watched = Watched::new(registry.address()).await;
    let uri = format!("oci://{}/m:v1", watched.0.address());
    let environment = [("KSERVE_OCI_INSECURE_REGISTRY", "true")];
    let answer = watched.shown(&[&uri], &environment, "w.bin", Identity::Digest);
    assert!(answer["revision"].as_str().unwrap().ends_with(&digest.to_string()), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn git() {
    let Some(server) = GitServer::start(Options { sizes: true, ..Options::default() }).await else { return };
    server.put("config.json", CONFIG);
    server.put_lfs("w.bin", &weights());
    let watched = Watched::new(server.address()).await;
    let uri = format!("git+{}/model.git@main", watched.url());
    let answer = watched.shown(&[&uri], &[], "w.bin", Identity::Digest);
    let commit = server.git(&["rev-parse", "HEAD"]);
    assert!(answer["revision"].as_str().unwrap().ends_with(commit.trim()), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn web_servers() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    nginx.put("m/w.bin", &weights());
    let watched = Watched::new(nginx.address()).await;
    let uri = format!("{}/m/w.bin?signature=CANARY", watched.url());
    let answer = watched.shown(&[&uri], &[], "w.bin", Identity::Validator);
    assert!(!answer.to_string().contains("CANARY"), "{answer:#}");
    assert!(answer["id"].is_string(), "{answer:#}");
    // Where nothing tells versions apart, there is none to name.
    let arguments = ["resolve", "--output", "json", &format!("{}/novalidator/m/w.bin", nginx.url())];
    let answer: Value = serde_json::from_str(&succeeded(modelmount(&arguments, &[]))).unwrap();
    assert!(answer["id"].is_null() && answer["files"][0]["validator"].is_null(), "{answer:#}");
    let text = succeeded(modelmount(&["resolve", arguments[3]], &[]));
    assert!(text.contains("w.bin  no version"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hdfs() {
    let Some(hdfs) = Hdfs::shared().await else { return };
    let path = hdfs.new_directory().await;
    hdfs.put(&format!("{path}/m/w.bin"), weights()).await;
    hdfs.put(&format!("{path}/m/config.json"), CONFIG).await;
    let watched = Watched::new(hdfs.url().replace("http://", "").parse().unwrap()).await;
    let uri = format!("webhdfs://{}{path}/m", watched.0.address());
    watched.shown(&[&uri], &[("HADOOP_USER_NAME", OWNER)], "w.bin", Identity::Validator);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("w.bin"), weights()).unwrap();
    let arguments = ["resolve", "--output", "json", root.path().to_str().unwrap()];
    let answer: Value = serde_json::from_str(&succeeded(modelmount(&arguments, &[]))).unwrap();
    assert_eq!(answer["files"][0]["size"], SIZE);
    assert!(answer["files"][0]["validator"].is_string(), "{answer:#}");
}
