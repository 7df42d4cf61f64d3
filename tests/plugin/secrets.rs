//! Secrets stay in memory, and a cache that is hot opens no door.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use modelmount_test_support::Hdfs;
use modelmount_test_support::hdfs::OWNER;
use modelmount_test_support::http::{Nginx, PASSWORD, USER};
use modelmount_test_support::model;
use tonic::Code;

use crate::harness::{PORTS, Plugin};
use crate::page::get;
use crate::pod::{Pod, Volume};
use crate::store::Store;

/// Files below `directory` in whose path or content the text is.
fn holding(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_dir() {
            found.extend(holding(&path, text));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let named = path.as_os_str().as_encoded_bytes();
        if [named, &content].iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn privileged_secrets_are_never_shown_nor_stored() {
    let Some(store) = Store::start().await else { return };
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let plugin = Plugin::start(&PORTS).await;
    store.put_model("m/", &model::small(1)).await;
    nginx.put("model.gguf", b"weights");
    let signed = |path: &str| Volume::of(&format!("{}/{path}?X-Amz-Signature=CANARY-QUERY", nginx.url()));
    let basic = |password| signed("private/model.gguf").secret("username", USER).secret("password", password);
    let moved = nginx.url().replace("http://", "http://CANARY-USER:CANARY-PASSWORD@");
    let volumes = [
        // Successes.
        (store.volume("m").secret("unused", "CANARY-UNUSED"), Code::Ok),
        (signed("model.gguf").secret("token", "CANARY-TOKEN"), Code::Ok),
        (signed("redirect/model.gguf"), Code::Ok),
        (basic(PASSWORD), Code::Ok),
        // And every way to fail that says something about a request.
        (store.volume("m").secret("AWS_SECRET_ACCESS_KEY", "CANARY-KEY"), Code::Unauthenticated),
        (store.volume("m").secret("AWS_ACCESS_KEY_ID", "CANARY-ID"), Code::Unauthenticated),
        (store.volume("m").secret("AWS_SESSION_TOKEN", "CANARY-SESSION"), Code::Ok),
        (store.volume("missing").secret("unused", "CANARY-UNUSED"), Code::NotFound),
        (signed("missing.gguf").secret("token", "CANARY-TOKEN"), Code::NotFound),
        (signed("model.gguf").secret("headers", "{\"CANARY-HEADER\": 1}"), Code::InvalidArgument),
        (signed("model.gguf").secret("headers", "{\"x y\": \"CANARY-HEADER\"}"), Code::InvalidArgument),
        (signed("model.gguf").secret("token", "a\nCANARY-TOKEN"), Code::InvalidArgument),
        (signed("model.gguf").with("CANARY", "x"), Code::InvalidArgument),
        (basic("CANARY-PASSWORD"), Code::Unauthenticated),
        (Volume::of(&format!("{moved}/model.gguf")), Code::InvalidArgument),
        (Volume::of("http://127.0.0.1:1/m?sig=CANARY-QUERY"), Code::Unavailable),
        (Volume::of("http://CANARY-USER@127.0.0.1:x/m"), Code::InvalidArgument),
        (Volume::of("CANARY-USER:CANARY-PASSWORD@host/m?CANARY-QUERY"), Code::InvalidArgument),
        (store.volume("m").with("endpoint", "http://CANARY-USER:CANARY-PASSWORD@127.0.0.1:1"), Code::InvalidArgument),
    ];
    let mut texts = String::new();
    for (i, (volume, expected)) in volumes.into_iter().enumerate() {
        let pod = plugin.pod(&format!("pod-{i}"));
        let outcome = pod.publish(&volume).await;
        let code = outcome.as_ref().map_or_else(tonic::Status::code, |()| Code::Ok);
        assert!(code == expected || expected == Code::Ok && code == Code::Unauthenticated, "{i}: {outcome:?}");
        if let Err(status) = outcome
            // Attributes are no secrets, and an unknown one is named.
            && !status.message().contains("unknown attribute \"CANARY\"")
        {
            texts.push_str(&format!("{i}: {status:?}\n"));
        }
    }
    let log = plugin.log().replace("unknown attribute \\\"CANARY\\\"", "");
    let [health, metrics] =
        [get(plugin.port("health"), "/readyz").await.body, get(plugin.port("metrics"), "/metrics").await.body];
    for secret in ["CANARY", store.server.secret_key(), store.server.access_key(), PASSWORD] {
        let line = |text: &str| text.lines().find(|line| line.contains(secret)).map(str::to_owned);
        assert_eq!(line(&texts), None, "an answer shows {secret}");
        assert_eq!(line(&log), None, "the log shows {secret}");
        assert_eq!([&health, &metrics].map(|page| line(page)), [None, None], "a page shows {secret}");
        assert_eq!(holding(&plugin.cache(), secret), [] as [PathBuf; 0], "the cache holds {secret}");
    }
    // What is nobody else's business stays out of the metrics too.
    for private in ["model.gguf", "s3://", "pod-0", &store.proxy.url()] {
        assert!(!metrics.contains(private), "{private}: {metrics}");
    }
    // The counter-check.
    assert!(metrics.contains("code=\"UNAUTHENTICATED\""), "{metrics}");
    assert!(!holding(&plugin.cache(), "model.gguf").is_empty());
}

/// Each file has its own rights, and one that may be read says nothing of the others.
#[tokio::test]
async fn privileged_a_cached_file_is_not_given_to_whoever_may_read_another() {
    let Some(hdfs) = Hdfs::shared().await else { return };
    let path = hdfs.new_directory().await;
    hdfs.put(&format!("{path}/m/private.bin"), vec![1; 1000]).await;
    hdfs.put(&format!("{path}/m/public.bin"), vec![2; 100_000]).await;
    let plugin = Plugin::start(&[]).await;
    let uri = format!("webhdfs://{}{path}/m", hdfs.url().replace("http://", ""));
    let volume = Volume::of(&uri).secret("HADOOP_USER_NAME", OWNER);
    let entitled = plugin.pod("entitled");
    entitled.publish(&volume).await.unwrap();

    hdfs.set_permission(&format!("{path}/m/private.bin"), "000").await;
    let other = plugin.pod("other");
    let status = other.publish(&volume).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(other.mount().is_none() && !other.path().exists());
    // What both may read they share.
    let patterns = volume.with("allowPatterns", "public.bin");
    other.publish(&patterns).await.unwrap();
    let inode = |pod: &Pod| fs::metadata(pod.path().join("public.bin")).unwrap().ino();
    assert_eq!(inode(&other), inode(&entitled));
}

#[tokio::test]
async fn privileged_a_cached_model_is_not_given_to_whoever_asks() {
    let Some(store) = Store::start().await else { return };
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    nginx.put("model.gguf", b"weights");
    let private = Volume::of(&format!("{}/private/model.gguf", nginx.url())).secret("username", USER);
    for (name, right, wrong) in [
        (
            "s3",
            store.volume("m"),
            vec![
                store.volume("m").secret("AWS_SECRET_ACCESS_KEY", "wrong"),
                Volume { secrets: Default::default(), ..store.volume("m") },
            ],
        ),
        (
            "http",
            private.clone().secret("password", PASSWORD),
            vec![private.clone().secret("password", "wrong"), Volume { secrets: Default::default(), ..private }],
        ),
    ] {
        let entitled = plugin.pod(&format!("entitled-{name}"));
        entitled.publish(&right).await.unwrap();
        for (i, wrong) in wrong.iter().enumerate() {
            let pod = plugin.pod(&format!("other-{name}-{i}"));
            let status = pod.publish(wrong).await.unwrap_err();
            assert!(matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied), "{name}: {status:?}");
            assert!(pod.mount().is_none() && !pod.path().exists());
        }
        assert_eq!((plugin.mounts().len(), plugin.leases().len()), (1, 1));
        entitled.unpublish().await.unwrap();
    }
}
