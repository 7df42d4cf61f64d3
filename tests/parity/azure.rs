//! Azure, by Microsoft's own clients: blobs on Azurite, files on an emulator.
//!
//! KServe knows accounts by the hosts' names alone. So the hosts are played by [`Hosts`], with TLS, a certificate, and a
//! proxy in front, where both programs look for them by `HTTPS_PROXY`.

use modelmount_test_support::azure_blob::{FAR_FUTURE, LONG_AGO};
use modelmount_test_support::{Azurite, FileShares, Hosts, model};

use crate::{Both, below, differs, environment, names, packed};

const MODEL: &[(&str, &[u8])] =
    &[("m/config.json", b"{}"), ("m/weights/1.bin", b"one"), ("m/weights/deep/2.bin", b"two"), ("other/x", b"x")];

/// Both programs, as nobody; and how URIs of the account's containers begin.
async fn start() -> Option<(Azurite, Hosts, Both, String)> {
    let server = Azurite::start().await?;
    server.create_container("models").await;
    for (name, bytes) in MODEL {
        server.put("models", name, bytes.to_vec()).await;
    }
    let hosts = Hosts::start(&[("*.blob.core.windows.net", server.address())]).await;
    let both = Both::new(environment([]))?.among(&hosts);
    let account = format!("https://{}.blob.core.windows.net", server.account());
    Some((server, hosts, both, account))
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_blobs_and_patterns() {
    let Some((server, _hosts, both, account)) = start().await else { return };
    let both = both.with("AZURE_STORAGE_ACCESS_KEY", &server.key());
    let all = ["config.json", "weights/1.bin", "weights/deep/2.bin"];
    assert_eq!(names(&both.same(&format!("{account}/models/m"))), all);
    assert_eq!(names(&both.same(&format!("{account}/models/m/"))), all);
    assert_eq!(names(&both.same(&format!("{account}/models/m/weights"))), ["1.bin", "deep/2.bin"]);
    assert_eq!(names(&both.same(&format!("{account}/models/m/weights/1.bin"))), ["1.bin"]);
    assert!(both.refused(&format!("{account}/models/none")).contains("/models/none"));
    assert!(both.refused(&format!("{account}/none/m")).contains("no container"));

    let scratch = tempfile::tempdir().unwrap();
    server.put("models", "archives/m.tar.gz", packed(&model::small(1), scratch.path())).await;
    assert_eq!(both.same(&format!("{account}/models/archives/m.tar.gz")), model::small(1));
    assert_eq!(both.same(&format!("{account}/models/archives")), model::small(1));

    let both = both.with("STORAGE_ALLOW_PATTERNS", "*.json,weights/*").with("STORAGE_IGNORE_PATTERNS", "*/deep/*");
    assert_eq!(names(&both.same(&format!("{account}/models/m"))), ["config.json", "weights/1.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_access_keys_and_signatures() {
    let Some((server, _hosts, both, account)) = start().await else { return };
    let uri = format!("{account}/models/m");
    both.refused(&uri);
    let signed = |expiry| format!("{uri}?{}", server.signature("models", "rl", expiry));
    assert_eq!(both.same(&signed(FAR_FUTURE)).len(), 3);
    assert!(!both.refused(&signed(LONG_AGO)).contains("sig="));
    server.create_public_container("public").await;
    server.put("public", "m/config.json", "{}").await;
    assert_eq!(names(&both.same(&format!("{account}/public/m"))), ["config.json"]);
    let wrong = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "another key of 32 bytes, or so");
    assert!(!both.with("AZURE_STORAGE_ACCESS_KEY", &wrong).refused(&uri).contains(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_are_not_repeated() {
    let Some((server, _hosts, both, account)) = start().await else { return };
    let both = both.with("AZURE_STORAGE_ACCESS_KEY", &server.key());
    differs("whole buckets");
    let (theirs, ours) = both.download(&format!("{account}/models"));
    theirs.unwrap_err();
    assert_eq!(ours.unwrap().len(), MODEL.len());

    server.put("models", "m-v2/b", "b").await;
    server.put("models", "m/empty", "").await;
    differs("neighbours");
    differs("empty files");
    let (theirs, ours) = both.download(&format!("{account}/models/m"));
    let theirs = theirs.unwrap();
    assert!(theirs.contains_key("-v2/b") && !theirs.contains_key("empty"), "{:?}", names(&theirs));
    assert_eq!(names(&ours.unwrap()), ["config.json", "empty", "weights/1.bin", "weights/deep/2.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_shares() {
    let server = FileShares::start().await;
    server.create_share("models");
    for (path, bytes) in MODEL {
        server.put("models", path, bytes.to_vec());
    }
    let hosts = Hosts::start(&[("*.file.core.windows.net", server.address())]).await;
    let Some(both) = Both::new(environment([("AZURE_STORAGE_ACCESS_KEY", &server.key())])) else { return };
    let both = both.among(&hosts);
    let account = format!("https://{}.file.core.windows.net", server.account());
    differs("paths of file shares");
    let (theirs, ours) = both.download(&format!("{account}/models/m/weights"));
    let (theirs, ours) = (theirs.unwrap(), ours.unwrap());
    assert_eq!(names(&theirs), ["m/weights/1.bin", "m/weights/deep/2.bin"]);
    assert!(below(&theirs, "m/weights/") == ours, "{:?}", names(&ours));
    both.refused(&format!("{account}/models/none"));
}
