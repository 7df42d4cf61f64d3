//! Several models in one volume.

use modelmount_test_support::http::{Nginx, PASSWORD, USER};
use modelmount_test_support::model::{self, Files};
use serde_json::json;
use tonic::Code;

use crate::harness::Plugin;
use crate::pod::Volume;
use crate::store::Store;

/// The volume, with these models, each at its path, in place of the one that it names.
fn holding(mut volume: Volume, models: &[(&str, &str)]) -> Volume {
    volume.attributes.remove("modelUri");
    let list: Vec<_> = models.iter().map(|(uri, path)| json!({ "uri": uri, "path": path })).collect();
    volume.with("modelUris", &json!(list).to_string())
}

fn below(path: &str, files: &Files) -> Files {
    files.iter().map(|(name, bytes)| (format!("{path}/{name}"), bytes.clone())).collect()
}

#[tokio::test]
async fn privileged_a_base_and_its_adapters_are_one_volume() {
    let Some(store) = Store::start().await else { return };
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let plugin = Plugin::start(&[]).await;
    let (base, adapter) = (model::small(1), model::small(2));
    store.put_model("base/", &base).await;
    store.put_model("adapter/", &adapter).await;
    nginx.put("extra.bin", b"from a web server");
    let extra = format!("{}/private/extra.bin", nginx.url());
    let models = [("s3://models/base", ""), ("s3://models/adapter", "adapters/a"), (extra.as_str(), "adapters/b")];
    let volume = holding(store.volume("any"), &models).secret("username", USER);

    // Each source is asked with what the volume has for it; one refusal is enough.
    let pod = plugin.pod("a");
    let status = pod.publish(&volume).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("private/extra.bin"), "{status:?}");
    plugin.assert_nothing_left("after a refusal");

    let volume = volume.secret("password", PASSWORD);
    pod.publish(&volume).await.unwrap();
    let mut files = base.clone();
    files.extend(below("adapters/a", &adapter));
    files.insert("adapters/b/extra.bin".to_owned(), b"from a web server".to_vec());
    assert_eq!(pod.files(), files);

    // What another volume has fetched is there already, and opens no door to what this one may not read.
    let other = plugin.pod("b");
    let fetched = store.proxy.sent();
    other.publish(&holding(volume.clone(), &models[..2])).await.unwrap();
    assert!(store.proxy.sent() - fetched < base.values().map(Vec::len).sum::<usize>() as u64);
    let status = plugin.pod("c").publish(&volume.secret("password", "wrong")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn privileged_models_in_each_others_way_are_refused_by_name() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let volume = store.volume("any");
    for (models, code, hint) in [
        (&[("s3://models/m", "a"), ("s3://models/m", "a")][..], Code::FailedPrecondition, "is there twice"),
        (&[("s3://models/m", ""), ("s3://models/m", "config.json")], Code::FailedPrecondition, "also the directory"),
        (&[("s3://models/m", ""), ("s3://models/none", "b")], Code::NotFound, "s3://models/none"),
        (&[("s3://models/m", "../b")], Code::InvalidArgument, "modelUris: the name \"../b\""),
        (&[], Code::InvalidArgument, "modelUris: the list has 0 models"),
    ] {
        let status = plugin.pod("a").publish(&holding(volume.clone(), models)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(hint), "{status:?}");
        plugin.assert_nothing_left(hint);
    }
}
