//! Wrong requests: each gets its code, a sentence that says what to change, and leaves nothing behind. Nothing in here
//! is ever mounted.

use std::fs;
use std::os::unix::fs::symlink;

use modelmount_driver::csi::NodePublishVolumeRequest;
use modelmount_driver::csi::volume_capability::access_mode::Mode;
use modelmount_driver::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use modelmount_test_support::model;
use tonic::Code;

use crate::harness::{Plugin, SOON};
use crate::pod::{Pod, Volume};
use crate::store::Store;

/// Sends each request, and expects its code and words of its sentence.
async fn expect(plugin: &Plugin, pod: &Pod, cases: Vec<(NodePublishVolumeRequest, Code, &str)>) {
    for (request, code, words) in cases {
        let targets = [request.target_path.clone(), pod.target.clone()];
        let status = pod.send(request, SOON).await.unwrap_err();
        assert_eq!(status.code(), code, "{words}: {status:?}");
        assert!(status.message().contains(words), "{words}: {status:?}");
        plugin.assert_nothing_left(words);
        for target in targets.iter().filter(|target| target.ends_with("/mount")) {
            assert!(fs::symlink_metadata(target).is_err(), "{words}: {target} was made");
        }
    }
}

#[tokio::test]
async fn wrong_attributes_are_named() {
    let plugin = Plugin::start(&[]).await;
    let pod = plugin.pod("a");
    let good = || Volume::of("s3://models/m").with("endpoint", "http://127.0.0.1:1");
    let cases = [
        (Volume::default(), "no attribute \"modelUri\""),
        (Volume::default().with("modelURI", "s3://models/m"), "there is \"modelURI\""),
        (Volume::of(""), "the model URI is empty"),
        (Volume::of("models/m"), "no scheme such as s3://"),
        (Volume::of("s3:///m"), "names no bucket"),
        (Volume::of("s4://models/m"), "no source reads the scheme s4://"),
        (Volume::of("s3://models/../m"), "component"),
        (good().with("endpoit", "x"), "did you mean \"endpoint\"?"),
        (good().with("allowPattern", "*"), "did you mean \"allowPatterns\"?"),
        (good().with("colour", "blue"), "known here are modelUri"),
        (good().with("allowPatterns", "*.json,[abc"), "allowPatterns: \"[abc\" is not a valid pattern"),
        (good().with("ignorePatterns", "[\"a\", 3]"), "ignorePatterns"),
        (good().with("digest", "md5:abc"), "digest: a digest is written"),
        (good().with("endpoint", "127.0.0.1:9000"), "endpoint"),
        (good().with("addressingStyle", "dns"), "write \"path\" or \"virtual\""),
        (good().with("region", &"x".repeat(5000)), "at most 4096 are allowed"),
        (Volume::of("https://user:password@host/m"), "put them into a Secret"),
        (Volume::of("https://host/directory/"), "name one file"),
    ];
    let cases = cases.map(|(volume, words)| (pod.request(&volume), Code::InvalidArgument, words));
    expect(&plugin, &pod, cases.into()).await;
}

#[tokio::test]
async fn wrong_targets_ids_and_capabilities_are_named() {
    let plugin = Plugin::start(&[]).await;
    let pod = plugin.pod("a");
    let kubelet = plugin.kubelet().to_str().unwrap().to_owned();
    let outside = plugin.elsewhere("outside");
    symlink(&outside, format!("{kubelet}/link")).unwrap();
    let good = || pod.request(&Volume::of("s3://models/m").with("endpoint", "http://127.0.0.1:1"));
    let at = |target: &str| NodePublishVolumeRequest { target_path: target.to_owned(), ..good() };
    let named = |id: &str| NodePublishVolumeRequest { volume_id: id.to_owned(), ..good() };
    let capable = |mode: Mode, access_type| {
        let mut request = good();
        let capability = request.volume_capability.as_mut().unwrap();
        capability.access_mode = Some(AccessMode { mode: mode.into() });
        capability.access_type = access_type;
        request
    };
    let mounting = |flags: &[&str]| {
        let mount_flags = flags.iter().map(ToString::to_string).collect();
        Some(AccessType::Mount(MountVolume { mount_flags, ..Default::default() }))
    };
    let block = Some(AccessType::Block(BlockVolume {}));
    let invalid = [
        (at(""), "target_path is missing"),
        (at("some/path"), "must be absolute"),
        (at(&format!("{}/mount", outside.display())), "not below kubelet's directory (--kubelet-dir)"),
        (at(&format!("{kubelet}2/mount")), "not below kubelet's directory"),
        (at(&kubelet), "not below kubelet's directory"),
        (at(&format!("{kubelet}/pods/../../outside/mount")), "\"..\""),
        (at(&format!("{kubelet}/pods//mount")), "empty component"),
        (at(&format!("{kubelet}/link/mount")), "symbolic link"),
        (at(&format!("{kubelet}/pods/\0mount")), "NUL"),
        (named(""), "volume_id is missing"),
        (named(&"x".repeat(129)), "longer than 128 bytes"),
        (named("../../etc/passwd"), "looks like a path"),
        (named("/etc/passwd"), "looks like a path"),
        (named("a\0b"), "control character"),
        (NodePublishVolumeRequest { volume_capability: None, ..good() }, "volume_capability is missing"),
        (capable(Mode::SingleNodeWriter, None), "mount is required"),
        (capable(Mode::SingleNodeWriter, block), "volumeMode: Filesystem"),
        (capable(Mode::MultiNodeMultiWriter, mounting(&[])), "use access mode ReadOnlyMany"),
        (capable(Mode::SingleNodeWriter, mounting(&["ro", "suid"])), "a mount option is not supported"),
    ];
    let mut cases: Vec<_> =
        invalid.into_iter().map(|(request, words)| (request, Code::InvalidArgument, words)).collect();
    let missing_parent = at(&format!("{kubelet}/pods/nowhere/mount"));
    cases.push((missing_parent, Code::FailedPrecondition, "kubelet makes it before it publishes"));
    expect(&plugin, &pod, cases).await;
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);

    // Unpublish looks at ids and targets as closely.
    for (id, target, words) in [
        ("", pod.target.as_str(), "volume_id is missing"),
        ("../x", pod.target.as_str(), "looks like a path"),
        ("x", "", "target_path is missing"),
        ("x", "/etc", "not below kubelet's directory"),
        ("x", &format!("{kubelet}/link"), "symbolic link"),
    ] {
        let status = pod.with_id(id).at(target).unpublish().await.unwrap_err();
        let codes = [Code::InvalidArgument, Code::FailedPrecondition];
        assert!(codes.contains(&status.code()) && status.message().contains(words), "{words}: {status:?}");
    }
    assert!(fs::symlink_metadata(format!("{kubelet}/link")).unwrap().is_symlink());
}

