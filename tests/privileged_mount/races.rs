//! Tests against somebody who acts at the same time.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use modelmount_driver::mount::MountOptions;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::namespace::{Scene, for_each_method};

/// Tells the other thread to end, also when this one panics: a test that fails must not hang.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn privileged_a_writer_never_gets_in() {
    for_each_method(|scene| {
        let path = scene.target("mount");
        let done = AtomicBool::new(false);
        let (reads, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
        let before = Scene::listing(&scene.tree);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (weights, new) = (Path::new(&path).join("weights"), Path::new(&path).join("dir/new"));
                while !done.load(Ordering::Relaxed) {
                    // Neither file can exist in the bare target directory: these succeed only through a writable mount.
                    let opened = OpenOptions::new().append(true).open(&weights);
                    let made = File::create(&new);
                    for result in [opened, made] {
                        let error = result.expect_err("a write got through");
                        if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
                            refusals.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    reads.fetch_add(u64::from(fs::read(&weights).is_ok()), Ordering::Relaxed);
                }
            });
            let _stop = Stop(&done);
            let mounter = scene.mounter();
            let mut cycles = 0;
            // At least 200 mounts, and until the writer has met enough of them for the test to mean something.
            while cycles < 200 || refusals.load(Ordering::Relaxed) < 50 || reads.load(Ordering::Relaxed) < 50 {
                let target = mounter.target(&path).unwrap();
                target.mount_read_only(&scene.tree, MountOptions::default()).unwrap();
                target.unmount_and_remove().unwrap();
                assert!(!writer.is_finished(), "the writer got in, or broke down");
                cycles += 1;
                assert!(cycles < 100_000, "the writer never met a mount");
            }
        });
        assert_eq!(Scene::listing(&scene.tree), before);
    });
}

#[test]
fn privileged_a_symlink_swapper_redirects_nothing() {
    for_each_method(|scene| {
        // `volume` is now a directory of kubelet's, now a link to somebody's `outside/volume`, which looks just alike.
        let outside = scene.base.join("outside");
        fs::create_dir_all(outside.join("mount")).unwrap();
        fs::create_dir(scene.target("volume")).unwrap();
        std::os::unix::fs::symlink(&outside, scene.target("swap")).unwrap();
        let before = Scene::listing(&outside);
        let path = scene.target("volume/mount");
        let done = AtomicBool::new(false);
        let swaps = AtomicU64::new(0);
        thread::scope(|scope| {
            let swapper = scope.spawn(|| {
                let name = |name| CString::new(scene.target(name)).unwrap();
                let (one, other) = (name("volume"), name("swap"));
                while !done.load(Ordering::Relaxed) {
                    let (one, other) = (one.as_c_str(), other.as_c_str());
                    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let _stop = Stop(&done);
            let mounter = scene.mounter();
            let (mut mounted, mut refused) = (0, 0);
            while mounted < 200 || refused < 50 || swaps.load(Ordering::Relaxed) < 1_000 {
                let Ok(target) = mounter.target(&path) else {
                    refused += 1;
                    continue;
                };
                // Once the parent is held, no swap matters any more: both calls succeed, on the real directory.
                target.mount_read_only(&scene.tree, MountOptions::default()).unwrap();
                let outside_is_free = fs::read_dir(outside.join("mount")).unwrap().next().is_none();
                assert!(outside_is_free, "the volume was mounted outside");
                target.unmount_and_remove().unwrap();
                assert!(!swapper.is_finished(), "the swapper broke down");
                mounted += 1;
                assert!(mounted + refused < 1_000_000, "the swapper never met a mount");
            }
        });
        assert_eq!(Scene::listing(&outside), before);
        assert_eq!(scene.mounts(), [] as [&Path; 0]);
    });
}

#[test]
fn privileged_two_who_mount_at_once_do_not_stack() {
    for_each_method(|scene| {
        let mounter = scene.mounter();
        let path = scene.target("mount");
        for _ in 0..50 {
            let attempt = || {
                let target = mounter.target(&path).unwrap();
                target.mount_read_only(&scene.tree, MountOptions::default()).is_ok()
            };
            let succeeded = thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempt)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count()
            });
            assert_eq!((succeeded, scene.mounts().len()), (1, 1));
            mounter.unmount_and_remove(&path).unwrap();
        }
    });
}
