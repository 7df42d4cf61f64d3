//! From a claim to a mounted model: the Controller service, alone or beside the Node service, with a real S3 server.

use std::collections::HashMap;

use modelmount_driver::client::connect;
use modelmount_driver::csi::controller_client::ControllerClient;
use modelmount_driver::csi::{CapacityRange, CreateVolumeRequest, DeleteVolumeRequest};
use modelmount_test_support::Pattern;
use modelmount_test_support::model::{self, Files};
use tonic::{Code, Status};

use crate::harness::{Controller, Plugin, SOON};
use crate::pod::{Pod, Volume};
use crate::store::Store;

/// What the provisioner asks for a claim named `claim`, of a class with this volume's attributes and secrets.
fn asked_for(plugin: &Plugin, volume: &Volume) -> CreateVolumeRequest {
    let mut parameters = volume.attributes.clone();
    for (key, value) in [("pvc/name", "claim"), ("pvc/namespace", "team"), ("pv/name", "pvc-1")] {
        parameters.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    let capability = plugin.pod("any").request(&Volume::default()).volume_capability;
    CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        volume_capabilities: capability.into_iter().collect(),
        parameters,
        secrets: volume.secrets.clone(),
        ..Default::default()
    }
}

async fn create(endpoint: &str, request: CreateVolumeRequest) -> Result<modelmount_driver::csi::Volume, Status> {
    let mut client = ControllerClient::new(connect(endpoint).await.unwrap());
    client.create_volume(request).await.map(|answer| answer.into_inner().volume.unwrap())
}

/// The volume as kubelet publishes it, with the secrets of `volume`.
async fn publish(pod: &Pod, volume: &Volume, context: &HashMap<String, String>) -> Result<(), Status> {
    let mut request = pod.request(volume);
    request.volume_context.clone_from(context);
    request.volume_context.insert("storage.kubernetes.io/csiProvisionerIdentity".into(), "1-2-x".into());
    pod.send(request, SOON).await
}

#[tokio::test]
async fn privileged_every_node_mounts_what_the_claim_was_given_or_nothing() {
    let Some(store) = Store::start().await else { return };
    let controller = Controller::start().await;
    let nodes = [Plugin::start(&[]).await, Plugin::start(&[]).await];
    let files = model::small(1);
    store.put_model("team/m/", &files).await;
    let asked = store.volume("${pvc.namespace}/m");
    let created = create(&controller.endpoint(), asked_for(&nodes[0], &asked)).await.unwrap();
    assert_eq!(created.volume_context["modelUri"], "s3://models/team/m");
    assert_eq!(created.capacity_bytes as usize, files.values().map(Vec::len).sum::<usize>());
    // A node plugin that serves the controller as well says the same.
    assert_eq!(create(&nodes[0].endpoint(), asked_for(&nodes[0], &asked)).await.unwrap(), created);

    let first = nodes[0].pod("a").with_id(&created.volume_id);
    publish(&first, &asked, &created.volume_context).await.unwrap();
    assert_eq!(first.files(), files);

    // The model changes at its source: the next node has no such version to mount, and says so.
    let changed: Files = files.keys().map(|path| (path.clone(), b"changed".to_vec())).collect();
    store.put_model("team/m/", &changed).await;
    let second = nodes[1].pod("b").with_id(&created.volume_id);
    let status = publish(&second, &asked, &created.volume_context).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("is pinned to the version"), "{}", status.message());
    nodes[1].assert_nothing_left("after a refusal");
    // Who has it keeps it; kubelet's repetition needs no source.
    publish(&first, &asked, &created.volume_context).await.unwrap();
    assert_eq!(first.files(), files);

    // A volume that is made now is of the new version; deleting one takes nothing from the cache.
    let fresh = create(&controller.endpoint(), asked_for(&nodes[0], &asked)).await.unwrap();
    assert_eq!(fresh.volume_id, created.volume_id);
    publish(&second, &asked, &fresh.volume_context).await.unwrap();
    assert_eq!(second.files(), changed);
    first.unpublish().await.unwrap();
    let mut client = ControllerClient::new(connect(&nodes[0].endpoint()).await.unwrap());
    let request = DeleteVolumeRequest { volume_id: created.volume_id.clone(), ..Default::default() };
    client.delete_volume(request).await.unwrap();
    let cached = nodes[0].cache().join("snapshots").read_dir().unwrap().count();
    assert_eq!(cached, 1);
    second.unpublish().await.unwrap();
    nodes.iter().for_each(|node| node.assert_nothing_left("at the end"));
}