#[tokio::test]
async fn what_the_source_says_becomes_its_code() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    store.put_model("m/", &model::small(1)).await;
    let pod = plugin.pod("a");
    let good = || store.volume("m");
    let of = |path: &str| store.volume(path);
    let other_bucket = Volume { attributes: good().with("modelUri", "s3://nowhere/m").attributes, ..good() };
    let anonymous = Volume { secrets: Default::default(), ..good() };
    let half = Volume { secrets: [("AWS_ACCESS_KEY_ID".to_owned(), "x".to_owned())].into(), ..good() };
    let digest = format!("sha256:{}", "0".repeat(64));
    let cases = [
        (other_bucket, Code::NotFound, "there is no bucket \"nowhere\""),
        (of("missing"), Code::NotFound, "check the path in the URI"),
        (good().with("allowPatterns", "*.nothing"), Code::NotFound, "allowPatterns"),
        (good().secret("AWS_SECRET_ACCESS_KEY", "wrong"), Code::Unauthenticated, "check AWS_ACCESS_KEY_ID"),
        (good().secret("AWS_ACCESS_KEY_ID", "wrong"), Code::Unauthenticated, "check AWS_ACCESS_KEY_ID"),
        (anonymous, Code::Unauthenticated, "nodePublishSecretRef"),
        (half, Code::Unauthenticated, "add AWS_SECRET_ACCESS_KEY"),
        (good().with("digest", &digest), Code::FailedPrecondition, "correct one of the two"),
        (Volume::of("file:///etc/hostname"), Code::PermissionDenied, "--allow-file-root"),
    ];
    let cases = cases.map(|(volume, code, words)| (pod.request(&volume), code, words));
    expect(&plugin, &pod, cases.into()).await;

    // Not final: kubelet comes back, or unpublishes. Only that is what ends it.
    store.stop();
    for volume in [good(), Volume::of("http://127.0.0.1:1/model.bin")] {
        let status = pod.publish(&volume).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("127.0.0.1"), "{status:?}");
        assert!(plugin.mounts().is_empty() && !pod.path().exists());
        pod.unpublish().await.unwrap();
        plugin.assert_nothing_left("a source that is down");
    }
}

#[tokio::test]
async fn the_nodes_own_addresses_are_refused_by_default() {
    let plugin = Plugin::strict(&[]).await;
    let pod = plugin.pod("a");
    let s3 = |endpoint: &str| Volume::of("s3://models/m").with("endpoint", endpoint);
    let cases = [
        (Volume::of("http://127.0.0.1:1/m"), "--allow-address 127.0.0.1"),
        (Volume::of("http://localhost:1/m"), "loopback"),
        (Volume::of("http://[::1]:1/m"), "loopback"),
        (Volume::of("http://169.254.169.254/latest/meta-data"), "link-local"),
        (Volume::of("http://2130706433:1/m"), "loopback"),
        (s3("http://127.0.0.1:1"), "--allow-address 127.0.0.1"),
        (s3("http://169.254.169.254"), "link-local"),
    ];
    let cases = cases.map(|(volume, words)| (pod.request(&volume), Code::PermissionDenied, words));
    expect(&plugin, &pod, cases.into()).await;
}
