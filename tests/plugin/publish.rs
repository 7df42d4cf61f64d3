//! A volume's life when all is well.

use modelmount_driver::csi::volume_capability::AccessType;
use modelmount_test_support::model::Files;
use modelmount_test_support::{Nginx, Pattern, model};
use tonic::Code;

use crate::harness::{Plugin, SOON};
use crate::pod::Volume;
use crate::store::Store;

#[tokio::test]
async fn privileged_a_model_becomes_a_read_only_volume() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    // Files of nothing, names that are hard to quote, and one of several parts.
    let mut files = model::small(1);
    files.extend(model::odd(2));
    files.insert("large.bin".into(), Pattern::new(3).bytes(0, (17 << 20) + 1));
    store.put_model("whole/", &files).await;
    store.put_model("whole-sibling/", &model::small(4)).await;
    let size = files.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let volume = store.volume("whole");

    let first = plugin.pod("first");
    first.publish(&volume).await.unwrap();
    assert_eq!(first.files(), files);
    assert_eq!(first.stats().await.unwrap(), (size, files.len() as u64));
    let mount = first.mount().unwrap();
    assert!(mount.read_only && mount.no_suid && mount.no_dev && !mount.no_exec, "{mount:?}");

    // The second pod costs a listing and a question, and no content.
    let before = store.proxy.received();
    let second = plugin.pod("second");
    second.publish(&volume.clone().with("allowPatterns", "*")).await.unwrap();
    assert_eq!(second.files(), files);
    let cost = store.proxy.received() - before;
    assert!(cost < 64 << 10, "{cost} bytes for a model of {size} that was there");

    // Kubelet repeats every publish after its own restart, also when the source is down.
    store.stop();
    first.publish(&volume).await.unwrap();
    assert_eq!(plugin.mounts().len(), 2, "mounts are stacked");
    // A slash at the end is the same target.
    let mut spelt = first.request(&volume);
    spelt.target_path.push('/');
    first.send(spelt, SOON).await.unwrap();

    first.unpublish().await.unwrap();
    assert!(first.mount().is_none() && !first.path().exists());
    assert_eq!(first.stats().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(second.files(), files, "the other pod's volume is untouched");
    first.unpublish().await.unwrap();
    plugin.pod("unknown").unpublish().await.unwrap();
    second.unpublish().await.unwrap();
    plugin.assert_nothing_left("at the end");
}

/// Each volume is what the server had when the volume was published, and stays that.
#[tokio::test]
async fn privileged_a_server_that_tells_no_versions_is_read_for_each_volume() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let volume = Volume::of(&format!("{}/novalidator/m.bin", nginx.url()));
    let holds = |content: &[u8]| -> Files { [("m.bin".to_owned(), content.to_vec())].into() };
    let [old, new] = [1, 2].map(|seed| Pattern::new(seed).bytes(0, 1 << 20));

    nginx.put("m.bin", &old);
    let first = plugin.pod("first");
    first.publish(&volume).await.unwrap();
    nginx.put("m.bin", &new);
    let second = plugin.pod("second");
    second.publish(&volume).await.unwrap();
    assert_eq!((first.files(), second.files()), (holds(&old), holds(&new)));

    // Repeated, also by a kubelet that finds another plugin; and after a reboot.
    first.publish(&volume).await.unwrap();
    plugin.restart().await;
    first.publish(&volume).await.unwrap();
    assert_eq!(plugin.mounts().len(), 2);
    plugin.kill();
    plugin.unmount_all();
    plugin.restart().await;
    first.publish(&volume).await.unwrap();
    assert_eq!(first.files(), holds(&old));
    for pod in [first, second] {
        pod.unpublish().await.unwrap();
    }
    plugin.assert_nothing_left("at the end");
}

#[tokio::test]
async fn privileged_stats_are_of_this_volume_at_this_path() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    let other_id = pod.with_id("other");
    let other_path = pod.at(&plugin.pod("b").target);
    let relative = pod.at("some/path");
    for stranger in [other_id, other_path, relative] {
        assert_eq!(stranger.stats().await.unwrap_err().code(), Code::NotFound);
    }
    // What the node has lost is not reported as there.
    plugin.unmount_all();
    assert_eq!(pod.stats().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn privileged_mount_flags_and_patterns_are_honoured() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let mut files = model::small(1);
    store.put_model("m/", &files).await;
    let pod = plugin.pod("a");
    let volume = store.volume("m").with("allowPatterns", "*.json,tokenizer/").with("ignorePatterns", "*/deep/*");
    let mut request = pod.request(&volume);
    // A PersistentVolume's mountOptions.
    let capability = request.volume_capability.as_mut().unwrap();
    let Some(AccessType::Mount(mount)) = &mut capability.access_type else {
        unreachable!("a pod asks for a mount");
    };
    mount.mount_flags = vec!["noexec".into()];
    pod.send(request, SOON).await.unwrap();
    let mount = pod.mount().unwrap();
    assert!(mount.no_exec && mount.read_only && mount.no_suid && mount.no_dev, "{mount:?}");
    files.retain(|path, _| matches!(path.as_str(), "config.json" | "tokenizer/vocab.txt"));
    assert_eq!(pod.files(), files);
}
