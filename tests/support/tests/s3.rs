//! The S3 servers do what the tests that use them rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;

use modelmount_test_support::model::{self, ODD_NAMES, Pattern};
use modelmount_test_support::s3::{PART_SIZE, S3Kind, S3Server};
use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};

fn object_store_client(server: &S3Server, bucket: &str, secret: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_access_key_id(server.access_key())
        .with_secret_access_key(secret)
        .build()
        .unwrap()
}

async fn a_server_holds_what_it_is_given(kind: S3Kind) {
    let Some(server) = S3Server::start(kind).await else { return };
    server.create_bucket("models").await;
    let mut files = model::small(1);
    files.extend(model::odd(2));
    server.put_model("models", "m/", &files).await;
    server.put_model("models", "m-v2/", &model::small(3)).await;
    for (path, bytes) in &files {
        assert_eq!(server.get("models", &format!("m/{path}")).await.as_deref(), Some(&bytes[..]), "{kind:?}: {path}");
    }
    let mut listed = server.keys("models", "m/").await;
    listed.sort();
    let expected: Vec<_> = files.keys().map(|path| format!("m/{path}")).collect();
    assert_eq!(listed, expected, "{kind:?}");
    assert!(server.data_dir().join("models/m").join(ODD_NAMES[0]).exists());

    let first = server.etag("models", "m/config.json").await.unwrap();
    server.put("models", "m/config.json", "other").await;
    assert_ne!(server.etag("models", "m/config.json").await.unwrap(), first, "{kind:?}");
    server.delete("models", "m/config.json").await;
    assert_eq!(server.get("models", "m/config.json").await, None, "{kind:?}");
    assert_eq!(server.etag("models", "m/config.json").await, None, "{kind:?}");
}

async fn large_objects_are_put_in_parts(kind: S3Kind) {
    let Some(server) = S3Server::start(kind).await else { return };
    server.create_bucket("models").await;
    let (pattern, size) = (Pattern::new(5), 2 * PART_SIZE + 12_345);
    server.put_pattern("models", "big model.bin", pattern, size).await;
    let bytes = server.get("models", "big model.bin").await.unwrap();
    assert!(bytes == pattern.bytes(0, size as usize), "{kind:?}");
    let etag = server.etag("models", "big model.bin").await.unwrap();
    assert_eq!(server.etag("models", "big model.bin").await.unwrap(), etag, "{kind:?}");
    assert_eq!(etag.ends_with("-3\""), kind != S3Kind::Rclone, "{kind:?}: {etag}");
}

async fn an_independent_client_agrees(kind: S3Kind) {
    let Some(server) = S3Server::start(kind).await else { return };
    server.create_bucket("models").await;
    server.put("models", "m/a b+c.txt", "hello").await;
    let path = object_store::path::Path::from("m/a b+c.txt");
    let bytes =
        object_store_client(&server, "models", server.secret_key()).get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, "hello");
    let refused = object_store_client(&server, "models", "wrong").get(&path).await.unwrap_err();
    assert!(matches!(refused, object_store::Error::PermissionDenied { .. }), "{kind:?}: {refused:?}");
}

async fn nothing_is_left_of_a_dropped_server(kind: S3Kind) {
    let Some(server) = S3Server::start(kind).await else { return };
    let (address, data) = (server.address(), server.data_dir().to_owned());
    let pid = server.process().map(|process| process.pid());
    assert_eq!(pid.is_none(), kind == S3Kind::S3sFs);
    drop(server);
    if let Some(pid) = pid {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    assert!(!data.exists());
    modelmount_test_support::eventually("the port to be closed", std::time::Duration::from_secs(5), || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}

macro_rules! for_each_server {
    ($($name:ident: $kind:expr),*) => { $(mod $name {
        use super::*;
        #[tokio::test]
        async fn holds_what_it_is_given() { a_server_holds_what_it_is_given($kind).await; }
        #[tokio::test]
        async fn takes_large_objects_in_parts() { large_objects_are_put_in_parts($kind).await; }
        #[tokio::test]
        async fn agrees_with_an_independent_client() { an_independent_client_agrees($kind).await; }
        #[tokio::test]
        async fn leaves_nothing_when_dropped() { nothing_is_left_of_a_dropped_server($kind).await; }
    })* };
}
for_each_server!(versitygw: S3Kind::Versitygw, rclone: S3Kind::Rclone, s3s_fs: S3Kind::S3sFs);

/// What the table in the module's documentation says.
#[tokio::test]
async fn servers_differ_as_documented() {
    for kind in S3Kind::ALL {
        let Some(server) = S3Server::start(kind).await else { continue };
        server.create_bucket("markers").await;
        server.put("markers", "dir/", "").await;
        let marker = match kind {
            S3Kind::Versitygw => &["dir/"][..],
            S3Kind::Rclone => &["dir"],
            S3Kind::S3sFs => &[],
        };
        assert_eq!(server.keys("markers", "").await, marker, "{kind:?}");

        server.create_bucket("slashes").await;
        let slashes = server.try_put("slashes", "a//b", "x").await;
        assert_eq!(slashes.is_err(), kind == S3Kind::Rclone, "{kind:?}: {slashes:?}");
        if slashes.is_ok() {
            assert_eq!(server.keys("slashes", "").await, ["a/b"], "{kind:?}");
        }

        server.create_bucket("nested").await;
        server.put("nested", "a/b", "x").await;
        server.try_put("nested", "a", "x").await.unwrap_err();

        server.create_bucket("direct").await;
        server.put("direct", "first", "x").await;
        std::fs::write(server.data_dir().join("direct/object"), "x").unwrap();
        let etag = server.etag("direct", "object").await;
        assert_eq!(etag.is_some(), kind == S3Kind::S3sFs, "{kind:?}: {etag:?}");

        server.put("direct", "ranged", "0123456789").await;
        let client = object_store_client(&server, "direct", server.secret_key());
        let ranged = client.get_range(&"ranged".into(), 2..5).await;
        assert_eq!(ranged.is_err(), kind == S3Kind::Rclone, "{kind:?}: {ranged:?}");
    }
}
