//! A download that takes longer than kubelet waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modelmount_test_support::Pattern;
use modelmount_test_support::script::{Response, ScriptedServer};
use modelmount_test_support::wait::eventually;
use tonic::Code;

use crate::harness::{Plugin, SOON};
use crate::pod::Volume;
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

#[tokio::test]
async fn privileged_newer_credentials_are_tried_again_after_the_source_was_down() {
    let down = Arc::new(AtomicBool::new(true));
    let script_down = Arc::clone(&down);
    let server = ScriptedServer::start(move |request| {
        let is_new = request.header("authorization") == Some("Bearer new");
        match request.range() {
            _ if is_new && script_down.load(Ordering::SeqCst) => Response::new(503),
            // The question whether it may be read, and the download, which never ends.
            Some((0, 0)) => Response::content(request, &[1; 1000]),
            _ => Response::content(request, &[1; 1000]).hang_after(10),
        }
    })
    .await;
    let asked = |token: &str| {
        let requests = server.requests();
        requests.iter().filter(|request| request.header("authorization") == Some(token)).count()
    };
    let plugin = Plugin::start(&[]).await;
    let pod = plugin.pod("a");
    let publish = async |token| {
        let volume = Volume::of(&format!("{}/model.bin", server.url())).secret("token", token);
        let status = pod.publish_within(&volume, DEADLINE / 6).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
    };
    publish("old").await;
    let downloading = || server.requests().iter().any(|request| request.range() != Some((0, 0)));
    eventually("the download", SOON, downloading).await;
    publish("new").await;
    eventually("the refusal", SOON, || plugin.log().contains("newer credentials are not accepted")).await;
    let before = asked("Bearer new");
    down.store(false, Ordering::SeqCst);
    publish("new").await;
    eventually("another try", SOON, || asked("Bearer new") > before).await;
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("at the end");
}
