//! kill -9 in the middle of downloads, over the wire: a child process fetches through a counting proxy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use modelmount::cache::KeepFree;
use modelmount::{Cache, Transfers};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::model::Files;
use modelmount_test_support::wait::until;
use modelmount_test_support::{Pattern, Process, Proxy, S3Kind};
use tokio::runtime::Handle;

use crate::bucket::{Bucket, attributes, keys};
use crate::node::{PART, SOON, assert_snapshot, limits, resolve};

const CONNECTIONS: usize = 4;
const KILLS: u64 = 20;
/// Listing, heads of answers, and the like: of one run.
const OVERHEAD: u64 = 256 << 10;

const CACHE: &str = "MODELMOUNT_INNER_CACHE";
const ENDPOINT: &str = "MODELMOUNT_INNER_ENDPOINT";
const KEYS: &str = "MODELMOUNT_INNER_KEYS";

fn model() -> Files {
    let mut files: Files = BTreeMap::from([("empty".to_owned(), Vec::new())]);
    for (i, parts) in [70, 41, 23, 9, 3, 2, 1].into_iter().enumerate() {
        let bytes = Pattern::new(i as u64).bytes(0, parts * PART as usize + 100 * i);
        files.insert(format!("shard-{i}"), bytes);
    }
    for i in 0..20 {
        files.insert(format!("small/{i}"), Pattern::new(100 + i).bytes(0, 3_000));
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_cost_the_parts_in_flight_and_no_byte_of_the_content() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let files = model();
    bucket.put_model("model", &files).await;
    let proxy = Proxy::start(bucket.server.address()).await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("cache");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "cache::kill::inner_fetches_until_killed"]);
    command.env(CACHE, &root).env(ENDPOINT, proxy.url());
    command.env(KEYS, format!("{} {}", bucket.server.access_key(), bucket.server.secret_key()));

    let size: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    proxy.throttle(16 << 20);
    let seed = u64::from(std::process::id());
    let random = Pattern::new(seed);
    let mut kills = 0;
    for run in 0..KILLS {
        let child = Process::start(&command, &directory.path().join("log"));
        // On average a little less than what each run should come to: some kills meet the commits at the end.
        let dose = u64::from_le_bytes(random.bytes(run * 8, 8).try_into().unwrap()) % (2 * size / KILLS);
        let goal = proxy.received() + dose;
        let reached = async || (proxy.received() >= goal || !child.is_running()).then_some(());
        until("some bytes more", SOON, reached).await;
        // It may have been faster than the kill; then it must have succeeded.
        if let Some(status) = child.exit_status() {
            assert!(status.success(), "seed {seed}, run {run}: {}", child.log());
        }
        child.kill();
        kills += 1;
        until("the end of its connections", SOON, async || (proxy.open_connections() == 0).then_some(())).await;
    }
    proxy.throttle(None);
    fetch(&root, &Bucket::attributes_at(&proxy.url(), "model"), &bucket).await.check(&files);
    let received = proxy.received();
    // An answer holds one part at most: what was in buffers at a kill belongs to the parts in flight.
    let most = size + kills * (CONNECTIONS as u64 * PART + OVERHEAD);
    assert!(received <= most, "seed {seed}: {received} bytes received, {most} allowed, of a model of {size}");
}

struct Fetched(modelmount::Snapshot, #[expect(dead_code, reason = "holds the lock")] Arc<Cache>);

impl Fetched {
    fn check(&self, files: &Files) {
        assert_snapshot(&self.0, files);
    }
}

async fn fetch(root: &Path, attributes: &Attributes, bucket: &Bucket) -> Fetched {
    run(root, attributes, &bucket.credentials()).await
}

async fn run(root: &Path, attributes: &Attributes, credentials: &modelmount::Credentials) -> Fetched {
    let (source, manifest) = resolve(attributes, credentials).await.unwrap();
    let cache = Arc::new(Cache::open(root, KeepFree::Bytes(0)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(CONNECTIONS), Handle::current());
    let snapshot = transfers.join(manifest, source).wait().await.unwrap();
    Fetched(snapshot, cache)
}

/// What the test above starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn inner_fetches_until_killed() {
    let Some(root) = std::env::var_os(CACHE).map(PathBuf::from) else { return };
    let (endpoint, pair) = (std::env::var(ENDPOINT).unwrap(), std::env::var(KEYS).unwrap());
    let (access, secret) = pair.split_once(' ').unwrap();
    let files = model();
    let fetched = run(&root, &attributes("s3://models/model", &endpoint), &keys(access, secret)).await;
    fetched.check(&files);
}