#[tokio::test]
async fn a_secret_that_is_changed_later_leads_a_pinned_volume_nowhere() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let mut volume = store.volume("m");
    volume.attributes.remove("endpoint");
    let volume = volume.secret("AWS_ENDPOINT_URL", &store.proxy.url());
    let created = create(&plugin.endpoint(), asked_for(&plugin, &volume)).await.unwrap();

    // The same model, to the byte and the version, at another address.
    let moved = volume.secret("AWS_ENDPOINT_URL", &format!("http://{}", store.server.address()));
    let pod = plugin.pod("a").with_id(&created.volume_id);
    let status = publish(&pod, &moved, &created.volume_context).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("is pinned to the version"), "{}", status.message());
    plugin.assert_nothing_left("after a refusal");
}

#[tokio::test]
async fn a_large_model_is_resolved_and_not_downloaded() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let size = 64 << 20;
    store.put_pattern("m/model.bin", Pattern::new(1), size).await;
    let before = store.proxy.received();
    let created = create(&plugin.endpoint(), asked_for(&plugin, &store.volume("m"))).await.unwrap();
    assert_eq!(created.capacity_bytes as u64, size);
    let came = store.proxy.received() - before;
    assert!(came < 64 << 10, "{came} bytes came");

    let too_little = CreateVolumeRequest {
        capacity_range: Some(CapacityRange { required_bytes: 1 << 20, limit_bytes: 0 }),
        ..asked_for(&plugin, &store.volume("m"))
    };
    let status = create(&plugin.endpoint(), too_little).await.unwrap_err();
    assert!(status.code() == Code::OutOfRange && status.message().contains("storage: 64Mi"), "{status:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_claim_is_said_at_once_and_what_may_pass_is_tried_again() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let good = || store.volume("m");
    let nobody = Volume { secrets: HashMap::new(), ..good() };
    for (volume, code, words) in [
        (Volume::default(), Code::InvalidArgument, "modelUri"),
        (Volume::of("s4://x/y"), Code::InvalidArgument, "s4://"),
        (good().with("allowPattern", "*"), Code::InvalidArgument, "did you mean \"allowPatterns\"?"),
        (good().with("allowPatterns", "[a"), Code::InvalidArgument, "valid pattern"),
        (store.volume("missing"), Code::NotFound, "has no object there"),
        (good().with("modelUri", "s3://absent/m"), Code::NotFound, "no bucket"),
        (good().with("allowedUris", "s3://models/other"), Code::PermissionDenied, "does not allow s3://models/m"),
        (good().secret("AWS_SECRET_ACCESS_KEY", "wrong"), Code::Unauthenticated, "does not accept the credentials"),
        (nobody, Code::Unauthenticated, "provisioner-secret-name"),
        (good().with("endpoint", "http://127.0.0.1:1"), Code::Unavailable, "127.0.0.1:1"),
    ] {
        let status = create(&plugin.endpoint(), asked_for(&plugin, &volume)).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(words), "{words}: {status:?}");
        assert!(status.details().is_empty());
    }
    let request = CreateVolumeRequest { name: String::new(), ..asked_for(&plugin, &good()) };
    assert_eq!(create(&plugin.endpoint(), request).await.unwrap_err().code(), Code::InvalidArgument);
    create(&plugin.endpoint(), asked_for(&plugin, &good())).await.unwrap();
}
