//! A scratch kubelet directory and cache in a mount namespace of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use modelmount_driver::mount::{Method, Mounter};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// What a test works on.
pub(crate) struct Scene {
    pub(crate) base: PathBuf,
    pub(crate) kubelet: PathBuf,
    pub(crate) tree: PathBuf,
    pub(crate) method: Method,
}

impl Scene {
    pub(crate) fn mounter(&self) -> Mounter {
        Mounter::new(&self.kubelet).unwrap().with_method(self.method).with_staging(&self.base.join("cache/staging"))
    }

    /// A target whose parent exists, as text.
    pub(crate) fn target(&self, name: &str) -> String {
        self.kubelet.join("pods/uid").join(name).to_str().unwrap().to_owned()
    }

    /// Everything below the directory with its content, without crossing into what is mounted there.
    pub(crate) fn listing(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                all.push((entry.path(), Vec::new()));
                all.extend(Self::listing(&entry.path()));
            } else {
                all.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
            }
        }
        all.sort();
        all
    }

    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let all = modelmount_driver::mount::mountinfo::read().unwrap();
        all.into_iter().map(|mount| mount.mount_point).filter(|point| point.starts_with(&self.base)).collect()
    }
}

/// Runs the test once per way to mount, each time in a mount namespace of its own: however it ends, the mounts end with
/// the thread. The directory is removed afterwards from outside, where none of the mounts was ever visible.
pub(crate) fn for_each_method(test: fn(&Scene)) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts: run it as root, or leave it out with --skip privileged_"
    );
    for method in [Method::Auto, Method::MoveMount, Method::StagedBind] {
        let directory = tempfile::tempdir().unwrap();
        // Not /tmp/.tmpXYZ itself: an unprivileged child must be able to get in.
        let base = directory.path().to_path_buf();
        let scene = Scene { kubelet: base.join("kubelet"), tree: base.join("cache/snapshots/ab/tree"), base, method };
        let result = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            fs::create_dir_all(scene.kubelet.join("pods/uid")).unwrap();
            fs::create_dir_all(scene.tree.join("dir")).unwrap();
            fs::write(scene.tree.join("weights"), "weights").unwrap();
            test(&scene);
        })
        .join();
        if let Err(panic) = result {
            std::panic::panic_any(format!("with {method:?}: {}", text(&panic)));
        }
        directory.close().unwrap();
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// Binds `source` on `target`, writable, as somebody else might have.
pub(crate) fn bind(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}
