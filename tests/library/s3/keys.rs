//! Which objects are a model's files, and under which names.

use std::collections::BTreeMap;

use modelmount::{ErrorKind, Manifest};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{Pattern, S3Kind};

use crate::bucket::Bucket;
use crate::node::{Node, assert_snapshot, limits};

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn files(names: &[&str]) -> Files {
    names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), Pattern::new(9).bytes(i as u64 * 8, i))).collect()
}

/// Resolves and fetches the model at `path`, and compares every byte.
async fn arrives(bucket: &Bucket, path: &str, expected: &Files) {
    let (source, manifest) = bucket.resolve(path).await.unwrap_or_else(|error| panic!("{path:?}: {error:?}"));
    let node = Node::new(limits(4));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), expected);
}

async fn prefixes_end_at_slashes(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let (model, other) = (files(&["empty", "a", "b/c", "b/d"]), files(&["empty", "a", "z"]));
    bucket.put_model("team/model", &model).await;
    for sibling in ["team/model-v2", "team/model.bak", "team/model 2", "team/modelb", "team"] {
        bucket.put_model(sibling, &other).await;
    }
    arrives(&bucket, "team/model", &model).await;
    arrives(&bucket, "team/model/", &model).await;
    arrives(&bucket, "team/model/b", &files(&["", "", "b/c", "b/d"]).into_iter().filter_map(strip_b).collect()).await;
    // Half a name is nobody's.
    let error = bucket.resolve("team/mod").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

fn strip_b((name, bytes): (String, Vec<u8>)) -> Option<(String, Vec<u8>)> {
    Some((name.strip_prefix("b/")?.to_owned(), bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_end_at_slashes_on_versitygw() {
    prefixes_end_at_slashes(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_end_at_slashes_on_rclone() {
    prefixes_end_at_slashes(S3Kind::Rclone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_end_at_slashes_on_s3s_fs() {
    prefixes_end_at_slashes(S3Kind::S3sFs).await;
}

/// Names that must be percent-encoded in URLs or escaped in XML arrive as they are: in listings, in directories' names
/// and as exact objects.
async fn odd_names(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let odd = model::odd(1);
    let directory = "m ü+100%25#1&2";
    bucket.put_model(directory, &odd).await;
    arrives(&bucket, directory, &odd).await;
    // What follows a `?` may be a secret: no URI can name such an object exactly.
    for (name, bytes) in odd.iter().filter(|(name, _)| !name.contains('?')) {
        let base = name.rsplit('/').next().unwrap();
        arrives(&bucket, &format!("{directory}/{name}"), &BTreeMap::from([(base.to_owned(), bytes.clone())])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_on_versitygw() {
    odd_names(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_on_rclone() {
    odd_names(S3Kind::Rclone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_on_s3s_fs() {
    odd_names(S3Kind::S3sFs).await;
}

/// Consoles leave zero-byte objects `dir/`, which are no files; zero-byte objects without the slash are. rclone can't
/// hold a marker and what is below it, and makes the object `lone` of the marker `lone/`.
async fn directory_markers(kind: S3Kind) {
    let Some(bucket) = Bucket::start(kind).await else { return };
    let model = files(&["empty", "full/a", "full/deep/b"]);
    for marker in ["m/", "m/full/", "m/full/deep/", "m/lone/", "m/full/lone/"] {
        bucket.put(marker, b"").await;
    }
    bucket.put_model("m", &model).await;
    arrives(&bucket, "m", &model).await;
    arrives(&bucket, "m/", &model).await;

    let (_, manifest) = bucket.resolve("m/empty").await.unwrap();
    assert_eq!(paths(&manifest), ["empty"], "an empty object can be named exactly");
    // s3s-fs fails (500) when it is asked for the object `lone` where there is a marker `lone/`.
    let hollow = if kind == S3Kind::S3sFs { &["m/lone/"][..] } else { &["m/lone", "m/lone/"] };
    for hollow in hollow {
        let error = bucket.resolve(hollow).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{hollow}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_markers_on_versitygw() {
    directory_markers(S3Kind::Versitygw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_markers_on_s3s_fs() {
    directory_markers(S3Kind::S3sFs).await;
}

/// An exact object wins over patterns, and is laid out by its base name; a slash at the end means a directory.
#[tokio::test(flavor = "multi_thread")]
async fn an_exact_object() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    bucket.put("deep/er/m.gguf", b"weights").await;
    bucket.put("deep/er/m.gguf.sha256", b"no part of it").await;
    arrives(&bucket, "deep/er/m.gguf", &BTreeMap::from([("m.gguf".to_owned(), b"weights".to_vec())])).await;

    let mut attributes = bucket.attributes("deep/er/m.gguf");
    attributes.insert("allowPatterns".to_owned(), "*.json".to_owned());
    let (_, manifest) = crate::node::resolve(&attributes, &bucket.credentials()).await.unwrap();
    assert_eq!(paths(&manifest), ["m.gguf"]);

    let error = bucket.resolve("deep/er/m.gguf/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_bucket_and_patterns() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    let all = files(&["empty", "a.json", "sub/b.json", "sub/c.bin"]);
    for (path, bytes) in &all {
        bucket.put(path, bytes).await;
    }
    arrives(&bucket, "", &all).await;
    let mut attributes = bucket.attributes("");
    attributes.insert("allowPatterns".to_owned(), "*.json".to_owned());
    attributes.insert("ignorePatterns".to_owned(), "sub/".to_owned());
    let (_, manifest) = crate::node::resolve(&attributes, &bucket.credentials()).await.unwrap();
    assert_eq!(paths(&manifest), ["a.json"]);
    attributes.insert("allowPatterns".to_owned(), "*.gguf".to_owned());
    let error = crate::node::resolve(&attributes, &bucket.credentials()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("allowPatterns"), "{error:?}");
}

/// More than four pages of a listing, and some empty objects among them, which are looked at more closely.
#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_objects() {
    let Some(bucket) = Bucket::start(S3Kind::Versitygw).await else { return };
    let many = model::many(5, 5_000);
    bucket.put_model("many", &many).await;
    let (source, manifest) = bucket.resolve("many").await.unwrap();
    assert_eq!(manifest.entries().len(), 5_000);
    let node = Node::new(limits(16));
    assert_snapshot(&node.fetch(&source, &manifest).await.unwrap(), &many);
}
