//! Many pods, one model, at the same time.

use futures_util::future::join_all;
use modelmount_test_support::wait::eventually;
use modelmount_test_support::{Pattern, model};

use crate::harness::{Plugin, SOON};
use crate::store::Store;

const PODS: usize = 20;

#[tokio::test]
async fn privileged_twenty_pods_cost_one_download() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&["--part-size", "2MiB"]).await;
    let mut files = model::small(1);
    files.insert("weights.bin".into(), Pattern::new(2).bytes(0, 24 << 20));
    store.put_model("m/", &files).await;
    let size: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
    let volume = store.volume("m");

    // Slow enough that all of them ask before it is there.
    store.proxy.throttle(8 << 20);
    let pods: Vec<_> = (0..PODS).map(|i| plugin.pod(&format!("pod-{i}"))).collect();
    let publishing: Vec<_> = pods.iter().map(|pod| pod.publishing(&volume)).collect();
    eventually("a lease for each", SOON, || plugin.leases().len() == PODS).await;
    assert!(store.proxy.received() < size, "the download was over before all had asked");
    store.proxy.throttle(None);
    for published in join_all(publishing).await {
        published.unwrap().unwrap();
    }
    // Each of them lists and asks, which is some kilobytes; a second download of anything large would be 2 MiB.
    let received = store.proxy.received();
    assert!(received < size + (1 << 20), "{received} bytes for a model of {size}");
    assert_eq!(plugin.mounts().len(), PODS);
    for pod in &pods {
        assert_eq!(pod.files(), files);
    }
    for done in join_all(pods.iter().map(|pod| pod.unpublish())).await {
        done.unwrap();
    }
    plugin.assert_nothing_left("at the end");
}

#[tokio::test]
async fn privileged_the_same_publish_twenty_times_is_one_mount() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    for published in join_all((0..PODS).map(|_| pod.publish(&volume))).await {
        published.unwrap();
    }
    assert_eq!(plugin.mounts().len(), 1);
    assert_eq!(plugin.leases().len(), 1);
}
