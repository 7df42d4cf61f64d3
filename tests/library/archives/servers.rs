//! From real servers, by the URIs that users write; killed, resumed, and in little memory.

use std::io::Write;
use std::path::PathBuf;

use modelmount::cache::KeepFree;
use modelmount::model::{MODEL_URI, UNPACK};
use modelmount::{Cache, Credentials, Transfers};
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::process::peak_rss;
use modelmount_test_support::wait::until;
use modelmount_test_support::{Nginx, Process, Proxy, S3Kind};
use tokio::runtime::Handle;

use super::*;
use crate::bucket::Bucket;
use crate::node::{SOON, assert_snapshot, limits, resolve, resolve_url};

fn attributes(uri: &str, unpack: &str) -> Attributes {
    [(MODEL_URI, uri), (UNPACK, unpack)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// nginx says of all of these that they are `application/octet-stream`.
#[tokio::test(flavor = "multi_thread")]
async fn archives_of_a_web_server() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let files = files();
    let node = Node::new(limits(4));
    for (name, how) in FORMATS {
        let Some(bytes) = pack(&files, how) else { return };
        nginx.put(name, &bytes);
        for way in ["", "noranges/", "novalidator/", "redirect/"] {
            let (model, manifest) = resolve_url(&format!("{}/{way}{name}", nginx.url())).await;
            assert_snapshot(&node.fetch(&model, &manifest).await.unwrap(), &files);
        }
        // A name that says nothing, and one that says something else: the bytes decide.
        nginx.put("version-1.2", &bytes);
        nginx.put("wrong.tar.gz", &bytes);
        for path in ["version-1.2", "wrong.tar.gz"] {
            let (model, manifest) = resolve_url(&format!("{}/{path}", nginx.url())).await;
            assert_snapshot(&node.fetch(&model, &manifest).await.unwrap(), &files);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_web_server_that_are_no_archives() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let Some(packed) = pack(&one("m.bin", b"weights".to_vec()), "gzip -c m.bin") else { return };
    let inner = tar(&files()).unwrap();
    let node = Node::new(limits(2));
    for (name, bytes) in
        [("config.json", b"{}".to_vec()), ("m.bin.gz", packed), ("m.pt", pack(&files(), "zip -q -r - .").unwrap())]
    {
        nginx.put(name, &bytes);
        // As a presigned URL: the query is part of the request, and of no name.
        let (model, manifest) = resolve_url(&format!("{}/{name}?X-Amz-Signature=a/b.tar&Expires=1", nginx.url())).await;
        assert_snapshot(&node.fetch(&model, &manifest).await.unwrap(), &one(name, bytes));
    }
    nginx.put("m.nemo", &inner);
    for (unpack, expected) in
        [("auto", one("m.nemo", inner.clone())), ("never", one("m.nemo", inner.clone())), ("always", files())]
    {
        let uri = format!("{}/m.nemo", nginx.url());
        let (model, manifest) = resolve(&attributes(&uri, unpack), &Credentials::none()).await.unwrap();
        assert_snapshot(&node.fetch(&model, &manifest).await.unwrap(), &expected);
    }
    nginx.put("page.tar.gz", b"<!DOCTYPE html><title>Sign in</title>");
    let (model, manifest) = resolve_url(&format!("{}/page.tar.gz", nginx.url())).await;
    let error = node.fetch(&model, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), modelmount::ErrorKind::FailedPrecondition);
    for part in ["\"page.tar.gz\": it is no archive", "it begins with \"<!DOCTYPE", "unpack: never"] {
        assert!(error.report().contains(part), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_in_a_bucket() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let files = files();
    bucket.put("packed/model.tar.gz", &pack(&files, "tar -cf - . | gzip").unwrap()).await;
    let node = Node::new(limits(4));
    let (model, manifest) = bucket.resolve("packed/model.tar.gz").await.unwrap();
    assert_snapshot(&node.fetch(&model, &manifest).await.unwrap(), &files);
    let mut never = bucket.attributes("packed/model.tar.gz");
    never.insert(UNPACK.to_owned(), "never".to_owned());
    let (model, manifest) = resolve(&never, &bucket.credentials()).await.unwrap();
    let snapshot = node.fetch(&model, &manifest).await.unwrap();
    assert_eq!(snapshot.files().len(), 1);
}

const CACHE: &str = "MODELMOUNT_INNER_ARCHIVE_CACHE";
const URL: &str = "MODELMOUNT_INNER_ARCHIVE_URL";
const PEAK: &str = "MODELMOUNT_INNER_ARCHIVE_PEAK";
const KILLS: u64 = 15;
const CONNECTIONS: usize = 4;
/// Heads of answers and the like, of one run.
const OVERHEAD: u64 = 256 << 10;

fn inner(root: &Path, url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "archives::servers::inner_fetches"]).env(CACHE, root).env(URL, url);
    command
}

/// What tests start, measure and kill.
#[tokio::test(flavor = "multi_thread")]
async fn inner_fetches() {
    let Some(root) = std::env::var_os(CACHE).map(PathBuf::from) else { return };
    let (model, manifest) = resolve_url(&std::env::var(URL).unwrap()).await;
    let cache = Arc::new(Cache::open(&root, KeepFree::Bytes(0)).unwrap());
    let limits = if std::env::var_os(PEAK).is_some() { modelmount::Limits::default() } else { limits(CONNECTIONS) };
    let transfers = Transfers::new(cache, limits, Handle::current());
    transfers.join(manifest, model).wait().await.unwrap();
    if let Some(file) = std::env::var_os(PEAK) {
        fs::write(file, peak_rss(std::process::id()).unwrap().to_string()).unwrap();
    }
}

/// kill -9 wherever it hits: in the download, in the unpacking, in the commits.
#[tokio::test(flavor = "multi_thread")]
async fn kills_cost_the_parts_in_flight_and_no_byte_of_the_content() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("served");
    fs::create_dir(&root).unwrap();
    let Some(nginx) = Nginx::start(&root).await else { return };
    let mut files = files();
    for i in 0..300 {
        files.insert(format!("small/{i}"), Pattern::new(300 + i).bytes(0, 3_000));
    }
    for i in 0..4 {
        files.insert(format!("large/{i}"), Pattern::new(700 + i).bytes(0, 2 << 20));
    }
    let bytes = pack(&files, "tar -cf - . | gzip -1").unwrap();
    nginx.put("m.tar.gz", &bytes);
    let size = bytes.len() as u64;
    let proxy = Proxy::start(nginx.address()).await;
    let (cache, url) = (directory.path().join("cache"), format!("{}/m.tar.gz", proxy.url()));
    let command = inner(&cache, &url);
    proxy.throttle(16 << 20);
    let seed = u64::from(std::process::id());
    let random = Pattern::new(seed);
    for run in 0..KILLS {
        let child = Process::start(&command, &directory.path().join("log"));
        let dose = u64::from_le_bytes(random.bytes(run * 8, 8).try_into().unwrap()) % (2 * size / KILLS);
        let goal = proxy.received() + dose;
        until("some bytes more", SOON, async || (proxy.received() >= goal || !child.is_running()).then_some(())).await;
        if let Some(status) = child.exit_status() {
            assert!(status.success(), "seed {seed}, run {run}: {}", child.log());
        }
        child.kill();
        until("the end of its connections", SOON, async || (proxy.open_connections() == 0).then_some(())).await;
    }
    proxy.throttle(None);
    let (model, manifest) = resolve_url(&url).await;
    let cache = Arc::new(Cache::open(&cache, KeepFree::Bytes(0)).unwrap());
    let transfers = Transfers::new(Arc::clone(&cache), limits(CONNECTIONS), Handle::current());
    let snapshot = transfers.join(manifest, model).wait().await.unwrap();
    assert_snapshot(&snapshot, &files);
    let most = size + KILLS * (CONNECTIONS as u64 * PART + OVERHEAD);
    assert!(proxy.received() <= most, "seed {seed}: {} bytes received, {most} allowed, of {size}", proxy.received());
}

/// One member of a gibibyte, compressed and not.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_small_however_large_a_member_is() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("served");
    fs::create_dir(&root).unwrap();
    let Some(nginx) = Nginx::start(&root).await else { return };
    // Blocks that compress, so that the archive is made and read in seconds.
    let block = Pattern::new(1).bytes(0, 1 << 20);
    let mut weights = fs::File::create(directory.path().join("weights")).unwrap();
    for i in 0..1024u32 {
        weights.write_all(&i.to_le_bytes()).unwrap();
        weights.write_all(&block[4..]).unwrap();
    }
    for (name, how) in [("m.tar", "cat"), ("m.tar.zst", "zstd -q -1 --long=21")] {
        let shell = format!("set -o pipefail; tar -cf - weights | {how} > served/{name}");
        assert!(Command::new("bash").arg("-c").arg(shell).current_dir(directory.path()).status().unwrap().success());
        let (cache, peak) = (directory.path().join("cache"), directory.path().join("peak"));
        let mut command = inner(&cache, &format!("{}/{name}", nginx.url()));
        command.env(PEAK, &peak);
        let child = Process::start(&command, &directory.path().join("log"));
        let status = child.wait(SOON * 3).await;
        assert!(status.success(), "{}", child.log());
        let peak: u64 = fs::read_to_string(peak).unwrap().parse().unwrap();
        assert!(peak <= 64 << 20, "{name}: {} MiB were resident", peak >> 20);
        fs::remove_dir_all(cache).unwrap();
        fs::remove_file(root.join(name)).unwrap();
    }
}
