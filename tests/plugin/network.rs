//! What an operator's network asks for: certificate authorities of its own, and proxies.

use std::fs;

use modelmount_test_support::http::{Nginx, Options};
use modelmount_test_support::model;

use crate::command::{failed, read, succeeded};
use crate::harness::{Plugin, modelmount, node_arguments};
use crate::pod::Volume;

const WEIGHTS: &[u8] = b"weights";

#[tokio::test]
async fn a_server_that_an_authority_of_ones_own_has_signed_is_trusted_once_its_file_is_named() {
    let root = tempfile::tempdir().unwrap();
    let Some(server) = Nginx::start_with(root.path(), Options { tls: true, ..Options::default() }).await else {
        return;
    };
    server.put("m.bin", WEIGHTS);
    let uri = format!("{}/m.bin", server.url());
    let directory = tempfile::tempdir().unwrap();
    let [ca, to] = ["ca.pem", "to"].map(|name| directory.path().join(name));
    fs::write(&ca, server.ca_pem().unwrap()).unwrap();
    let [ca, to] = [&ca, &to].map(|path| path.to_str().unwrap());

    failed(&modelmount(&["pull", &uri, to], &[]), 1, "UnknownIssuer");
    succeeded(modelmount(&["pull", &uri, to, "--ca-file", ca], &[]));
    assert_eq!(fs::read(directory.path().join("to/m.bin")).unwrap(), WEIGHTS);
    let resolved = succeeded(modelmount(&["resolve", &uri], &[("MODELMOUNT_CA_FILE", ca)]));
    assert!(resolved.contains("m.bin"), "{resolved}");

    failed(
        &modelmount(&["pull", &uri, to, "--ca-file", "/nonexistent.pem"], &[]),
        78,
        "/nonexistent.pem can't be read",
    );
    failed(&modelmount(&["pull", &uri, to, "--ca-file", "/etc/hostname"], &[]), 78, "BEGIN CERTIFICATE");
}

#[tokio::test]
async fn privileged_the_plugin_trusts_the_same_authorities() {
    let root = tempfile::tempdir().unwrap();
    let Some(server) = Nginx::start_with(root.path(), Options { tls: true, ..Options::default() }).await else {
        return;
    };
    server.put("m.bin", WEIGHTS);
    let volume = Volume::of(&format!("{}/m.bin", server.url()));
    let ca = root.path().join("ca.pem");
    fs::write(&ca, server.ca_pem().unwrap()).unwrap();

    let plugin = Plugin::start(&[]).await;
    let refused = plugin.pod("a").publish(&volume).await.unwrap_err();
    assert!(refused.message().contains("UnknownIssuer"), "{refused:?}");
    let plugin = Plugin::start(&["--ca-file", ca.to_str().unwrap()]).await;
    let pod = plugin.pod("a");
    pod.publish(&volume).await.unwrap();
    assert_eq!(pod.files(), model::Files::from([("m.bin".to_owned(), WEIGHTS.into())]));
    pod.unpublish().await.unwrap();

    let elsewhere = plugin.elsewhere("x");
    let endpoint = format!("unix://{}", elsewhere.join("csi.sock").display());
    let mut arguments = node_arguments(&endpoint, &elsewhere.join("cache"), &plugin.kubelet());
    arguments.extend(["--ca-file".to_owned(), "/nonexistent.pem".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    failed(&modelmount(&arguments, &[]), 78, "/nonexistent.pem can't be read");
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_the_environment_names() {
    let root = tempfile::tempdir().unwrap();
    // A request to a proxy names the whole URL; nginx serves the path of it, whatever the host.
    let Some(proxy) = Nginx::start(root.path()).await else { return };
    proxy.put("m.bin", WEIGHTS);
    let to = tempfile::tempdir().unwrap();
    let pull = |more: &[(&str, &str)]| {
        let proxy = proxy.url();
        let environment = [&[("HTTP_PROXY", proxy.as_str())], more].concat();
        modelmount(&["pull", "http://models.invalid/m.bin", to.path().to_str().unwrap()], &environment)
    };
    succeeded(pull(&[]));
    assert_eq!(read(to.path())["m.bin"], WEIGHTS);
    let asked = proxy.requests().len();
    failed(&pull(&[("NO_PROXY", "models.invalid")]), 1, "the name models.invalid does not resolve");
    assert_eq!(proxy.requests().len(), asked, "NO_PROXY was not heeded");
}
