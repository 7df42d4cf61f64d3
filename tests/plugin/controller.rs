//! The Controller service beside the Node service: what a StorageClass says is what a node mounts.

use std::collections::HashMap;

use modelmount_driver::client::connect;
use modelmount_driver::csi::CreateVolumeRequest;
use modelmount_driver::csi::controller_client::ControllerClient;
use modelmount_test_support::model;
use tonic::{Code, Status};

use crate::harness::{Plugin, SOON};
use crate::pod::Volume;
use crate::store::Store;

async fn create(
    plugin: &Plugin,
    name: &str,
    parameters: HashMap<String, String>,
) -> Result<modelmount_driver::csi::Volume, Status> {
    let capability = plugin.pod("any").request(&Volume::default()).volume_capability;
    let request = CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: capability.into_iter().collect(),
        parameters,
        ..Default::default()
    };
    let mut client = ControllerClient::new(connect(&plugin.endpoint()).await.unwrap());
    client.create_volume(request).await.map(|answer| answer.into_inner().volume.unwrap())
}

#[tokio::test]
async fn privileged_what_is_created_can_be_published() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let asked = store.volume("m");
    let mut parameters = asked.attributes.clone();
    // What the provisioner adds.
    parameters.insert("csi.storage.k8s.io/pvc/name".into(), "claim".into());
    let created = create(&plugin, "pvc-1", parameters.clone()).await.unwrap();
    assert_eq!(created.volume_context, asked.attributes);
    assert_eq!(create(&plugin, "pvc-1", parameters).await.unwrap(), created);

    let pod = plugin.pod("a").with_id(&created.volume_id);
    let mut request = pod.request(&asked);
    request.volume_context = created.volume_context;
    request.volume_context.insert("storage.kubernetes.io/csiProvisionerIdentity".into(), "1-2-x".into());
    pod.send(request, SOON).await.unwrap();
    assert_eq!(pod.files(), files);
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("at the end");
}

#[tokio::test]
async fn bad_parameters_are_refused_before_there_is_a_volume() {
    let plugin = Plugin::start(&[]).await;
    let good = || Volume::of("s3://models/m");
    for (volume, words) in [
        (Volume::default(), "modelUri"),
        (Volume::of("s4://x/y"), "s4://"),
        (good().with("allowPattern", "*"), "did you mean \"allowPatterns\"?"),
        (good().with("allowPatterns", "[a"), "valid pattern"),
    ] {
        let status = create(&plugin, "pvc-1", volume.attributes).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(words), "{words}: {status:?}");
        assert!(status.details().is_empty());
    }
    let status = create(&plugin, "", good().attributes).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
