//! The plugin under test: the real binary, with a socket, a cache and a kubelet directory of its own.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use modelmount_driver::client::connect;
use modelmount_driver::csi::ProbeRequest;
use modelmount_driver::csi::identity_client::IdentityClient;
use modelmount_driver::mount::mountinfo::{self, Mount};
use modelmount_test_support::Process;
use modelmount_test_support::wait::until;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::pod::Pod;

/// The binary.
pub(crate) const MODELMOUNT: &str = env!("CARGO_BIN_EXE_modelmount");

/// Longer than anything takes that is not slowed down on purpose, also on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Asks for both ports, wherever there is room.
pub(crate) const PORTS: [&str; 4] = ["--health-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];

/// A node plugin. Dropped, it is killed, and what is mounted below its directories is unmounted.
pub(crate) struct Plugin {
    process: Option<Process>,
    arguments: Vec<String>,
    /// Of the socket, below the plugin's own directory.
    socket: &'static str,
    directory: TempDir,
}

impl Plugin {
    /// A plugin that may fetch from loopback, with further `arguments`.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::strict(&[&["--allow-address", "127.0.0.0/8"], arguments].concat()).await
    }

    /// A plugin with the policy that it has by default.
    pub(crate) async fn strict(arguments: &[&str]) -> Self {
        let directory = directory();
        fs::create_dir(directory.path().join("kubelet")).unwrap();
        Self::run(directory, "csi.sock", arguments).await
    }

    /// A plugin as it is deployed: it registers itself with kubelet, and can be watched at two ports.
    pub(crate) async fn deployed() -> Self {
        let directory = directory();
        let registry = directory.path().join("kubelet/plugins_registry");
        for made in ["kubelet/plugins", "kubelet/plugins_registry"] {
            fs::create_dir_all(directory.path().join(made)).unwrap();
        }
        let arguments =
            [&["--allow-address", "127.0.0.0/8", "--registration-dir", registry.to_str().unwrap()], &PORTS[..]];
        Self::run(directory, "kubelet/plugins/csi.modelmount.io/csi.sock", &arguments.concat()).await
    }

    /// A plugin whose kubelet directory is a symbolic link to the real one, as where `/var/lib/kubelet` has moved.
    pub(crate) async fn behind_a_link() -> Self {
        let directory = directory();
        fs::create_dir(directory.path().join("disk")).unwrap();
        symlink("disk", directory.path().join("kubelet")).unwrap();
        Self::run(directory, "csi.sock", &["--allow-address", "127.0.0.0/8"]).await
    }

    async fn run(directory: TempDir, socket: &'static str, more: &[&str]) -> Self {
        let mut plugin = Self { process: None, arguments: Vec::new(), socket, directory };
        plugin.arguments = node_arguments(&plugin.endpoint(), &plugin.cache(), &plugin.kubelet());
        plugin.arguments.extend(more.iter().map(ToString::to_string));
        plugin.restart().await;
        plugin
    }

    /// From its next start on it has these arguments too.
    pub(crate) fn add_arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(ToString::to_string));
    }

    /// Starts it anew on the same directories, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        self.start_anew();
        ready(self.process.as_ref().unwrap(), &self.endpoint()).await;
    }

    /// Starts it anew on the same directories.
    pub(crate) fn start_anew(&mut self) {
        // First the old one goes: there is one plugin per cache.
        self.process = None;
        let mut command = Command::new(MODELMOUNT);
        command.args(&self.arguments);
        self.process = Some(Process::start(&command, &self.log_file()));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let process = self.process.take().unwrap();
        process.terminate();
        process.wait(SOON).await
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(self.socket)
    }

    /// What it was started with.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }

    /// Where its pages are, `health` or `metrics`: the last address that it has logged.
    pub(crate) fn port(&self, what: &str) -> SocketAddr {
        port(&self.log(), what)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.directory.path().join("kubelet")
    }

    /// A directory beside those of the plugin.
    pub(crate) fn elsewhere(&self, name: &str) -> PathBuf {
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What all its processes have printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// A pod whose directories are there, as kubelet makes them before it publishes.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        Pod::new(self.endpoint(), &self.kubelet(), name)
    }

    /// Everything that is mounted below its directories, in the order in which it was mounted.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        mounts_below(self.directory.path())
    }

    /// The files that hold leases.
    pub(crate) fn leases(&self) -> Vec<PathBuf> {
        fs::read_dir(self.cache().join("leases")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Unmounts everything, as a reboot does.
    pub(crate) fn unmount_all(&self) {
        unmount_below(self.directory.path()).unwrap();
    }

    /// Nothing is mounted, nothing is leased, and no target is left.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, what: &str) {
        assert_eq!(self.mounts(), [], "{what}: mounts");
        assert_eq!(self.leases(), [] as [PathBuf; 0], "{what}: leases");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.process = None;
        if let Err(error) = unmount_below(self.directory.path()) {
            // Removing what is below would remove what is mounted there.
            self.directory.disable_cleanup(true);
            assert!(std::thread::panicking(), "{:?} can't be unmounted: {error}", self.directory.path());
        }
    }
}

