//! The command line: what people and scripts see of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use modelmount_test_support::model::{self, Files};
use serde_json::Value;

use crate::harness::{Plugin, modelmount, node_arguments};
use crate::store::Store;

#[track_caller]
pub(crate) fn failed(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && text.contains(words), "{code}, {words:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[track_caller]
pub(crate) fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn environment(store: &Store) -> [(&str, String); 3] {
    [
        ("AWS_ACCESS_KEY_ID", store.server.access_key().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", store.server.secret_key().to_owned()),
        ("AWS_ENDPOINT_URL", store.proxy.url()),
    ]
}

#[tokio::test]
async fn pull_brings_the_files_and_says_what_went_wrong() {
    let Some(store) = Store::start().await else { return };
    let mut files = model::small(1);
    files.extend(model::odd(2));
    store.put_model("m/", &files).await;
    store.put_model("n/", &model::small(3)).await;
    let owned = environment(&store);
    let environment: Vec<_> = owned.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two/deep"].map(|name| directory.path().join(name));
    let [one_text, two_text] = [&one, &two].map(|path| path.to_str().unwrap());

    let pair = ["pull", "s3://models/m", one_text, "s3://models/n", two_text];
    assert_eq!(succeeded(modelmount(&pair, &environment)), "");
    assert_eq!(read(&one), files);
    assert_eq!(read(&two), model::small(3));
    let again = modelmount(&pair[..3], &environment);
    assert!(String::from_utf8_lossy(&again.stderr).contains("files, "), "{again:?}");
    succeeded(again);

    failed(&modelmount(&pair[..4], &environment), 64, "URI DEST");
    failed(&modelmount(&pair[..2], &environment), 64, "2 values required");
    let at = |uri: &str| modelmount(&["pull", uri, one_text], &environment);
    failed(&at("nonsense"), 1, "not a model URI");
    failed(&at("s3://models/missing"), 1, "has no object there");
    failed(&at("http://127.0.0.1:1/m"), 1, "can't connect to http://127.0.0.1:1");
    store.stop();
    failed(&at("s3://models/m"), 1, "modelmount: s3://models/m");
}

/// KServe starts its storage-initializer with nothing but URIs and directories, and tells the rest by the environment.
#[tokio::test]
async fn kserves_arguments_and_environment_are_understood() {
    let Some(store) = Store::start().await else { return };
    store.put_model("m/", &model::small(1)).await;
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    let [one_text, two_text] = [&one, &two].map(|path| path.to_str().unwrap());
    let config = serde_json::json!({
        "type": "s3",
        "access_key_id": store.server.access_key(),
        "secret_access_key": store.server.secret_key(),
        "endpoint_url": "http://127.0.0.1:1",
    });
    let endpoint = serde_json::json!({ "endpoint_url": store.proxy.url() });
    let environment = [
        ("STORAGE_CONFIG", config.to_string()),
        ("STORAGE_OVERRIDE_CONFIG", endpoint.to_string()),
        ("STORAGE_ALLOW_PATTERNS", "[\"*.json\"]".to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();

    assert_eq!(succeeded(modelmount(&["s3://models/m", one_text, one_text, two_text], &environment)), "");
    let configs: Files = model::small(1).into_iter().filter(|(name, _)| name.ends_with(".json")).collect();
    assert!(!configs.is_empty());
    assert_eq!(read(&one), configs);
    // The second was a path of this machine: a claim that KServe has mounted.
    assert_eq!(read(&two), configs);
    failed(&modelmount(&["s3://models/missing", one_text], &environment), 1, "has no object there");
    // One code for all that fails, as KServe's. With the command named it is its own.
    failed(&modelmount(&["s3://models/m"], &environment), 1, "see `modelmount pull --help`");
    let nowhere = [("AWS_CA_BUNDLE", "/nonexistent")];
    failed(&modelmount(&["s3://models/m", one_text], &nowhere), 1, "AWS_CA_BUNDLE names /nonexistent");
    failed(&modelmount(&["pull", "s3://models/m", one_text], &nowhere), 78, "AWS_CA_BUNDLE names /nonexistent");
}

pub(crate) fn read(directory: &Path) -> Files {
    model::read(directory).unwrap()
}

#[tokio::test]
async fn resolve_shows_what_there_is() {
    let Some(store) = Store::start().await else { return };
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let owned = environment(&store);
    let environment: Vec<_> = owned.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let resolve = |more: &[&str]| modelmount(&[&["resolve", "s3://models/m"], more].concat(), &environment);

    let json: Value = serde_json::from_str(&succeeded(resolve(&["--output", "json"]))).unwrap();
    assert_eq!(json["uri"], "s3://models/m");
    assert_eq!(json["bytes"], files.values().map(Vec::len).sum::<usize>());
    let listed = json["files"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|file| (file["path"].as_str().unwrap(), file["size"].as_u64().unwrap())).collect();
    let expected: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.len() as u64)).collect();
    assert_eq!(listed, expected);

    let text = succeeded(resolve(&["--attribute", "allowPatterns=*.json"]));
    assert!(text.contains("1 file, ") && text.contains("config.json") && !text.contains("vocab"), "{text}");
    failed(&resolve(&["--attribute", "allowPattern=*.json"]), 1, "did you mean \"allowPatterns\"?");
    failed(&resolve(&["--output", "yaml"]), 64, "json");
    assert!(succeeded(modelmount(&["--version"], &[])).starts_with("modelmount "));
    assert!(succeeded(modelmount(&["node", "--help"], &[])).contains("--cache-dir"));
}

#[tokio::test]
async fn privileged_mount_and_unmount_do_what_kubelet_does() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let (pod, endpoint) = (plugin.pod("a"), plugin.endpoint());
    let secrets = plugin.elsewhere("secrets");
    let secret = |name: &str, value: &str| {
        fs::write(secrets.join(name), format!("{value}\n")).unwrap();
        format!("{name}={}", secrets.join(name).display())
    };
    let key = secret("AWS_ACCESS_KEY_ID", store.server.access_key());
    let secret_key = secret("AWS_SECRET_ACCESS_KEY", store.server.secret_key());
    let address = format!("endpoint={}", store.proxy.url());
    let to = |target: &str| {
        let options = ["--endpoint", &endpoint, "--attribute", &address, "--secret", &key, "--secret", &secret_key];
        modelmount(&[&["mount", "s3://models/m", target], &options[..]].concat(), &[])
    };
    let output = to(&pod.target);
    assert!(String::from_utf8_lossy(&output.stderr).contains("mounted at"), "{output:?}");
    succeeded(output);
    assert_eq!(pod.files(), files);
    assert!(pod.mount().unwrap().read_only);
    failed(&to("/etc/mount"), 1, "--kubelet-dir");

    // A look into the cache that the plugin has open.
    let cache = plugin.cache();
    let list = |more: &[&str]| {
        succeeded(modelmount(&[&["cache", "ls", "--cache-dir", cache.to_str().unwrap()], more].concat(), &[]))
    };
    let text = list(&[]);
    assert!(text.starts_with("MODEL") && text.contains("s3://models/m"), "{text}");
    let json: Value = serde_json::from_str(&list(&["--output", "json"])).unwrap();
    assert_eq!(json[0]["uri"], "s3://models/m");
    assert_eq!((json[0]["files"].as_u64(), json[0]["leases"].as_u64()), (Some(files.len() as u64), Some(1)));

    let unmount = || modelmount(&["unmount", &pod.target, "--endpoint", &endpoint], &[]);
    succeeded(unmount());
    assert!(!pod.path().exists());
    succeeded(unmount());
    plugin.assert_nothing_left("after unmount");
    assert_eq!(serde_json::from_str::<Value>(&list(&["--output", "json"])).unwrap()[0]["leases"], 0);
    let nobody = format!("unix://{}/nobody.sock", plugin.elsewhere("x").display());
    failed(&modelmount(&["unmount", &pod.target, "--endpoint", &nobody], &[]), 1, "does a plugin serve there?");
}

#[test]
fn a_wrong_command_line_is_answered_in_one_line_that_names_the_help() {
    for (arguments, problem, help) in [
        ("node --fast", "unexpected argument '--fast' found", "modelmount node"),
        ("node --endpoint unix:///x.sock", "were not provided: --node-id <NAME>", "modelmount node"),
        ("node --cache-dir= --node-id n", "a value is required for '--cache-dir <DIR>'", "modelmount node"),
        ("--log-level info controller", "were not provided: --endpoint <URL>", "modelmount controller"),
        ("--log-format yaml pull s3://b/m /d", "<LOG_FORMAT>' [possible values: text, json]", "modelmount pull"),
        ("pull --part-size 1 s3://b/m node", "must be between 64KiB and 1GiB", "modelmount pull"),
        ("cache ls --output yaml", "[possible values: text, json]", "modelmount cache ls"),
        ("frobnicate", "unrecognized subcommand 'frobnicate'", "modelmount"),
    ] {
        let output = modelmount(&arguments.split(' ').collect::<Vec<_>>(), &[]);
        failed(&output, 64, problem);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("modelmount: ") && text.lines().count() == 1, "{text}");
        assert!(text.ends_with(&format!("; see `{help} --help`\n")), "{text}");
    }
    // Who says nothing at all is shown everything.
    failed(&modelmount(&[], &[]), 64, "Usage: modelmount");
}

