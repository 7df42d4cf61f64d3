//! git, by dulwich, on git's own server behind TLS: KServe takes no other.

use modelmount_test_support::git::{Options, PASSWORD, USER};
use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{GitServer, Hosts};

use crate::{Both, differs, environment, names};

async fn start(options: Options) -> Option<(GitServer, Hosts, Both)> {
    let server = GitServer::start(options).await?;
    let hosts = Hosts::start(&[("git.example", server.address()), ("lfs.example", server.other_address())]).await;
    server.keep_lfs_at("https://lfs.example");
    let both = Both::new(environment([]))?.among(&hosts);
    Some((server, hosts, both))
}

/// What KServe's leaves is a clone: git's own directory is in it.
fn both_ways(both: &Both, uri: &str) -> Files {
    both.same_but("git's own directory", |path| path.starts_with(".git/"), uri)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_commit_of_the_default_branch() {
    let Some((server, _hosts, both)) = start(Options::default()).await else { return };
    server.put_model("", &model::small(1));
    server.put_model("", &model::small(2));
    server.put("deep/er/adapter", b"adapter");
    let found = both_ways(&both, "https://git.example/model.git");
    assert_eq!(found["deep/er/adapter"], b"adapter");
    assert_eq!(found.len(), model::small(2).len() + 1);
    both.refused("https://git.example/none.git");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords() {
    let Some((server, _hosts, both)) = start(Options { private: true, ..Options::default() }).await else { return };
    server.put("config.json", b"{}");
    let uri = "https://git.example/model.git";
    assert!(both.refused(uri).contains("GIT_PASSWORD"));
    let both = both.with("GIT_PASSWORD", PASSWORD);
    assert_eq!(names(&both_ways(&both, &uri.replace("//", &format!("//{USER}@")))), ["config.json"]);
    let both = both.with("GIT_USERNAME", USER);
    assert_eq!(names(&both_ways(&both, uri)), ["config.json"]);
    assert!(!both.with("GIT_PASSWORD", "hunter2").refused(uri).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_lfs_and_patterns() {
    let Some((server, _hosts, both)) = start(Options::default()).await else { return };
    server.put("config.json", b"{}");
    server.put_lfs("model.safetensors", b"weights");
    differs("files of Git LFS");
    let (theirs, ours) = both.download("https://git.example/model.git");
    assert!(theirs.unwrap()["model.safetensors"].starts_with(b"version https://git-lfs"));
    assert_eq!(ours.unwrap()["model.safetensors"], b"weights");

    differs("patterns everywhere");
    let (theirs, ours) =
        both.with("STORAGE_IGNORE_PATTERNS", "*.safetensors").download("https://git.example/model.git");
    assert!(theirs.unwrap().contains_key("model.safetensors"));
    assert_eq!(names(&ours.unwrap()), ["config.json"]);
}
