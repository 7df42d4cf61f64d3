//! Starts a server program on a free port and waits until it answers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::process::Process;

/// How long a server may take to answer. Generous: the machine may be building something else.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Ports to try: another process may take one between our choosing it and the server's binding it.
const ATTEMPTS: usize = 5;

/// A loopback address on which nothing listens.
pub(crate) fn free_address() -> SocketAddr {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are free ports");
    probe.local_addr().expect("a bound socket has an address")
}

/// A string that no other server of any test has: for keys and readiness probes, so that a server that got the port
/// first is never mistaken for ours.
pub(crate) fn nonce() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{:x}x{:x}x{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), now & 0xffff_ffff)
}

/// Starts what `command` makes of a free address, and waits until `ready` says that it is this server that answers.
pub(crate) async fn launch(
    name: &str,
    log: &Path,
    command: impl Fn(SocketAddr) -> Command,
    ready: impl AsyncFn(SocketAddr) -> bool,
) -> (SocketAddr, Process) {
    let mut process_log = String::new();
    for _ in 0..ATTEMPTS {
        let address = free_address();
        let process = Process::start(&command(address), log);
        let start = Instant::now();
        while process.is_running() {
            let answer = tokio::time::timeout(Duration::from_secs(2), ready(address)).await;
            if answer == Ok(true) {
                return (address, process);
            }
            assert!(start.elapsed() < READY_WITHIN, "{name} does not answer; its log:\n{}", process.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process_log = process.log();
    }
    panic!("{name} ended {ATTEMPTS} times instead of serving; its log:\n{process_log}");
}
