//! HDFS, by the client that KServe's image has, on a real Hadoop.
//!
//! Without Kerberos KServe's says of nobody that he asks, so that what is read here everybody may read, or `alice`, whom
//! her certificate's bearer may stand in for.

use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use modelmount_test_support::model;
use modelmount_test_support::{Hdfs, tools};
use serde_json::json;

use crate::{Both, differs, environment, names, packed};

const MODEL: &[(&str, &[u8])] =
    &[("m/config.json", b"{}"), ("m/weights/1.bin", b"one"), ("m/weights/deep/2.bin", b"two"), ("m-v2/x", b"x")];

/// A directory that everybody may read, with both programs; the path has no slash at its beginning.
async fn start() -> Option<(Arc<Hdfs>, Both, String)> {
    tools::require("kserve-hdfs")?;
    let both = Both::new(environment([]))?;
    let hdfs = Hdfs::shared().await?;
    let path = hdfs.new_directory().await;
    for (name, bytes) in MODEL {
        hdfs.put(&format!("{path}/{name}"), bytes.to_vec()).await;
    }
    hdfs.set_permission(&path, "755").await;
    Some((hdfs, both, path.trim_start_matches('/').to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_files_and_patterns() {
    let Some((hdfs, both, path)) = start().await else { return };
    let config = json!({"type": "hdfs", "HDFS_NAMENODE": hdfs.url()});
    let both = both.with("STORAGE_CONFIG", &config.to_string());
    let all = ["config.json", "weights/1.bin", "weights/deep/2.bin"];
    for uri in [format!("hdfs://{path}/m"), format!("webhdfs://{path}/m"), format!("hdfs://{path}/m/")] {
        assert_eq!(names(&both.same(&uri)), all, "{uri}");
    }
    assert_eq!(names(&both.same(&format!("hdfs://{path}/m/weights/1.bin"))), ["1.bin"]);
    assert!(both.refused(&format!("hdfs://{path}/none")).contains("none"));
    differs("more forms of URI");
    let (theirs, ours) = both.download(&format!("hdfs:///{path}/m"));
    theirs.unwrap_err();
    assert_eq!(names(&ours.unwrap()), all);

    let scratch = tempfile::tempdir().unwrap();
    hdfs.put(&format!("/{path}/m.tar.gz"), packed(&model::small(1), scratch.path())).await;
    assert_eq!(both.same(&format!("hdfs://{path}/m.tar.gz")), model::small(1));

    let both = both.with("STORAGE_ALLOW_PATTERNS", "*.json");
    assert_eq!(names(&both.same(&format!("hdfs://{path}/m"))), ["config.json"]);
    differs("patterns of directories");
    let (theirs, ours) = both.with("STORAGE_ALLOW_PATTERNS", "weights/*").download(&format!("hdfs://{path}/m"));
    assert!(theirs.unwrap().is_empty());
    assert_eq!(names(&ours.unwrap()), ["weights/1.bin", "weights/deep/2.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_as_files_and_a_root_path() {
    let Some((hdfs, both, path)) = start().await else { return };
    let secret = both.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("HDFS_NAMENODE"), hdfs.url()).unwrap();
    fs::write(secret.join("HDFS_ROOTPATH"), format!("/{path}")).unwrap();
    fs::write(secret.join("HEADERS"), r#"{"x-test": "1"}"#).unwrap();
    let both = both.with("HDFS_SECRET_DIR", secret.to_str().unwrap());
    assert_eq!(names(&both.same("hdfs://m/weights")), ["1.bin", "deep/2.bin"]);
    fs::write(secret.join("HDFS_NAMENODE"), "http://127.0.0.1:1").unwrap();
    both.refused("hdfs://m/weights");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_a_secret() {
    let Some((hdfs, both, path)) = start().await else { return };
    let certificates = hdfs.certificates();
    let mut config = json!({"type": "webhdfs", "HDFS_NAMENODE": hdfs.tls_url()});
    let uri = format!("webhdfs://{path}/m");
    let both = both.with("STORAGE_CONFIG", &config.to_string());
    both.refused(&uri);
    for (key, pem) in [
        ("TLS_CA", &certificates.ca_pem),
        ("TLS_CERT", &certificates.client_pem),
        ("TLS_KEY", &certificates.client_key_pem),
    ] {
        config[key] = json!(STANDARD.encode(pem));
    }
    let both = both.with("STORAGE_CONFIG", &config.to_string());
    assert_eq!(both.same(&uri).len(), 3);
}