/// The last address of these pages in a log.
pub(crate) fn port(log: &str, what: &str) -> SocketAddr {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let address = lines.rfind(|line| line["what"] == what).expect("the address is logged");
    address["address"].as_str().unwrap().parse().unwrap()
}

/// A controller alone, as a Deployment runs it: no cache, no kubelet.
pub(crate) struct Controller {
    _process: Process,
    directory: TempDir,
}

impl Controller {
    /// A controller whose models may come from loopback.
    pub(crate) async fn start() -> Self {
        let directory = directory();
        let mut command = Command::new(MODELMOUNT);
        command.args(["controller", "--allow-address", "127.0.0.0/8", "--endpoint", &endpoint_in(&directory)]);
        let process = Process::start(&command, &directory.path().join("log"));
        ready(&process, &endpoint_in(&directory)).await;
        Self { _process: process, directory }
    }

    pub(crate) fn endpoint(&self) -> String {
        endpoint_in(&self.directory)
    }
}

fn endpoint_in(directory: &TempDir) -> String {
    format!("unix://{}", directory.path().join("csi.sock").display())
}

/// Waits until a plugin says of itself that it is ready.
async fn ready(process: &Process, endpoint: &str) {
    until("the plugin", SOON, async || {
        assert!(process.is_running(), "the plugin ended:\n{}", process.log());
        let channel = connect(endpoint).await.ok()?;
        let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await.ok()?;
        (answer.into_inner().ready == Some(true)).then_some(())
    })
    .await;
}

/// tempfile makes its directories for the owner alone, and pods are not root.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// `modelmount node` with everything that a test needs.
pub(crate) fn node_arguments(endpoint: &str, cache: &Path, kubelet: &Path) -> Vec<String> {
    let (cache, kubelet) = (cache.to_str().unwrap(), kubelet.to_str().unwrap());
    let arguments = ["node", "--endpoint", endpoint, "--node-id", "n", "--cache-dir", cache, "--kubelet-dir", kubelet];
    let more = ["--with-controller", "--keep-free", "0", "--log-format", "json", "--log-level", "debug"];
    arguments.into_iter().chain(more).map(str::to_owned).collect()
}

/// Runs the binary to its end, with these variables and no others.
pub(crate) fn modelmount(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    // A command that hangs is a failure and not a test that never ends.
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", MODELMOUNT]).args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(environment.iter().copied()).output().unwrap()
}

/// Binds `source` on `target`, writable, as somebody else might have.
pub(crate) fn bind(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

fn mounts_below(directory: &Path) -> Vec<Mount> {
    let directory = directory.canonicalize().unwrap();
    let all = mountinfo::read_settled().unwrap();
    all.into_iter().filter(|mount| mount.mount_point.starts_with(&directory)).collect()
}

fn unmount_below(directory: &Path) -> io::Result<()> {
    // What is mounted on a mount comes after it in the table.
    for mount in mounts_below(directory).iter().rev() {
        umount2(&mount.mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}
