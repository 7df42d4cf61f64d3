//! How long the binary takes to start: to say its version, to show its help, and to answer kubelet's first Probe.
//!
//! `MODELMOUNT_BIN`: which binary, by default that of this profile. `COMPARE`: a shell command that is timed as well, in
//! turn with the others, so that a change of the machine's mood hits all alike. `REPORT`: a file for the figures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark reports and may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modelmount_driver::client::connect;
use modelmount_driver::csi::ProbeRequest;
use modelmount_driver::csi::identity_client::IdentityClient;
use modelmount_test_support::process::Process;

const ROUNDS: usize = 100;

fn main() {
    // `cargo test` runs benchmarks to see that they work; the figures of a debug build mean nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let binary = std::env::var("MODELMOUNT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_modelmount").to_owned());
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    // The first round brings the files into memory, and is not counted.
    for round in 0..=ROUNDS {
        let mut took = vec![
            ("version", to_its_end(Command::new(&binary).arg("--version"))),
            ("help", to_its_end(Command::new(&binary).args(["node", "--help"]))),
            ("probe", to_first_probe(&binary).await),
        ];
        if let Ok(other) = std::env::var("COMPARE") {
            took.push(("compare", to_its_end(Command::new("sh").args(["-c", &other]))));
        }
        if round > 0 {
            took.into_iter().for_each(|(what, time)| times.entry(what).or_default().push(time));
        }
    }
    let mut report = serde_json::Map::new();
    for (what, mut times) in times {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let (median, p99) = (at(0.5), at(0.99));
        println!("{what:<10} median {median:>9.3?}  p99 {p99:>9.3?}");
        let [median, p99] = [median, p99].map(|time| time.as_secs_f64() * 1e3);
        report.insert(what.to_owned(), serde_json::json!({"median": median, "p99": p99}));
    }
    if let Ok(file) = std::env::var("REPORT") {
        std::fs::write(file, serde_json::json!({"rounds": ROUNDS, "ms": report}).to_string()).unwrap();
    }
}

fn to_its_end(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    begun.elapsed()
}

/// From exec to the first Probe that says `ready`, on a cache that is new.
async fn to_first_probe(binary: &str) -> Duration {
    let work = tempfile::tempdir().unwrap();
    let in_work = |name: &str| work.path().join(name);
    std::fs::create_dir(in_work("kubelet")).unwrap();
    let socket = in_work("csi.sock");
    let endpoint = format!("unix://{}", socket.display());
    let mut command = Command::new(binary);
    command.args(["node", "--node-id", "bench", "--keep-free", "0", "--endpoint", &endpoint]);
    command.arg("--cache-dir").arg(in_work("cache")).arg("--kubelet-dir").arg(in_work("kubelet"));
    let begun = Instant::now();
    let plugin = Process::start(&command, &in_work("log"));
    while !is_ready(&socket, &endpoint).await {
        assert!(begun.elapsed() < Duration::from_secs(20) && plugin.is_running(), "{}", plugin.log());
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    begun.elapsed()
}

async fn is_ready(socket: &Path, endpoint: &str) -> bool {
    if !socket.exists() {
        return false;
    }
    let Ok(channel) = connect(endpoint).await else { return false };
    let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
    answer.is_ok_and(|answer| answer.into_inner().ready.unwrap_or(true))
}
