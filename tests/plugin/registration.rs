//! The plugin and kubelet's directory of plugins.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use modelmount_test_support::wait::until;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::harness::{Plugin, SOON, modelmount};
use crate::kubelet::Registry;
use crate::page::get;

#[tokio::test]
async fn kubelet_finds_the_plugin_and_its_word_decides() {
    let mut plugin = Plugin::deployed().await;
    let registry = Registry::of(&plugin);
    let (health, metrics) = (plugin.port("health"), plugin.port("metrics"));
    let registered = async || get(metrics, "/metrics").await.value("modelmount_kubelet_registered").unwrap();
    let ready = async || {
        let page = get(health, "/readyz").await;
        (page.status, page.body)
    };

    let info = registry.discover().await;
    assert_eq!(registry.sockets(), [registry.directory.join("csi.modelmount.io-reg.sock")]);
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.modelmount.io"));
    assert_eq!(info.endpoint, plugin.socket().to_str().unwrap());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert_eq!(registry.node_id(&info).await, "n");

    assert_eq!(ready().await, (503, "kubelet has not registered the plugin yet\n".to_owned()));
    registry.notify(Err("name taken:\nby another")).await;
    registry.notify(Err("name taken:\nby another")).await;
    assert_eq!(ready().await, (503, "kubelet refuses to register the plugin: name taken: by another\n".to_owned()));
    assert_eq!(registered().await, 0.0);
    assert_eq!(plugin.log().matches("name taken").count(), 1, "{}", plugin.log());
    // It has not ended, and kubelet's next attempt counts.
    registry.notify(Ok(())).await;
    assert_eq!(ready().await, (200, "ok\n".to_owned()));
    assert_eq!(registered().await, 1.0);

    assert!(plugin.terminate().await.success(), "{}", plugin.log());
    assert_eq!(registry.sockets(), [] as [PathBuf; 0]);
    assert!(!plugin.socket().parent().unwrap().exists(), "the socket's directory is left");
}

#[tokio::test]
async fn a_socket_that_is_lost_comes_back() {
    let mut plugin = Plugin::deployed().await;
    let registry = Registry::of(&plugin);
    registry.discover().await;
    registry.notify(Ok(())).await;
    let health = plugin.port("health");
    let socket = registry.sockets().remove(0);
    fs::remove_file(&socket).unwrap();
    registry.discover().await;
    // Kubelet has forgotten the plugin when the socket went.
    assert_eq!(get(health, "/readyz").await.status, 503);
    registry.notify(Ok(())).await;
    assert_eq!(get(health, "/readyz").await.status, 200);

    // With its directory, which kubelet makes when it starts.
    fs::remove_dir_all(&registry.directory).unwrap();
    until("a complaint", SOON, async || plugin.log().contains("can't be made").then_some(())).await;
    fs::create_dir(&registry.directory).unwrap();
    registry.discover().await;

    // Somebody else's is left alone, and replaced once nobody serves it.
    let theirs = plugin.elsewhere("x").join("other.sock");
    let other = UnixListener::bind(&theirs).unwrap();
    fs::rename(&theirs, &socket).unwrap();
    let inode = fs::metadata(&socket).unwrap().ino();
    until("a complaint", SOON, async || plugin.log().contains("another plugin is serving").then_some(())).await;
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode);
    drop(other);
    registry.discover().await;

    // As does one that a killed process left.
    plugin.kill();
    assert!(socket.exists() && plugin.socket().exists());
    plugin.restart().await;
    registry.discover().await;
    assert!(plugin.terminate().await.success());
    assert!(registry.sockets().is_empty() && !plugin.socket().parent().unwrap().exists());
}

#[tokio::test]
async fn kubelet_never_knows_a_plugin_that_does_not_answer() {
    let mut plugin = Plugin::deployed().await;
    let registry = Registry::of(&plugin);
    registry.discover().await;
    assert_eq!(fs::metadata(plugin.socket().parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(plugin.terminate().await.success());

    // The whole life of both sockets, in the order in which the kernel saw it. The directory must be there to be watched.
    let own = plugin.socket().parent().unwrap().to_owned();
    fs::create_dir(&own).unwrap();
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    for directory in [&own, &registry.directory] {
        watch.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE).unwrap();
    }
    plugin.restart().await;
    registry.discover().await;
    assert!(plugin.terminate().await.success());
    let events = watch.read_events().unwrap();
    let named = events.iter().filter_map(|event| {
        let made = event.mask.contains(AddWatchFlags::IN_CREATE);
        Some((if made { "+" } else { "-" }, event.name.as_ref()?.to_str()?))
    });
    let expected = [
        ("+", "csi.sock"),
        ("+", "csi.modelmount.io-reg.sock"),
        ("-", "csi.modelmount.io-reg.sock"),
        ("-", "csi.sock"),
    ];
    assert_eq!(named.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_plugin_that_can_not_register_or_be_watched_says_why() {
    let mut plugin = Plugin::deployed().await;
    let registry = Registry::of(&plugin);
    let arguments: Vec<String> = plugin.arguments().to_vec();
    assert!(plugin.terminate().await.success());
    let run = |replaced: &[(&str, &Path)]| {
        let mut arguments = arguments.clone();
        for (flag, value) in replaced.iter().copied().chain([("--log-level", Path::new("error"))]) {
            let at = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments[at + 1] = value.to_str().unwrap().to_owned();
        }
        modelmount(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    };
    #[track_caller]
    fn failed(output: &Output, words: &str) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && text.contains(words), "{words}: {output:?}");
        assert!(text.starts_with("modelmount: ") && text.lines().count() == 1, "{text}");
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--health-address", "--metrics-address"] {
        failed(&run(&[(flag, Path::new(&address))]), &format!("can't listen on {address}"));
    }
    failed(&run(&[("--registration-dir", &plugin.elsewhere("x").join("none"))]), "can't bind a socket to");
    failed(&run(&[("--endpoint", &plugin.elsewhere("x").join("no/where/csi.sock"))]), "can't make the directory");

    // A plugin that can't serve is not announced either.
    assert_eq!(registry.sockets(), [] as [PathBuf; 0]);
    let socket = plugin.elsewhere("x").join("csi.sock");
    let _served = UnixListener::bind(&socket).unwrap();
    failed(&run(&[("--endpoint", &socket)]), "another plugin is serving");
    assert_eq!(registry.sockets(), [] as [PathBuf; 0]);
    let announced = registry.directory.join("csi.modelmount.io-reg.sock");
    let _other = UnixListener::bind(&announced).unwrap();
    failed(&run(&[]), "another plugin is serving");
}
