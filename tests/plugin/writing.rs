//! A pod can't write: not through the mount, not by remounting it, not in the moment in which it appears.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use modelmount_test_support::wait::eventually;
use modelmount_test_support::{Pattern, model};

use crate::harness::{Plugin, SOON, bind};
use crate::store::Store;

/// Publishes in the test of the race.
const ROUNDS: usize = 30;
const NOBODY: u32 = 65534;

#[track_caller]
fn refused<T: std::fmt::Debug>(attempt: io::Result<T>) {
    let error = attempt.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error}");
}

#[tokio::test]
async fn privileged_a_pod_can_not_write_not_even_as_root() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let pod = plugin.pod("a");
    // Whatever the claim says.
    let mut request = pod.request(&store.volume("m"));
    request.readonly = false;
    pod.send(request, SOON).await.unwrap();

    let volume = pod.path();
    let file = volume.join("config.json");
    refused(OpenOptions::new().write(true).open(&file));
    refused(OpenOptions::new().append(true).open(&file));
    refused(File::create(volume.join("new")));
    refused(fs::create_dir(volume.join("tokenizer/new")));
    refused(fs::set_permissions(&file, Permissions::from_mode(0o666)));
    refused(fs::rename(&file, volume.join("renamed")));
    refused(fs::remove_file(&file));
    refused(fs::hard_link(&file, volume.join("linked")));
    refused(std::os::unix::fs::chown(&file, Some(NOBODY), None));

    // A bind mount of it is as read-only as it is.
    let bound = plugin.elsewhere("bound");
    bind(volume, &bound);
    refused(OpenOptions::new().write(true).open(bound.join("config.json")));
    refused(File::create(bound.join("new")));
    assert_eq!(pod.files(), files);
}

/// Runs a script as nobody, in a user namespace in which it is root, with mounts of its own.
fn in_user_namespace(script: &str, target: &Path) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", script]).env("T", target).uid(NOBODY).gid(NOBODY).current_dir("/");
    command.output().unwrap()
}

#[tokio::test]
async fn privileged_a_user_namespace_does_not_help() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = model::small(1);
    store.put_model("m/", &files).await;
    let pod = plugin.pod("a");
    pod.publish(&store.volume("m")).await.unwrap();
    let shell = |script: &str| in_user_namespace(script, pod.path());

    // The counter-check: it gets there, it may mount, and may write to what is its own.
    let works = shell("cat \"$T/config.json\" && mount -t tmpfs none /mnt && touch /mnt/new");
    assert!(works.status.success(), "{works:?}");
    assert_eq!(works.stdout, files["config.json"]);

    let refusal = |script: &str, words: &str| {
        let tried = shell(script);
        let text = String::from_utf8_lossy(&tried.stderr);
        assert!(!tried.status.success() && text.contains(words), "{script}: {tried:?}");
    };
    refusal("mount -o remount,bind,rw,nosuid,nodev \"$T\"", "permission denied");
    refusal("umount \"$T\"", "umount: ");
    refusal("chmod 666 \"$T/config.json\"", "Read-only file system");
    let bind = "mount -t tmpfs none /mnt && mkdir /mnt/x && mount --bind \"$T\" /mnt/x &&";
    refusal(&format!("{bind} touch /mnt/x/new"), "Read-only file system");
    refusal(&format!("{bind} mount -o remount,bind,rw,nosuid,nodev /mnt/x"), "permission denied");
    assert_eq!(pod.files(), files);
}

/// Somebody who tries all the time to write to a file of a volume that comes and goes.
struct Writer {
    refusals: Arc<AtomicU64>,
    successes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    fn start(file: &Path) -> Self {
        let (refusals, successes, stop) = (Arc::default(), Arc::default(), Arc::default());
        let (file, [refused, written], ended) =
            (file.to_owned(), [&refusals, &successes].map(Arc::<AtomicU64>::clone), Arc::<AtomicBool>::clone(&stop));
        let attempt = move || match OpenOptions::new().write(true).truncate(true).open(&file) {
            Ok(_) => written.fetch_add(1, Ordering::SeqCst),
            // Anything else: the volume is not there.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => refused.fetch_add(1, Ordering::SeqCst),
            Err(_) => 0,
        };
        let body = move || {
            while !ended.load(Ordering::SeqCst) {
                attempt();
            }
        };
        Self { refusals, successes, stop, thread: Some(thread::spawn(body)) }
    }

    fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().ok();
    }
}

#[tokio::test]
async fn privileged_a_writer_finds_no_moment_to_write() {
    let Some(store) = Store::start().await else { return };
    let plugin = Plugin::start(&[]).await;
    let files = [("weights".to_owned(), Pattern::new(1).bytes(0, 10_000))].into();
    store.put_model("m/", &files).await;
    let volume = store.volume("m");
    let pod = plugin.pod("a");
    let writer = Writer::start(&pod.path().join("weights"));
    for _ in 0..ROUNDS {
        let before = writer.refusals();
        pod.publish(&volume).await.unwrap();
        // It was there, and it tried.
        eventually("the writer's attempt", SOON, || {
            assert_eq!(writer.successes.load(Ordering::SeqCst), 0, "it could write");
            writer.refusals() > before
        })
        .await;
        pod.unpublish().await.unwrap();
    }
    pod.publish(&volume).await.unwrap();
    assert_eq!(pod.files(), files, "the cache's bytes have changed");
}