#[test]
fn digest_prints_what_the_attribute_wants() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    failed(&modelmount(&["digest", path], &[]), 1, "has no files");
    failed(&modelmount(&["digest", &format!("{path}/none")], &[]), 1, "can't list");
    failed(&modelmount(&["digest"], &[]), 64, "DIR");
    fs::create_dir(directory.path().join("b")).unwrap();
    fs::write(directory.path().join("a"), "x").unwrap();
    fs::write(directory.path().join("b/c"), "y").unwrap();
    let shell = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum";
    let shell = Command::new("sh").args(["-c", shell]).current_dir(path).output().unwrap();
    let documented = format!("sha256:{}", String::from_utf8(shell.stdout).unwrap().split(' ').next().unwrap());
    assert_eq!(succeeded(modelmount(&["digest", path], &[])).trim_end(), documented);
    let json = succeeded(modelmount(&["digest", path, "--output", "json"], &[]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["digest"], documented);
    assert_eq!((&json["files"][1]["path"], &json["bytes"]), (&"b/c".into(), &2.into()));
}

#[tokio::test]
async fn privileged_a_cache_is_removed_when_nobody_needs_it_and_nothing_else_is() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let cache = plugin.cache();
    let remove =
        |more: &[&str]| modelmount(&[&["cache", "rm", "--cache-dir", cache.to_str().unwrap()], more].concat(), &[]);
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    failed(&remove(&[]), 64, "--all");
    failed(&remove(&["--all"]), 1, "one plugin per cache");
    plugin.terminate().await;
    failed(&remove(&["--all"]), 1, "delete their pods");
    assert_eq!(pod.files(), model::small(1));
    plugin.restart().await;
    pod.unpublish().await.unwrap();
    plugin.terminate().await;

    fs::write(cache.join("foreign"), "").unwrap();
    succeeded(remove(&["--all"]));
    let left: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign"]);
    failed(&remove(&["--all"]), 1, "there is no cache");

    fs::remove_file(cache.join("foreign")).unwrap();
    plugin.restart().await;
    pod.publish(&store.volume("m")).await.unwrap();
    plugin.kill();
    plugin.unmount_all();
    succeeded(remove(&["--all", "--force"]));
    assert!(!cache.exists());
}

