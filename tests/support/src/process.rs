//! Children of a test: their log, their end, their memory.
//!
//! A child never outlives its test. It is killed with its whole process group when dropped, which a panic does too; and
//! the kernel kills it when the test's process dies without dropping anything (`PR_SET_PDEATHSIG`, set by `setpriv` of
//! util-linux, which then becomes the child: no `unsafe`, and the process id is the child's own).

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::tools;
use crate::wait::until;

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with both its outputs appended to the file `log`. Its standard input is empty.
    ///
    /// # Panics
    /// When the program can't be started, or `setpriv` is missing.
    pub fn start(command: &Command, log: &Path) -> Self {
        let setpriv = tools::find("setpriv").expect("setpriv, of the package util-linux, is installed");
        let output = File::options().create(true).append(true).open(log).expect("the log can be written");
        let mut wrapped = Command::new(setpriv);
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped.process_group(0).stdin(Stdio::null());
        wrapped.stdout(output.try_clone().expect("the log can be shared")).stderr(output);
        let child = spawn(wrapped).unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        let pid = Pid::from_raw(child.id().cast_signed());
        Self { child: Mutex::new(child), pid, log: log.to_owned() }
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().expect("a child can be waited for")
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Sends it a signal, for instance `SIGSTOP`; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        // Holding the lock: nobody reaps the child meanwhile, so that its number can't have become another's.
        let mut child = self.child.lock().unwrap();
        if child.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill(self.pid, signal).expect("a child can be sent signals");
        }
    }

    /// Asks it to end (`SIGTERM`).
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kills it and its group as a crash would (`SIGKILL`), and returns when it is gone.
    pub fn kill(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap();
        // The group first, while its leader is not yet reaped and so holds the group's number.
        killpg(self.pid, Signal::SIGKILL).ok();
        child.wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `deadline`; the text holds its log.
    pub async fn wait(&self, deadline: Duration) -> ExitStatus {
        let ended = until("the process to end", deadline, async || self.exit_status());
        tokio::time::timeout(deadline.saturating_mul(2), ended).await.expect("the process ends")
    }

    /// The most memory it ever had resident, in bytes (`VmHWM`). `None` once it has ended.
    pub fn peak_rss(&self) -> Option<u64> {
        peak_rss(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        killpg(self.pid, Signal::SIGKILL).ok();
        child.wait().ok();
    }
}

/// The most memory that a process ever had resident, in bytes; `None` when there is no such process.
pub fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Starts a child from a thread that lives as long as the process: `PR_SET_PDEATHSIG` fires when the *thread* that
/// forked ends, and a server may be shared between tests, whose threads come and go.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let body = move || {
            for (mut command, reply) in inbox {
                reply.send(command.spawn()).ok();
            }
        };
        thread::Builder::new().name("spawner".into()).spawn(body).expect("a thread can be started");
        Mutex::new(jobs)
    });
    let (reply, answer) = mpsc::channel();
    spawner.lock().unwrap().send((command, reply)).expect("the spawner never ends");
    answer.recv().expect("the spawner answers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;

    fn shell(script: &str, directory: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("GREETING", "hello");
        Process::start(&command, &directory.join("log"))
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn output_environment_and_exit_status_arrive() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("echo $GREETING; echo error >&2; exit 3", directory.path());
        assert_eq!(process.wait(SOON).await.code(), Some(3));
        assert_eq!(process.log(), "hello\nerror\n");
        assert!(process.peak_rss().is_none());
    }

    #[tokio::test]
    async fn a_dropped_process_takes_its_children_along() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("sleep 600 & echo $!; wait", directory.path());
        eventually("the grandchild", SOON, || process.log().ends_with('\n')).await;
        let grandchild: u32 = process.log().trim().parse().unwrap();
        assert!(exists(grandchild) && process.peak_rss().unwrap() > 0);
        let child = process.pid();
        drop(process);
        assert!(!exists(child));
        // Nobody waits for an orphan but init: it may be a zombie for a moment.
        eventually("the grandchild's end", SOON, || {
            fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| stat.contains(") Z "))
                || !exists(grandchild)
        })
        .await;
    }

    #[tokio::test]
    async fn terminate_is_a_request_and_kill_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let polite = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", directory.path());
        eventually("the trap", SOON, || polite.log().contains("ready")).await;
        polite.terminate();
        assert_eq!(polite.wait(SOON).await.code(), Some(7));
        let stubborn = shell("trap '' TERM; echo ready2; while :; do sleep 0.05; done", directory.path());
        eventually("the trap", SOON, || stubborn.log().contains("ready2")).await;
        stubborn.terminate();
        assert!(stubborn.is_running());
        assert!(stubborn.kill().code().is_none());
        stubborn.terminate();
    }

    /// Not a test by itself: what [`a_killed_test_process_leaves_nothing`] starts and kills.
    #[test]
    fn inner_holds_a_child_until_killed() {
        let Some(directory) = std::env::var_os("MODELMOUNT_INNER_TEST") else { return };
        let directory = PathBuf::from(directory);
        let process = thread::scope(|scope| scope.spawn(|| shell("sleep 600", &directory)).join().unwrap());
        assert!(process.is_running(), "the end of the thread that started it does not end a child");
        fs::write(directory.join("writing"), process.pid().to_string()).unwrap();
        fs::rename(directory.join("writing"), directory.join("pid")).unwrap();
        loop {
            thread::park();
        }
    }

    #[tokio::test]
    async fn a_killed_test_process_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::tests::inner_holds_a_child_until_killed"]);
        command.env("MODELMOUNT_INNER_TEST", directory.path());
        let test = Process::start(&command, &directory.path().join("outer"));
        let pid_file = directory.path().join("pid");
        eventually("the inner child", SOON, || pid_file.exists()).await;
        let child: u32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
        assert!(exists(child));
        // Only the one process, not its group: that is what happens to a test that the OOM killer chooses.
        test.signal(Signal::SIGKILL);
        eventually("the inner child's end", SOON, || !exists(child)).await;
    }
}
