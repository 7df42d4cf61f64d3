//! The container's own ways: arguments, exit codes, and what is left of a download that failed.

use std::fs;
use std::process::Command;

use modelmount_test_support::Nginx;

use crate::{Both, differs, environment, names};

#[tokio::test(flavor = "multi_thread")]
async fn several_pairs_of_arguments() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    let Some(both) = Both::new(environment([])) else { return };
    nginx.put("a/one.bin", b"one");
    nginx.put("b/two.bin", b"two");
    let (one, two) = (format!("{}/a/one.bin", nginx.url()), format!("{}/b/two.bin", nginx.url()));
    assert_eq!(
        names(&both.same_all(&[(&one, "first"), (&two, "second/deep")])),
        ["first/one.bin", "second/deep/two.bin"]
    );
    // Into one directory, too.
    assert_eq!(names(&both.same_all(&[(&one, ""), (&two, "")])), ["one.bin", "two.bin"]);

    // In their order, up to the first that fails.
    let none = format!("{}/none.bin", nginx.url());
    let (theirs, ours) = both.download_all(&[(&one, "first"), (&none, "second"), (&two, "third")]);
    let (theirs, ours) = (theirs.unwrap_err(), ours.unwrap_err());
    assert_eq!(names(&theirs.left), ["first/one.bin"]);
    assert_eq!(names(&ours.left), ["first/one.bin"]);
    assert!(ours.said.contains("none.bin"), "{}", ours.said);
}

/// What it begins with is taken for a URI; whatever is wrong with the rest, KServe's script ends with 1. That script is
/// part of its image, and not on PyPI.
#[test]
fn a_uri_without_a_directory() {
    for arguments in [&["s3://models/m"][..], &["/mnt/model"], &["s3://models/m", "/tmp/none/a", "s3://models/n"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_modelmount")).args(arguments).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!fs::exists("/tmp/none").unwrap());
    }
}

#[test]
fn what_is_no_uri_and_what_is_configured_wrong() {
    let Some(both) = Both::new(environment([])) else { return };
    for uri in ["unknown://models/m", "s3://", "gs://", "/mnt/pvc/none"] {
        both.refused(uri);
    }
    let both = both.with("STORAGE_CONFIG", "no JSON: hunter2");
    assert!(!both.refused("s3://models/m").contains("hunter2"));
    let both = both.with("STORAGE_CONFIG", "{}").with("AWS_CA_BUNDLE", "/nonexistent/ca.crt");
    assert!(both.refused("s3://models/m").contains("/nonexistent/ca.crt"));
}

/// Once another container downloaded models there; nothing has come of it since.
#[test]
fn a_model_that_is_said_to_be_there_already() {
    let Some(both) = Both::new(environment([])) else { return };
    differs("models below /mnt/models");
    let (theirs, ours) = both.download("/mnt/models/none");
    assert!(theirs.unwrap().is_empty());
    assert!(ours.unwrap_err().said.contains("/mnt/models/none"));
}
