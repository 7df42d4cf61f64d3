//! How long the publish of a cached model takes, over gRPC, with ten thousand other models in the cache.
//!
//! Every publish is a new volume: it resolves the model at a real S3 server on loopback, asks it whether the volume's
//! credentials may read, writes a lease and mounts. To hold: a median of at most 5 ms, a 99th percentile of at most 20.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark reports and may panic")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use modelmount_driver::client::connect;
use modelmount_driver::csi::identity_client::IdentityClient;
use modelmount_driver::csi::node_client::NodeClient;
use modelmount_driver::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use modelmount_driver::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest, VolumeCapability};
use modelmount_test_support::process::Process;
use modelmount_test_support::s3::{S3Kind, S3Server};
use modelmount_test_support::{model, wait};

const OTHERS: usize = 10_000;
const ROUNDS: usize = 500;

fn main() {
    // `cargo test` runs benchmarks to see that they work; this one needs root, and its figures mean nothing then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let Some(server) = S3Server::start(S3Kind::Versitygw).await else { return };
    server.create_bucket("models").await;
    server.put_model("models", "m/", &model::small(1)).await;

    let work = tempfile::tempdir().unwrap();
    let (cache, kubelet) = (work.path().join("cache"), work.path().join("kubelet"));
    fs::create_dir_all(kubelet.join("pods")).unwrap();
    fill(&cache.join("snapshots"));
    let endpoint = format!("unix://{}", work.path().join("csi.sock").display());
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_modelmount"));
    plugin.args(["node", "--node-id", "bench", "--allow-address", "127.0.0.0/8", "--keep-free", "0"]);
    plugin.arg("--endpoint").arg(&endpoint).arg("--cache-dir").arg(&cache).arg("--kubelet-dir").arg(&kubelet);
    let plugin = Process::start(&plugin, &work.path().join("log"));

    let ready = async || {
        let channel = connect(&endpoint).await.ok()?;
        let answer = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await.ok()?;
        answer.into_inner().ready.unwrap_or(true).then_some(channel)
    };
    let channel = wait::until("the plugin is ready", Duration::from_secs(20), ready).await;
    let mut node = NodeClient::new(channel);

    let mut publishes = Vec::new();
    let mut repeats = Vec::new();
    for round in 0..=ROUNDS {
        let target = kubelet.join("pods").join(round.to_string());
        let request = publish(&server, round, &target);
        let begun = Instant::now();
        node.node_publish_volume(request.clone()).await.unwrap();
        publishes.push(begun.elapsed());
        let begun = Instant::now();
        node.node_publish_volume(request.clone()).await.unwrap();
        repeats.push(begun.elapsed());
        let (volume_id, target_path) = (request.volume_id, request.target_path);
        node.node_unpublish_volume(NodeUnpublishVolumeRequest { volume_id, target_path }).await.unwrap();
    }
    let cold = publishes.remove(0);
    println!("{OTHERS} other models in the cache, {ROUNDS} rounds, versitygw on loopback");
    println!("first publish, with the download   {cold:>10.3?}");
    report("publish of the cached model", publishes);
    report("publish repeated, mount live", repeats);
    println!("peak memory of the plugin          {:>7} KiB", plugin.peak_rss().unwrap_or(0) / 1024);
    plugin.terminate();
    plugin.wait(Duration::from_secs(10)).await;
}

fn publish(server: &S3Server, round: usize, target: &Path) -> NodePublishVolumeRequest {
    let map = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    NodePublishVolumeRequest {
        volume_id: format!("csi-{round}"),
        target_path: target.display().to_string(),
        readonly: true,
        volume_capability: Some(VolumeCapability {
            access_mode: Some(AccessMode { mode: 1 }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }),
        volume_context: map(&[("modelUri", "s3://models/m"), ("endpoint", &server.endpoint())]),
        secrets: map(&[("AWS_ACCESS_KEY_ID", server.access_key()), ("AWS_SECRET_ACCESS_KEY", server.secret_key())]),
        ..Default::default()
    }
}

/// Directories as other models would leave them.
fn fill(snapshots: &Path) {
    for other in 0..OTHERS {
        let directory = snapshots.join(modelmount::Digest::of(other.to_string()).hex());
        fs::create_dir_all(directory.join("tree")).unwrap();
        fs::write(directory.join("manifest.json"), "{}").unwrap();
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:<34} median {:>9.3?}  p99 {:>9.3?}  max {:>9.3?}", at(0.5), at(0.99), at(1.0));
}
