//! Web servers, on nginx, which serves everything as `application/octet-stream` here.

use std::path::Path;
use std::process::Command;

use modelmount_test_support::Nginx;
use modelmount_test_support::http::{PASSWORD, USER};

use crate::{Both, environment, names};

async fn start(root: &Path) -> Option<(Nginx, Both)> {
    let nginx = Nginx::start(root).await?;
    Some((nginx, Both::new(environment([]))?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_by_its_url() {
    let root = tempfile::tempdir().unwrap();
    let Some((nginx, both)) = start(root.path()).await else { return };
    nginx.put("deep/model.bin", b"weights");
    assert_eq!(names(&both.same(&format!("{}/deep/model.bin?signature=x", nginx.url()))), ["model.bin"]);
    assert!(both.refused(&format!("{}/none.bin", nginx.url())).contains("is not found"));
    both.refused("http://127.0.0.1:1/model.bin");

    let private = format!("{}/private/deep/model.bin", nginx.url());
    both.refused(&private);
    let secret = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{USER}:{PASSWORD}"));
    let both = both.with("127.0.0.1-headers", &format!(r#"{{"Authorization": "Basic {secret}"}}"#));
    assert_eq!(names(&both.same(&private)), ["model.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_are_not_repeated() {
    let root = tempfile::tempdir().unwrap();
    let Some((nginx, both)) = start(root.path()).await else { return };
    let made = Command::new("sh")
        .args(["-ec", "mkdir m; echo weights >m/w; tar -czf model.tar.gz m; echo weights | gzip >m.bin.gz; rm -r m"])
        .current_dir(root.path())
        .status();
    assert!(made.unwrap().success());
    // It believes the server's content type instead of the archive.
    let (theirs, ours) = both.download(&format!("{}/model.tar.gz", nginx.url()));
    assert!(theirs.unwrap_err().contains("Content-Type"));
    assert_eq!(names(&ours.unwrap()), ["m/w"]);
    // And it calls a compressed file a tar.
    let (theirs, ours) = both.download(&format!("{}/m.bin.gz", nginx.url()));
    assert_eq!(names(&theirs.unwrap()), ["m.bin.gz.tar"]);
    let ours = ours.unwrap();
    assert_eq!(names(&ours), ["m.bin.gz"]);
    assert!(ours["m.bin.gz"] == std::fs::read(root.path().join("m.bin.gz")).unwrap());
}
