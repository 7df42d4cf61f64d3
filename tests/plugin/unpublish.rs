//! Unpublish: takes away the mount and its empty directory, nothing else, and does not wait.

use std::fs;
use std::path::Path;
use std::time::Instant;

use futures_util::future::join_all;
use modelmount_driver::client::connect;
use modelmount_test_support::wait::{eventually, until};
use modelmount_test_support::{Pattern, Proxy, model};
use nix::mount::{MsFlags, mount};
use tonic::Code;

use crate::harness::{Plugin, SOON, bind};
use crate::pod::Pod;
use crate::store::Store;

const SIZE: u64 = 16 << 20;
const PODS: usize = 4;
const ROUNDS: u32 = 40;

#[tokio::test]
async fn privileged_a_disk_that_takes_no_writes_keeps_no_pod() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let [one, two] = ["one", "two"].map(|name| plugin.pod(name));
    for pod in [&one, &two] {
        pod.publish(&store.volume("m")).await.unwrap();
    }
    // What a kill leaves: a download that can't be resumed, and trash.
    let left = [plugin.cache().join("partial").join("0".repeat(64)).join("data"), plugin.cache().join("trash/x")];
    for path in &left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    make_read_only(&plugin.cache());
    let unwritable = fs::write(plugin.cache().join("trash/y"), "y").unwrap_err();
    assert_eq!(unwritable.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    one.unpublish().await.unwrap();
    assert!(!one.path().exists());
    // Kubelet repeats it.
    one.unpublish().await.unwrap();
    // Also after the plugin's own restart.
    plugin.kill();
    plugin.start_anew();
    until("the plugin", SOON, async || connect(&plugin.endpoint()).await.ok()).await;
    two.unpublish().await.unwrap();
    assert!(!two.path().exists());
    assert!(left.iter().all(|path| path.exists()), "the disk was not read-only for the new process");
}

/// As the kernel does with a file system that is broken, for all who see it here.
fn make_read_only(directory: &Path) {
    bind(directory, directory);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, directory, None::<&str>, flags, None::<&str>).unwrap();
}

#[tokio::test]
async fn privileged_a_leftover_bind_is_unmounted_and_its_content_stays() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let other = plugin.elsewhere("other");
    fs::create_dir(other.join("directory")).unwrap();
    fs::write(other.join("directory/precious"), "precious").unwrap();
    let untouched = || {
        assert_eq!(fs::read_to_string(other.join("directory/precious")).unwrap(), "precious");
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    };

    // In place of a volume.
    let pod = plugin.pod("a");
    fs::create_dir(pod.path()).unwrap();
    bind(&other, pod.path());
    let status = pod.publish(&store.volume("m")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert!(status.message().contains("something is mounted at the target"), "{status:?}");
    assert_eq!(plugin.leases().len(), 0);
    untouched();
    pod.unpublish().await.unwrap();
    assert!(!pod.path().exists() && plugin.mounts().is_empty());
    untouched();

    // On top of one.
    pod.publish(&store.volume("m")).await.unwrap();
    bind(&other, pod.path());
    pod.unpublish().await.unwrap();
    assert!(!pod.path().exists());
    plugin.assert_nothing_left("after a bind on a volume");
    untouched();

    // And the cache was not below any of it.
    store.stop();
    let list = modelmount::Cache::list(&plugin.cache()).unwrap();
    assert_eq!(list.iter().map(|model| model.files).collect::<Vec<_>>(), [files.len()]);
}

#[tokio::test]
async fn privileged_a_directory_with_content_is_left_alone() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let pod = plugin.pod("a");
    fs::create_dir(pod.path()).unwrap();
    fs::write(pod.path().join("precious"), "precious").unwrap();
    for status in [pod.publish(&store.volume("m")).await.unwrap_err(), pod.unpublish().await.unwrap_err()] {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("not empty"), "{status:?}");
        plugin.assert_nothing_left("with content at the target");
    }
    assert_eq!(fs::read_to_string(pod.path().join("precious")).unwrap(), "precious");
    fs::remove_file(pod.path().join("precious")).unwrap();
    pod.unpublish().await.unwrap();
    assert!(!pod.path().exists());
}

