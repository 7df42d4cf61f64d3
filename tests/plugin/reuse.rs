//! A volume id, or a target, that is used a second time for something else.

use modelmount_driver::csi::volume_capability::AccessType;
use modelmount_test_support::model;
use tonic::Code;

use crate::harness::{Plugin, SOON};
use crate::store::Store;

#[tokio::test]
async fn privileged_a_volume_is_not_two_models() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    store.put_model("n/", &model::small(2)).await;
    let (pod, volume) = (plugin.pod("a"), store.volume("m"));
    pod.publish(&volume).await.unwrap();

    for other in [store.volume("n"), volume.clone().with("allowPatterns", "*.json")] {
        let status = pod.publish(&other).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
        assert!(status.message().contains("with other attributes"), "{status:?}");
    }
    assert_eq!((plugin.mounts().len(), plugin.leases().len()), (1, 1));
    assert_eq!(pod.files(), files);

    // Another target is another matter: a claim that two pods share, also when its mount options were edited in between.
    let elsewhere = pod.at(&plugin.pod("b").target);
    let mut edited = elsewhere.request(&volume);
    let access = edited.volume_capability.as_mut().unwrap().access_type.as_mut();
    let Some(AccessType::Mount(mount)) = access else { panic!() };
    mount.mount_flags.push("noexec".to_owned());
    elsewhere.send(edited, SOON).await.unwrap();
    assert!(elsewhere.mount().unwrap().no_exec && !pod.mount().unwrap().no_exec);
    pod.unpublish().await.unwrap();
    assert_eq!(elsewhere.files(), files);
    elsewhere.unpublish().await.unwrap();
    plugin.assert_nothing_left("at the end");
    // And once it is unpublished, the id is free.
    pod.publish(&store.volume("n")).await.unwrap();
    assert_eq!(pod.files(), model::small(2));
}

#[tokio::test]
async fn privileged_a_target_is_not_two_volumes() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    store.put_model("n/", &model::small(2)).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    let intruder = pod.with_id("intruder");
    let status = intruder.publish(&store.volume("n")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert_eq!((plugin.mounts().len(), plugin.leases().len()), (1, 1));
    assert_eq!(pod.files(), model::small(1));
}
