//! Mounting for real: needs root, a kernel, and nothing else. Every test runs with each way to mount.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod namespace;
mod races;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use modelmount_driver::mount::{Location, MountError, MountOptions, Mounter, mountinfo, snapshots_shown};
use nix::mount::{MsFlags, mount};

use namespace::{Scene, bind, for_each_method};

fn erofs(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

fn publish(scene: &Scene, target: &str) {
    let target = scene.mounter().target(target).unwrap();
    target.mount_read_only(&scene.tree, MountOptions::default()).unwrap();
}

#[test]
fn privileged_what_is_mounted_can_be_read_and_not_be_changed() {
    for_each_method(|scene| {
        let target = scene.target("mount");
        publish(scene, &target);
        let inside = Path::new(&target);
        assert_eq!(fs::read_to_string(inside.join("weights")).unwrap(), "weights");
        assert!(erofs(&File::create(inside.join("new")).unwrap_err()));
        assert!(erofs(&OpenOptions::new().write(true).open(inside.join("weights")).unwrap_err()));
        assert!(erofs(&fs::set_permissions(inside.join("weights"), Permissions::from_mode(0o777)).unwrap_err()));
        assert!(erofs(&fs::remove_file(inside.join("weights")).unwrap_err()));
        assert!(erofs(&fs::create_dir(inside.join("dir/new")).unwrap_err()));

        // Nothing but the volume is left: no staging mount, and a directory as kubelet makes them.
        assert_eq!(scene.mounts(), [inside]);
        let opened = scene.mounter().target(&target).unwrap();
        let mount = opened.mounted().unwrap().unwrap();
        assert!(mount.read_only && mount.no_suid && mount.no_dev && !mount.no_exec, "{mount:?}");
        // The cache itself is as writable as before.
        fs::write(scene.tree.join("weights"), "other").unwrap();

        opened.unmount_and_remove().unwrap();
        assert!(!inside.exists());
        assert_eq!(scene.mounts(), [] as [&Path; 0]);
        assert_eq!(fs::read_to_string(scene.tree.join("weights")).unwrap(), "other");
    });
}

#[test]
fn privileged_options_are_honoured_and_stricter_ones_of_the_cache_kept() {
    for_each_method(|scene| {
        let options = MountOptions { no_exec: true, no_atime: true };
        let target = scene.mounter().target(&scene.target("a")).unwrap();
        target.mount_read_only(&scene.tree, options).unwrap();
        assert!(target.mounted().unwrap().unwrap().no_exec);
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(target.path())).unwrap();
        assert!(line.contains("noatime"), "{line}");

        let cache = scene.base.join("cache");
        bind(&cache, &cache);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOEXEC;
        mount(None::<&str>, &cache, None::<&str>, flags, None::<&str>).unwrap();
        let target = scene.mounter().target(&scene.target("b")).unwrap();
        target.mount_read_only(&scene.tree, MountOptions::default()).unwrap();
        assert!(target.mounted().unwrap().unwrap().no_exec, "the cache's own noexec was lost");
    });
}

#[test]
fn privileged_an_unprivileged_user_namespace_can_not_make_it_writable() {
    for_each_method(|scene| {
        let target = scene.target("mount");
        publish(scene, &target);
        // tempfile makes its directory 0700; the child is nobody.
        fs::set_permissions(&scene.base, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap_err();
        fs::set_permissions(&scene.tree, Permissions::from_mode(0o777)).unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["-Urm", "sh", "-c", script]).env("T", &target).env("S", &scene.tree);
            command.gid(65534).uid(65534).output().unwrap()
        };
        // The counter-check: this child gets there, and could write if it were not for the mount.
        let works = shell("cat \"$T/weights\" && touch \"$S/by-nobody\"");
        assert!(works.status.success(), "{works:?}");
        assert_eq!(works.stdout, b"weights");
        // The same remount is allowed as long as it does not ask for write access: so that is what is refused.
        let remount =
            |how: &str| shell(&format!("mount -o remount,bind,{how},nosuid,nodev \"$T\" && touch \"$T/new\""));
        let strict = remount("ro");
        assert!(String::from_utf8_lossy(&strict.stderr).contains("Read-only file system"), "{strict:?}");
        let tried = remount("rw");
        assert!(String::from_utf8_lossy(&tried.stderr).contains("permission denied"), "{tried:?}");
        let tried = shell("umount \"$T\"");
        assert!(!tried.status.success(), "{tried:?}");
        assert!(!scene.tree.join("new").exists());
    });
}