#[tokio::test]
async fn a_plugin_that_can_not_work_says_why_in_one_line() {
    let plugin = Plugin::start(&[]).await;
    let (directory, kubelet) = (plugin.elsewhere("x"), plugin.kubelet());
    let file = directory.join("file");
    fs::write(&file, "").unwrap();
    let later = directory.join("later");
    fs::create_dir(&later).unwrap();
    fs::write(later.join("layout"), "{\"version\": 99}").unwrap();
    let fresh = format!("unix://{}", directory.join("csi.sock").display());
    let socket = format!("unix://{}", file.display());
    let good = directory.join("good");
    // Not even root writes there.
    let read_only = Path::new("/proc/sys").to_owned();
    for (endpoint, cache, kubelet, words) in [
        (&fresh, &file, &kubelet, "can't make the cache directory"),
        (&fresh, &read_only, &kubelet, "can't make the cache directory"),
        (&fresh, &plugin.cache(), &kubelet, "one plugin per cache"),
        (&fresh, &later, &kubelet, "layout version 99"),
        (&fresh, &good, &directory.join("nowhere"), "kubelet's directory"),
        (&plugin.endpoint(), &good, &kubelet, "another plugin is serving"),
        (&socket, &good, &kubelet, ".sock"),
    ] {
        let arguments = node_arguments(endpoint, cache, kubelet);
        // Without the log, whose lines would be there as well.
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        *arguments.last_mut().unwrap() = "error";
        let output = modelmount(&arguments, &[]);
        failed(&output, 78, words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("modelmount: ") && text.lines().count() == 1, "{text}");
    }
    failed(&modelmount(&["node", "--endpoint", &fresh], &[]), 64, "--node-id");
    failed(&modelmount(&["cache", "ls", "--cache-dir", good.join("x").to_str().unwrap()], &[]), 1, "no cache at");
    assert_eq!(fs::metadata(plugin.cache().join("leases")).unwrap().permissions().mode() & 0o077, 0);
}

#[tokio::test]
async fn privileged_a_plugin_that_is_told_to_stop_leaves_volumes_alone() {
    let Some(store) = Store::start().await else { return };
    let mut plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    let status = plugin.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", plugin.log());
    assert_eq!(pod.files(), files);
    assert_eq!((plugin.mounts().len(), plugin.leases().len()), (1, 1));
    assert!(!Path::new(plugin.endpoint().strip_prefix("unix://").unwrap()).exists(), "the socket is left");
    plugin.restart().await;
    pod.unpublish().await.unwrap();
    plugin.assert_nothing_left("after a restart");
}
