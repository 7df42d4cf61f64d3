//! The hub's own client downloads from the emulator, so that what this project believes of the hub is what that believes.

use std::process::Command;

use modelmount_test_support::hub::{Access, GUEST, READER};
use modelmount_test_support::{Process, model, tools};

use super::{REPOSITORY, at, hub, token};
use crate::node::{Node, SOON, assert_snapshot, assert_tree, limits, resolve};

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_own_client_gets_the_same() {
    let Some(python) = tools::require("modelscope-python") else { return };
    let mut files = model::small(1);
    files.extend(model::odd(2));
    let hub = hub(&files).await;
    hub.put("acme/private", "config.json", "{}");
    hub.set_access("acme/private", Access::Private);

    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/library/modelscope/official.py"));
    command.args([directory.path().to_str().unwrap(), REPOSITORY, READER, GUEST]);
    command.env_clear().envs([
        ("MODELSCOPE_ENDPOINT", hub.url().as_str()),
        ("MODELSCOPE_HOME", home.to_str().unwrap()),
        ("MODELSCOPE_CACHE", home.to_str().unwrap()),
        ("HOME", home.to_str().unwrap()),
        // Where the client would ask the cloud that it runs in.
        ("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", "false"),
    ]);
    let client = Process::start(&command, &directory.path().join("log"));
    let status = client.wait(SOON).await;
    assert!(status.success(), "{}", client.log());

    assert_tree(&directory.path().join("model"), &files, 0o644);
    let (source, manifest) = resolve(&at(&hub, ":v1"), &token(READER)).await.unwrap();
    assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), &files);
}
