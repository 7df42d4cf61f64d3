//! Web servers, on nginx, which serves everything as `application/octet-stream` here.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelmount_test_support::http::{PASSWORD, USER};
use modelmount_test_support::script::{Request, Response};
use modelmount_test_support::{Hosts, Nginx, ScriptedServer};

use crate::{Both, differs, environment, names};

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
    differs("content types");
    let (theirs, ours) = both.download(&format!("{}/model.tar.gz", nginx.url()));
    assert!(theirs.unwrap_err().said.contains("Content-Type"));
    assert_eq!(names(&ours.unwrap()), ["m/w"]);
    differs("compressed files");
    let (theirs, ours) = both.download(&format!("{}/m.bin.gz", nginx.url()));
    assert_eq!(names(&theirs.unwrap()), ["m.bin.gz.tar"]);
    let ours = ours.unwrap();
    assert_eq!(names(&ours), ["m.bin.gz"]);
    assert!(ours["m.bin.gz"] == std::fs::read(root.path().join("m.bin.gz")).unwrap());
}

/// Its expression for git matches anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_name_begins_like_gits() {
    let root = tempfile::tempdir().unwrap();
    let Some((nginx, both)) = start(root.path()).await else { return };
    nginx.put("deep/model.bin", b"weights");
    let hosts = ["raw.githubfiles.example", "models.example"].map(|name| (name, nginx.address()));
    let hosts = Hosts::start(&hosts).await;
    let both = both.among(&hosts);
    assert_eq!(names(&both.same("https://models.example/deep/model.bin")), ["model.bin"]);
    differs("git by its name");
    let (theirs, ours) = both.download("https://raw.githubfiles.example/deep/model.bin");
    assert!(theirs.unwrap_err().said.contains("Git"));
    assert_eq!(names(&ours.unwrap()), ["model.bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_short() {
    differs("files that are cut short");
    let asked = AtomicUsize::new(0);
    let script = move |request: &Request| {
        let whole = Response::content(request, &[7; 100_000]).header("content-type", "application/octet-stream");
        let whole = whole.header("etag", "\"1\"");
        if asked.fetch_add(1, Ordering::SeqCst) < 3 { whole.truncate_after(50_000) } else { whole }
    };
    let server = ScriptedServer::start(script).await;
    let Some(both) = Both::new(environment([])) else { return };
    let (theirs, ours) = both.download(&format!("{}/model.bin", server.url()));
    assert!(theirs.unwrap_err().left["model.bin"].len() < 100_000);
    // A read that breaks is tried again.
    assert!(ours.unwrap()["model.bin"] == [7; 100_000]);
}
