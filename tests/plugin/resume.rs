//! `kill -9` in the middle of a large download.

use std::fs::File;
use std::io::{self, Read as _};

use modelmount_test_support::Pattern;
use modelmount_test_support::wait::eventually;

use crate::harness::{Plugin, SOON};
use crate::store::Store;

struct Case {
    size: u64,
    connections: u64,
    part_size: u64,
    /// Bytes per second until the kill, so that it comes in the middle and not at the end.
    rate: Option<u64>,
}

async fn killed_in_the_middle(case: Case) {
    let Case { size, connections, part_size, rate } = case;
    let Some(store) = Store::start().await else { return };
    let pattern = Pattern::new(size);
    store.put_pattern("large/model.bin", pattern, size).await;
    let [connections_text, part_text] = [connections, part_size].map(|number| number.to_string());
    let mut plugin = Plugin::start(&["--connections", &connections_text, "--part-size", &part_text]).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("large"));

    store.proxy.throttle(rate);
    let waiting = pod.publishing(&volume);
    eventually("a third of it", SOON, || store.proxy.received() > size / 3).await;
    plugin.kill();
    waiting.await.unwrap().unwrap_err();
    // What was under way has arrived at a closed port by now, so that nothing of it is counted later.
    eventually("all connections to end", SOON, || store.proxy.open_connections() == 0).await;
    let before = store.proxy.received();
    assert!(before < size, "the kill came too late: {before} of {size}");
    assert_eq!(plugin.mounts(), []);

    store.proxy.throttle(None);
    plugin.restart().await;
    pod.publish(&volume).await.unwrap();
    let received = store.proxy.received();
    // A connection carries the bytes of one part and then those of the next. Whatever lay in the buffers of sockets when
    // the plugin died belonged to the part in flight, so the bound is exact but for heads of responses and listings.
    let refetched = received.saturating_sub(size);
    assert!(refetched <= connections * part_size + (512 << 10), "{refetched} bytes were fetched again");

    let mut file = File::open(pod.path().join("model.bin")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    pattern
        .stream(size, |expected| {
            let piece = &mut buffer[..expected.len()];
            file.read_exact(piece)?;
            if piece == expected { Ok(()) } else { Err(io::Error::other("the content is not the model's")) }
        })
        .unwrap();
    assert_eq!(pod.stats().await.unwrap(), (size, 1));
}

#[tokio::test]
async fn privileged_a_killed_download_is_resumed() {
    let case = Case { size: 256 << 20, connections: 4, part_size: 4 << 20, rate: Some(64 << 20) };
    killed_in_the_middle(case).await;
}

#[tokio::test]
async fn privileged_a_killed_download_of_3_gib_is_resumed() {
    let case = Case { size: 3 << 30, connections: 8, part_size: 8 << 20, rate: None };
    killed_in_the_middle(case).await;
}
