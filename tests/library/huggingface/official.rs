//! The hub's own client downloads from the emulator, so that what this project believes of the hub is what that believes.

use std::process::Command;

use modelmount::Credentials;
use modelmount_test_support::hub::{Access, GUEST, READER};
use modelmount_test_support::{Process, model, tools};

use super::{REPOSITORY, at, files_of, hub, token};
use crate::node::{Node, SOON, assert_snapshot, assert_tree, limits, resolve};

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_own_client_gets_the_same() {
    let Some(python) = tools::require("huggingface-python") else { return };
    let mut files = model::small(1);
    files.extend(model::odd(2));
    files.extend(model::many(3, 60));
    let hub = hub(&files).await;
    hub.set_page(40);
    hub.tag(REPOSITORY, "refs/pr/1");
    let set = model::small(5);
    hub.put_all("datasets/acme/words", "main", files_of(set.clone()));
    for (name, access) in [("acme/gated", Access::Gated), ("acme/private", Access::Private)] {
        hub.put(name, "config.json", "{}");
        hub.set_access(name, access);
    }

    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/library/huggingface/official.py"));
    command.args([directory.path().to_str().unwrap(), REPOSITORY, READER, GUEST]);
    command.env_clear().envs([
        ("HF_ENDPOINT", hub.url().as_str()),
        ("HF_HOME", directory.path().join("home").to_str().unwrap()),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ]);
    let client = Process::start(&command, &directory.path().join("log"));
    let status = client.wait(SOON).await;
    assert!(status.success(), "{}", client.log());
    assert!(hub.store_requests().iter().all(|request| request.header("authorization").is_none()));

    assert_tree(&directory.path().join("model"), &files, 0o644);
    assert_tree(&directory.path().join("set"), &set, 0o644);
    for (attributes, expected) in
        [(at(&hub, "@refs/pr/1"), &files), (crate::node::attributes("hf://datasets/acme/words", &hub.url()), &set)]
    {
        for credentials in [Credentials::none(), token(READER)] {
            let (source, manifest) = resolve(&attributes, &credentials).await.unwrap();
            assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), expected);
        }
    }
}