#[test]
fn privileged_a_second_mount_is_never_stacked() {
    for_each_method(|scene| {
        let target = scene.target("mount");
        publish(scene, &target);
        let opened = scene.mounter().target(&target).unwrap();
        let again = opened.mount_read_only(&scene.tree, MountOptions::default()).unwrap_err();
        assert!(matches!(again, MountError::AlreadyMounted { .. }), "{again}");
        assert_eq!(scene.mounts().len(), 1);
        assert!(opened.mounted().unwrap().is_some(), "the mount that was there is gone");
    });
}

#[test]
fn privileged_leftovers_of_others_are_told_apart_and_taken_down() {
    for_each_method(|scene| {
        let other = scene.base.join("other");
        fs::create_dir(&other).unwrap();
        let path = scene.target("mount");
        fs::create_dir(&path).unwrap();
        for _ in 0..3 {
            bind(&other, Path::new(&path));
        }
        let target = scene.mounter().target(&path).unwrap();
        let shown = target.mounted().unwrap().unwrap();
        assert_eq!(Location::of(&other).unwrap().below(&shown), Some(Path::new("")));
        assert_eq!(Location::of(&scene.tree).unwrap().below(&shown), None);
        let refused = target.mount_read_only(&scene.tree, MountOptions::default()).unwrap_err();
        assert!(matches!(refused, MountError::AlreadyMounted { .. }), "{refused}");
        assert_eq!(scene.mounts().len(), 3);

        // In use, which must not keep it: kubelet would try for ever.
        let _used = File::open(&path).unwrap();
        target.unmount_and_remove().unwrap();
        assert_eq!(scene.mounts(), [] as [&Path; 0]);
        assert!(!Path::new(&path).exists());
        assert!(other.is_dir());
    });
}

#[test]
fn privileged_a_dead_file_system_at_the_target_is_taken_down() {
    for_each_method(|scene| {
        let path = scene.target("mount");
        fs::create_dir(&path).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("dead"), path.as_str(), Some("fuse"), MsFlags::empty(), Some(data.as_str())).unwrap();
        drop(device);
        assert_eq!(fs::metadata(&path).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));

        let target = scene.mounter().target(&path).unwrap();
        assert_eq!(target.mounted().unwrap().unwrap().fs_type, "fuse");
        let refused = target.mount_read_only(&scene.tree, MountOptions::default()).unwrap_err();
        assert!(matches!(refused, MountError::AlreadyMounted { .. }), "{refused}");
        target.unmount_and_remove().unwrap();
        assert!(!Path::new(&path).exists());
        publish(scene, &path);
    });
}

#[test]
fn privileged_what_is_not_an_empty_directory_is_left_alone() {
    for_each_method(|scene| {
        let outside = scene.base.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        symlink(&outside, scene.target("link")).unwrap();
        symlink("/nowhere", scene.target("dangling")).unwrap();
        fs::write(scene.target("file"), "file").unwrap();
        fs::create_dir(scene.target("full")).unwrap();
        fs::write(scene.target("full/precious"), "precious").unwrap();
        let before = Scene::listing(&scene.base);

        let mounter = scene.mounter();
        for (name, full) in [("link", false), ("dangling", false), ("file", false), ("full", true)] {
            let target = mounter.target(&scene.target(name)).unwrap();
            let as_expected = |error: &MountError| match error {
                MountError::NotDirectory { .. } => !full,
                MountError::NotEmpty { .. } => full,
                _ => false,
            };
            let error = target.mount_read_only(&scene.tree, MountOptions::default()).unwrap_err();
            assert!(as_expected(&error), "mount on {name}: {error}");
            let error = target.unmount_and_remove().unwrap_err();
            assert!(as_expected(&error), "unmount {name}: {error}");
        }
        assert_eq!(Scene::listing(&scene.base), before);
        assert_eq!(scene.mounts(), [] as [&Path; 0]);
    });
}