/// Waits until no byte has come through for a while in which many would have.
async fn quiet(proxy: &Proxy) -> u64 {
    let (mut last, mut same) = (proxy.received(), 0);
    until("the download to stop", SOON, async || {
        let now = proxy.received();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 50).then_some(now)
    })
    .await
}

#[tokio::test]
async fn privileged_unpublish_wins_over_a_publish_in_flight() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&["--part-size", "1MiB"]).await;
    let pattern = Pattern::new(1);
    store.put_pattern("m/model.bin", pattern, SIZE).await;
    let volume = store.volume("m");
    store.proxy.throttle(1 << 20);
    let [first, second] = ["first", "second"].map(|name| plugin.pod(name));

    // Nobody else wants it: the download stops.
    let publishing = first.publishing(&volume);
    eventually("the download", SOON, || store.proxy.received() > 1 << 20).await;
    first.unpublish().await.unwrap();
    let status = publishing.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(status.message().contains("unpublished"), "{status:?}");
    plugin.assert_nothing_left("after unpublish");
    assert!(!first.path().exists());
    let stopped_at = quiet(&store.proxy).await;
    assert!(stopped_at < SIZE / 2, "{stopped_at} bytes: it was not stopped, it was over");

    // Somebody else does: it goes on.
    let (publishing, other) = (first.publishing(&volume), second.publishing(&volume));
    eventually("both leases", SOON, || plugin.leases().len() == 2).await;
    eventually("the download", SOON, || store.proxy.received() > stopped_at + (1 << 20)).await;
    first.unpublish().await.unwrap();
    assert_eq!(publishing.await.unwrap().unwrap_err().code(), Code::Aborted);
    let before = store.proxy.received();
    eventually("the download to go on", SOON, || store.proxy.received() > before + (1 << 20)).await;
    store.proxy.throttle(None);
    other.await.unwrap().unwrap();
    assert_eq!(second.files()["model.bin"], pattern.bytes(0, SIZE as usize));
    assert!(first.mount().is_none() && !first.path().exists());
    assert_eq!(plugin.leases().len(), 1);
    // And what the first one had fetched was not lost.
    let received = store.proxy.received();
    assert!(received < SIZE + SIZE / 2, "{received} bytes");
}

#[tokio::test]
async fn privileged_unpublish_during_many_publishes_leaves_nothing() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let volume = store.volume("m");
    let racing = async |pod: Pod| {
        for round in 0..ROUNDS {
            let begun = Instant::now();
            pod.publish(&volume).await.unwrap();
            let usual = begun.elapsed();
            pod.unpublish().await.unwrap();

            // From the publish's beginning to after its end. A timer would be too coarse.
            let (begun, moment) = (Instant::now(), usual * round * 5 / ROUNDS / 4);
            let publishing = pod.publishing(&volume);
            while begun.elapsed() < moment {
                tokio::task::yield_now().await;
            }
            pod.unpublish().await.unwrap();
            match publishing.await.unwrap() {
                // Asked for after the unpublish, or before it and taken away by it.
                Ok(()) => {}
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
            // There is no mount that nobody would ever take away.
            let leased =
                plugin.leases().iter().any(|lease| fs::read_to_string(lease).is_ok_and(|text| text.contains(&pod.id)));
            assert!(pod.mount().is_none() || leased, "a mount without a lease");
            pod.unpublish().await.unwrap();
            assert!(pod.mount().is_none() && !pod.path().exists());
        }
    };
    join_all((0..PODS).map(|i| racing(plugin.pod(&format!("pod-{i}"))))).await;
    plugin.assert_nothing_left("after the races");
}
