//! The metrics, after what they tell of has happened.

use modelmount_test_support::model;
use modelmount_test_support::wait::eventually;
use nix::sys::statvfs::statvfs;
use tonic::Code;

use crate::harness::{PORTS, Plugin, SOON};
use crate::page::{Answer, get};
use crate::pod::Volume;
use crate::store::Store;

async fn read(plugin: &Plugin) -> Answer {
    get(plugin.port("metrics"), "/metrics").await
}

#[track_caller]
fn shows(page: &Answer, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        assert_eq!(page.value(&format!("modelmount_{series}")), Some(*value), "{series}: {}", page.body);
    }
}

fn calls(method: &str, code: &str) -> String {
    format!("rpc_duration_seconds_count{{method=\"{method}\",code=\"{code}\"}}")
}

#[tokio::test]
async fn privileged_publishes_and_downloads_are_counted() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&PORTS).await;
    let files = model::small(1);
    let bytes = files.values().map(Vec::len).sum::<usize>() as f64;
    store.put_model("m/", &files).await;
    let ended = |result: &str| format!("downloads_ended_total{{result=\"{result}\"}}");
    shows(&read(&plugin).await, &[("published_volumes", 0.0), ("downloads_started_total", 0.0)]);

    let [one, two] = ["a", "b"].map(|name| plugin.pod(name));
    one.publish(&store.volume("m")).await.unwrap();
    two.publish(&store.volume("m")).await.unwrap();
    assert_eq!(plugin.pod("c").publish(&Volume::of("nonsense")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(plugin.pod("d").publish(&store.volume("missing")).await.unwrap_err().code(), Code::NotFound);
    one.unpublish().await.unwrap();
    let page = read(&plugin).await;
    assert!(page.headers.iter().any(|line| line.starts_with("content-type: application/openmetrics-text")), "{page:?}");
    shows(
        &page,
        &[
            ("build_info{version=\"0.1.0\"}", 1.0),
            (&calls("NodePublishVolume", "OK"), 2.0),
            (&calls("NodePublishVolume", "INVALID_ARGUMENT"), 1.0),
            (&calls("NodePublishVolume", "NOT_FOUND"), 1.0),
            (&calls("NodeUnpublishVolume", "OK"), 1.0),
            ("rpcs_in_flight{method=\"NodePublishVolume\"}", 0.0),
            // The second volume found the model in the cache.
            ("downloads_started_total", 1.0),
            (&ended("completed"), 1.0),
            (&ended("failed"), 0.0),
            ("downloads_in_flight", 0.0),
            ("downloaded_bytes_total", bytes),
            ("published_volumes", 1.0),
            ("cache_writable", 1.0),
        ],
    );
    assert_eq!(page.value("modelmount_kubelet_registered"), None, "it does not register itself");
    let disk = statvfs(&plugin.cache()).unwrap();
    shows(&page, &[("cache_filesystem_size_bytes", (disk.blocks() * disk.fragment_size()) as f64)]);
    let free = page.value("modelmount_cache_filesystem_free_bytes").unwrap();
    assert!(free > 0.0 && free <= (disk.blocks() * disk.fragment_size()) as f64, "{free}");
}

#[tokio::test]
async fn privileged_what_is_under_way_is_shown() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&PORTS).await;
    store.put_model("m/", &model::small(1)).await;
    store.proxy.throttle(1024);
    let pod = plugin.pod("a");
    let publishing = pod.publishing(&store.volume("m"));
    let shown = async || {
        let page = read(&plugin).await;
        ["rpcs_in_flight{method=\"NodePublishVolume\"}", "downloads_in_flight", "published_volumes"]
            .map(|series| page.value(&format!("modelmount_{series}")).unwrap_or_default())
    };
    modelmount_test_support::wait::until("a download", SOON, async || (shown().await == [1.0, 1.0, 0.0]).then_some(()))
        .await;
    pod.unpublish().await.unwrap();
    assert_eq!(publishing.await.unwrap().unwrap_err().code(), Code::Aborted);
    eventually("nothing", SOON, || plugin.leases().is_empty()).await;
    let page = read(&plugin).await;
    shows(
        &page,
        &[
            ("rpcs_in_flight{method=\"NodePublishVolume\"}", 0.0),
            ("downloads_in_flight", 0.0),
            ("downloads_ended_total{result=\"given_up\"}", 1.0),
            ("downloads_ended_total{result=\"failed\"}", 0.0),
            (&calls("NodePublishVolume", "ABORTED"), 1.0),
        ],
    );
}
