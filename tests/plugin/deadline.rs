//! A download that takes longer than kubelet waits.

use std::time::{Duration, Instant};

use modelmount_test_support::Pattern;
use modelmount_test_support::wait::eventually;
use tonic::Code;

use crate::harness::{Plugin, SOON};
use crate::store::Store;

const SIZE: u64 = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn privileged_a_slow_download_is_reported_in_time_and_goes_on() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&["--part-size", "1MiB"]).await;
    let pattern = Pattern::new(1);
    store.put_pattern("slow/model.bin", pattern, SIZE).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("slow"));

    // Half a minute in all.
    store.proxy.throttle(SIZE / 30);
    let begun = Instant::now();
    let status = pod.publish_within(&volume, DEADLINE).await.unwrap_err();
    assert!(begun.elapsed() < DEADLINE, "answered after {:?}", begun.elapsed());
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(status.message().contains("% of 16.0 MiB") && status.message().contains("s3://models/slow"), "{status:?}");
    assert!(status.message().len() < 1024 && pod.mount().is_none() && !pod.path().exists());
    let number = |name| status.metadata().get(name).unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let [done, total] = modelmount_driver::publisher::PROGRESS_METADATA.map(number);
    assert!(done > 0 && done < total && total == SIZE, "{done} of {total}");

    // Nobody asks, and it goes on.
    let before = store.proxy.received();
    eventually("bytes to move", SOON, || store.proxy.received() > before + (1 << 20)).await;

    // Without news the text is the same, so that kubelet folds the events.
    store.proxy.stall(true);
    let [one, two] = [DEADLINE / 6, DEADLINE / 6].map(|deadline| pod.publish_within(&volume, deadline));
    let (one, two) = (one.await.unwrap_err(), two.await.unwrap_err());
    assert_eq!((one.code(), one.message()), (two.code(), two.message()));
    store.proxy.stall(false);

    store.proxy.throttle(None);
    pod.publish(&volume).await.unwrap();
    assert_eq!(pod.files()["model.bin"], pattern.bytes(0, SIZE as usize));
    // All those calls were about one download.
    let received = store.proxy.received();
    assert!(received < SIZE + (512 << 10), "{received} bytes for {SIZE}");
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("at the end");
}

#[tokio::test]
async fn privileged_a_caller_that_goes_away_stops_nothing() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&["--part-size", "1MiB"]).await;
    store.put_pattern("m/model.bin", Pattern::new(1), SIZE).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    store.proxy.throttle(SIZE / 8);
    let call = pod.publishing(&volume);
    eventually("the download", SOON, || store.proxy.received() > 1 << 20).await;
    call.abort();
    eventually("the download's end", SOON, || store.proxy.received() >= SIZE).await;
    // The model is mounted for whoever asks next, and never behind the back of a caller who has gone.
    pod.publish(&volume).await.unwrap();
    assert!(store.proxy.received() < SIZE + (512 << 10));
    assert_eq!(pod.stats().await.unwrap(), (SIZE, 1));
}
