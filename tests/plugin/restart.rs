//! The plugin goes and comes back; the volumes stay.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use modelmount_test_support::model;
use modelmount_test_support::wait::eventually;

use crate::harness::{Plugin, SOON, bind};
use crate::store::Store;

/// A program in a pod that never stops reading: one file that it holds open, and one that it opens again and again.
struct Reader {
    passes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Reader {
    fn start(file: &Path, content: &[u8]) -> Self {
        let (passes, stop): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (counted, ended) = (Arc::clone(&passes), Arc::clone(&stop));
        let (path, content) = (file.to_owned(), content.to_owned());
        let body = move || {
            let held = fs::File::open(&path).unwrap();
            let mut buffer = vec![0; content.len()];
            while !ended.load(Ordering::SeqCst) {
                held.read_exact_at(&mut buffer, 0).unwrap();
                assert!(buffer == content && fs::read(&path).unwrap() == content, "the content changed");
                counted.fetch_add(1, Ordering::SeqCst);
            }
        };
        Self { passes, stop, thread: Some(thread::spawn(body)) }
    }

    /// Waits until it has read it all once more.
    async fn reads_on(&self) {
        let before = self.passes.load(Ordering::SeqCst);
        eventually("the reader to go on", SOON, || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the reader failed");
            self.passes.load(Ordering::SeqCst) > before + 1
        })
        .await;
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().expect("no read ever failed");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn privileged_reads_go_on_while_the_plugin_is_killed_and_started_again() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    pod.publish(&volume).await.unwrap();
    let usage = pod.stats().await.unwrap();
    let weights = "model.safetensors";
    let reader = Reader::start(&pod.path().join(weights), &files[weights]);
    reader.reads_on().await;

    plugin.kill();
    reader.reads_on().await;
    plugin.restart().await;
    reader.reads_on().await;
    // An upgrade.
    assert!(plugin.terminate().await.success());
    reader.reads_on().await;
    plugin.restart().await;
    reader.reads_on().await;

    store.stop();
    pod.publish(&volume).await.unwrap();
    assert_eq!(pod.stats().await.unwrap(), usage);
    assert_eq!(plugin.mounts().len(), 1);
    reader.reads_on().await;
    reader.stop();
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after restarts");
}

#[tokio::test]
async fn privileged_a_mount_without_a_lease_is_taken_over() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    pod.publish(&volume).await.unwrap();
    plugin.kill();
    for lease in plugin.leases() {
        fs::remove_file(lease).unwrap();
    }
    plugin.restart().await;
    assert!(plugin.log().contains("a model is mounted that no lease names"), "{}", plugin.log());
    assert_eq!(plugin.leases().len(), 1, "what a pod reads must not be evicted");
    assert_eq!(pod.files(), files);
    // A publish finds it mounted, once the source has said who it is.
    pod.publish(&volume).await.unwrap();
    assert_eq!((plugin.mounts().len(), pod.stats().await.unwrap().1), (1, files.len() as u64));
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a lease was lost");

    // And without a publish in between.
    pod.publish(&volume).await.unwrap();
    plugin.kill();
    for lease in plugin.leases() {
        fs::remove_file(lease).unwrap();
    }
    plugin.restart().await;
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a lease was lost for good");
}

#[tokio::test]
async fn privileged_a_containers_mount_of_a_directory_is_not_taken_over() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    // Where kubelet puts a `subPath`.
    let inner = plugin.kubelet().join("pods/a-uid/volume-subpaths/model/container/0");
    fs::create_dir_all(&inner).unwrap();
    bind(&pod.path().join("tokenizer"), &inner);
    plugin.kill();
    plugin.restart().await;
    assert_eq!(plugin.leases().len(), 1, "{}", plugin.log());
    assert_eq!(plugin.mounts().len(), 2);
}

#[tokio::test]
async fn privileged_a_volume_whose_directory_is_gone_has_no_lease() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let [gone, stays] = ["gone", "stays"].map(|name| plugin.pod(name));
    for pod in [&gone, &stays] {
        pod.publish(&store.volume("m")).await.unwrap();
    }
    plugin.kill();
    plugin.unmount_all();
    // The node was made anew, but for the disk of the cache.
    fs::remove_dir_all(plugin.kubelet().join("pods/gone-uid")).unwrap();
    plugin.restart().await;
    assert_eq!(plugin.leases().len(), 1, "{}", plugin.log());
    store.stop();
    stays.publish(&store.volume("m")).await.unwrap();
}

#[tokio::test]
async fn privileged_a_lease_that_was_not_told_what_it_holds_is() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    let usage = pod.stats().await.unwrap();
    plugin.kill();
    // What a kill between the mount and the lease's last change leaves.
    let lease = plugin.leases().remove(0);
    let mut noted: serde_json::Value = serde_json::from_slice(&fs::read(&lease).unwrap()).unwrap();
    (noted["bytes"], noted["files"]) = (0.into(), 0.into());
    fs::write(&lease, noted.to_string()).unwrap();
    plugin.restart().await;
    assert!(pod.stats().await.is_err());
    // While it can't be told, nothing is taken from the pod: neither the mount nor the lease.
    let in_the_way = lease.with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    let status = pod.publish(&store.volume("m")).await.unwrap_err();
    assert!(status.message().contains("can't write the lease"), "{status:?}");
    assert!(lease.exists());
    assert_eq!(pod.files(), files);
    fs::remove_dir(&in_the_way).unwrap();
    pod.publish(&store.volume("m")).await.unwrap();
    assert_eq!(pod.stats().await.unwrap(), usage);
}

#[tokio::test]
async fn privileged_after_a_reboot_volumes_come_back_without_network() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let volume = store.volume("m");
    let [back, gone] = ["back", "gone"].map(|name| plugin.pod(name));
    for pod in [&back, &gone] {
        pod.publish(&volume).await.unwrap();
    }
    plugin.kill();
    plugin.unmount_all();
    store.stop();
    plugin.restart().await;
    // The directory is still there, the mount is not.
    assert!(back.path().is_dir() && back.mount().is_none());
    back.publish(&volume).await.unwrap();
    assert_eq!(back.files(), files);
    assert_eq!(back.stats().await.unwrap().1, files.len() as u64);
    gone.unpublish().await.unwrap();
    assert!(!gone.path().exists());
    back.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a reboot");
}

#[tokio::test]
async fn privileged_a_refusal_after_a_reboot_leaves_no_lease() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    pod.publish(&volume).await.unwrap();
    plugin.kill();
    plugin.unmount_all();
    plugin.restart().await;
    // Somebody has written to what was the target.
    fs::write(pod.path().join("precious"), "precious").unwrap();
    let status = pod.publish(&volume).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert_eq!(fs::read_to_string(pod.path().join("precious")).unwrap(), "precious");
    // Kubelet will not unpublish after this.
    plugin.assert_nothing_left("after a final code");
}

#[tokio::test]
async fn privileged_a_kubelet_directory_behind_a_link_is_the_same_one() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::behind_a_link().await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    pod.publish(&volume).await.unwrap();
    plugin.kill();
    plugin.restart().await;
    assert_eq!(plugin.leases().len(), 1, "the mount's lease is known, under whatever name");
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a restart");

    pod.publish(&volume).await.unwrap();
    plugin.kill();
    for lease in plugin.leases() {
        fs::remove_file(lease).unwrap();
    }
    plugin.restart().await;
    assert_eq!(plugin.leases().len(), 1);
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a lease was lost");
}