#[test]
fn privileged_links_are_followed_to_kubelets_directory_but_not_below() {
    for_each_method(|scene| {
        let outside = scene.base.join("outside");
        fs::create_dir_all(outside.join("volume")).unwrap();
        symlink(&outside, scene.target("link")).unwrap();
        symlink("volume", outside.join("relative")).unwrap();
        let before = Scene::listing(&outside);
        for path in ["link/mount", "link/volume/mount", "link/volume"] {
            let refused = scene.mounter().target(&scene.target(path)).unwrap_err();
            assert!(matches!(refused, MountError::InvalidTarget { .. }), "{path}: {refused}");
            let refused = scene.mounter().unmount_and_remove(&scene.target(path)).unwrap_err();
            assert!(matches!(refused, MountError::InvalidTarget { .. }), "{path}: {refused}");
        }
        assert_eq!(Scene::listing(&outside), before);

        let other_name = scene.base.join("kubelet-link");
        symlink(&scene.kubelet, &other_name).unwrap();
        let mounter = Mounter::new(&other_name).unwrap().with_method(scene.method).with_staging(&scene.base.join("s"));
        let path = other_name.join("pods/uid/mount");
        mounter.target(path.to_str().unwrap()).unwrap().mount_read_only(&scene.tree, MountOptions::default()).unwrap();
        assert!(Path::new(&scene.target("mount/weights")).exists());
    });
}

#[test]
fn privileged_mounts_below_kubelets_directory_are_crossed() {
    for_each_method(|scene| {
        let pods = scene.kubelet.join("pods/uid");
        mount(Some("tmpfs"), &pods, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::create_dir(pods.join("volumes")).unwrap();
        let path = scene.target("volumes/mount");
        publish(scene, &path);
        assert!(Path::new(&path).join("weights").exists());
        scene.mounter().unmount_and_remove(&path).unwrap();
        assert_eq!(scene.mounts(), [pods]);
    });
}

#[test]
fn privileged_unmounting_twice_and_unmounting_nothing_succeed() {
    for_each_method(|scene| {
        let path = scene.target("mount");
        publish(scene, &path);
        let target = scene.mounter().target(&path).unwrap();
        target.unmount_and_remove().unwrap();
        target.unmount_and_remove().unwrap();
        assert!(target.mounted().unwrap().is_none());
        // After a reboot: the directory is there, the mount is not.
        fs::create_dir(&path).unwrap();
        scene.mounter().unmount_and_remove(&path).unwrap();
        assert!(!Path::new(&path).exists());
        let missing = scene.target("not/there");
        assert!(matches!(scene.mounter().target(&missing).unwrap_err(), MountError::MissingParent { .. }));
        scene.mounter().unmount_and_remove(&missing).unwrap();
    });
}

#[test]
fn privileged_a_mount_that_fails_leaves_no_directory() {
    for_each_method(|scene| {
        let path = scene.target("mount");
        let target = scene.mounter().target(&path).unwrap();
        fs::write(scene.base.join("file"), "").unwrap();
        symlink(&scene.tree, scene.base.join("link")).unwrap();
        for tree in ["nowhere", "file", "link"] {
            let error = target.mount_read_only(&scene.base.join(tree), MountOptions::default()).unwrap_err();
            assert!(matches!(error, MountError::MissingTree { .. }), "{tree}: {error}");
            assert!(!Path::new(&path).exists(), "{tree}");
        }
        // A directory that was there before is not ours to remove.
        fs::create_dir(&path).unwrap();
        target.mount_read_only(&scene.base.join("nowhere"), MountOptions::default()).unwrap_err();
        assert!(Path::new(&path).is_dir());
        assert_eq!(scene.mounts(), [] as [&Path; 0]);
    });
}

#[test]
fn privileged_odd_names_are_names_like_any_other() {
    for_each_method(|scene| {
        for name in
            ["model.iso", "model.squashfs", "a b", "line\nbreak", "tab\tand\\040back#slash", "größe-模型", "(deleted)"]
        {
            let tree = scene.base.join("cache/snapshots").join(name);
            fs::create_dir_all(&tree).unwrap();
            fs::write(tree.join("weights"), name).unwrap();
            let path = scene.target(name);
            let target = scene.mounter().target(&path).unwrap();
            target.mount_read_only(&tree, MountOptions::default()).unwrap();
            assert_eq!(fs::read_to_string(Path::new(&path).join("weights")).unwrap(), name);
            let mount = target.mounted().unwrap().unwrap();
            assert_eq!(mount.mount_point, Path::new(&path));
            let shown = snapshots_shown(&scene.base.join("cache/snapshots")).unwrap();
            assert_eq!(shown, [(name.to_owned(), mount)]);
            target.unmount_and_remove().unwrap();
        }
    });
}

#[test]
fn privileged_a_mount_is_recognised_through_whatever_path_the_cache_is_seen() {
    for_each_method(|scene| {
        publish(scene, &scene.target("mount"));
        let cache = scene.base.join("cache");
        let seen = |cache: &Path| {
            let shown = snapshots_shown(&cache.join("snapshots")).unwrap();
            shown.into_iter().map(|(name, mount)| (name, mount.mount_point)).collect::<Vec<_>>()
        };
        let expected = [("ab".to_owned(), scene.target("mount").into())];
        assert_eq!(seen(&cache), expected);

        // As a container sees it: the cache is a bind mount of a directory of the host.
        let elsewhere = scene.base.join("else where");
        fs::create_dir(&elsewhere).unwrap();
        bind(&cache, &elsewhere);
        assert_eq!(seen(&elsewhere), expected);
        // A mount of somebody else's directory, and one of the whole cache, are no snapshots.
        fs::create_dir(scene.target("other")).unwrap();
        bind(&scene.kubelet, Path::new(&scene.target("other")));
        assert_eq!(seen(&cache), expected);

        // The directory is gone, the mount is not: what it shows must still be known, else it would be evicted twice.
        fs::remove_dir_all(scene.base.join("cache/snapshots/ab")).unwrap();
        assert_eq!(seen(&cache), expected);
    });
}

#[test]
fn privileged_descriptors_and_mounts_do_not_pile_up() {
    for_each_method(|scene| {
        let mounter = scene.mounter();
        let path = scene.target("mount");
        let cycle = || {
            mounter.target(&path).unwrap().mount_read_only(&scene.tree, MountOptions::default()).unwrap();
            mounter.unmount_and_remove(&path).unwrap();
        };
        // Only descriptors that lead to this test's files: other tests run in this process, too.
        let ours = || {
            let all = fs::read_dir("/proc/thread-self/fd").unwrap();
            let led = all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
            led.filter(|path| path.starts_with(&scene.base)).count()
        };
        cycle();
        let (descriptors, mounts) = (ours(), mountinfo::read().unwrap().len());
        for _ in 0..100 {
            cycle();
        }
        assert_eq!((ours(), mountinfo::read().unwrap().len()), (descriptors, mounts));
        let nodes = fs::metadata(scene.kubelet.join("pods/uid")).unwrap().nlink();
        assert_eq!(nodes, 2);
    });
}
