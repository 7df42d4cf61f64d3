//! The startup taint against an API server that answers as it is told, step by step.

use std::io;
use std::sync::{Arc, Mutex};

use modelmount_test_support::ScriptedServer;
use modelmount_test_support::script::Response as Answer;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::kubernetes::Config;

const QUICK: Schedule =
    Schedule { first: Duration::from_millis(1), longest: Duration::from_millis(5), watch: Duration::ZERO };
const DRIVER: &str = "csi.modelmount.io";

/// A server that gives these answers one after the other, the last one for ever, and a plugin that asks it.
struct Scene {
    server: ScriptedServer,
    account: TempDir,
}

impl Scene {
    async fn start(answers: Vec<Answer>) -> Self {
        let server = ScriptedServer::start(move |request| answers[request.number.min(answers.len() - 1)].clone()).await;
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("token"), "t").unwrap();
        Self { server, account }
    }

    fn taint(&self, schedule: Schedule) -> StartupTaint {
        let (server, service_account) = (self.server.url().parse().unwrap(), self.account.path().to_owned());
        StartupTaint::new(Client::new(Config { server, service_account }), "n", DRIVER, schedule)
    }

    /// Methods and kinds of the objects that were asked about.
    fn asked(&self) -> Vec<String> {
        let short = |target: &str| target.split('/').rev().nth(1).unwrap_or_default().to_owned();
        let requests = self.server.requests().into_iter();
        requests.map(|request| format!("{} {}", request.method, short(&request.target))).collect()
    }

    /// The patches that came.
    fn patches(&self) -> Vec<Value> {
        let requests = self.server.requests().into_iter();
        requests.filter(|r| r.method == "PATCH").map(|r| serde_json::from_slice(&r.body).unwrap()).collect()
    }
}

fn csi_node(drivers: &[&str]) -> Answer {
    let drivers: Vec<_> = drivers.iter().map(|name| json!({"name": name, "nodeID": "n"})).collect();
    Answer::new(200).body(json!({"kind": "CSINode", "spec": {"drivers": drivers}}).to_string())
}

fn node(taints: &[&str]) -> Answer {
    let taints: Vec<_> = taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
    Answer::new(200).body(json!({"kind": "Node", "spec": {"taints": taints}}).to_string())
}

fn removal(index: usize) -> [Value; 2] {
    let path = format!("/spec/taints/{index}");
    [
        json!({"op": "test", "path": format!("{path}/key"), "value": STARTUP_TAINT}),
        json!({"op": "remove", "path": path}),
    ]
}

#[tokio::test]
async fn the_taint_goes_once_kubelet_knows_the_driver() {
    let others = ["a", STARTUP_TAINT, "b", STARTUP_TAINT];
    let scene = Scene::start(vec![
        Answer::new(404),
        Answer::new(200).body(r#"{"spec": {"drivers": null}}"#),
        csi_node(&["csi.modelmount.io.other"]),
        csi_node(&["other", DRIVER]),
        node(&others),
        node(&["a", "b"]),
        node(&["a", "b"]),
    ])
    .await;
    scene.taint(QUICK).keep_off().await;
    let (csi_node, node) = ("GET csinodes", "GET nodes");
    assert_eq!(scene.asked(), [csi_node, csi_node, csi_node, csi_node, node, "PATCH nodes", node]);
    // From the end, each guarded: another taint in its place is not removed.
    assert_eq!(scene.patches(), [Value::from([removal(3), removal(1)].concat())]);
}

#[tokio::test]
async fn taints_that_moved_are_looked_up_again() {
    let scene = Scene::start(vec![
        csi_node(&[DRIVER]),
        node(&[STARTUP_TAINT]),
        Answer::new(422).body(r#"{"message": "testing value failed"}"#),
        node(&["first", STARTUP_TAINT]),
        Answer::new(409),
        node(&["first", STARTUP_TAINT]),
        node(&["first"]),
        node(&["first"]),
    ])
    .await;
    let log = Log::default();
    let _guard = log.install();
    scene.taint(QUICK).keep_off().await;
    assert_eq!(scene.patches(), [0, 1, 1].map(|index| Value::from(removal(index).to_vec())));
    assert_eq!(log.lines_with("WARN"), 0, "{}", log.text());
}

#[tokio::test]
async fn a_taint_that_comes_late_goes_too() {
    let mut answers = vec![csi_node(&[DRIVER])];
    answers.extend(std::iter::repeat_n(Answer::new(200).body(r#"{"kind": "Node", "spec": {}}"#), 20));
    answers.extend([node(&[STARTUP_TAINT]), node(&[]), node(&[])]);
    let scene = Scene::start(answers).await;
    let watching = scene.taint(Schedule { watch: Duration::from_secs(600), ..QUICK });
    let watching = tokio::spawn(watching.keep_off());
    modelmount_test_support::eventually("the removal", Duration::from_secs(20), || scene.patches().len() == 1).await;
    assert!(!watching.is_finished());
    watching.abort();
}

#[tokio::test]
async fn failures_are_told_once_with_what_to_do_and_never_end_it() {
    let mut answers: Vec<_> =
        [403, 403, 401, 500, 503, 403].into_iter().map(|status| Answer::new(status).body("{}")).collect();
    answers.extend([
        csi_node(&[DRIVER]),
        Answer::new(404),
        Answer::new(200).body("<html>"),
        Answer::new(200).reset_after(0),
    ]);
    answers.extend([node(&[STARTUP_TAINT]), Answer::new(403), node(&[STARTUP_TAINT]), node(&[]), node(&[])]);
    let count = answers.len();
    let scene = Scene::start(answers).await;
    let log = Log::default();
    let _guard = log.install();
    scene.taint(QUICK).keep_off().await;
    assert_eq!(scene.asked().len(), count);
    for (hint, times) in [
        ("get and patch on nodes", 1),
        ("whose token is mounted", 1),
        ("must be the node's name", 1),
        ("it is tried again", 2),
        ("taint was removed", 1),
        ("WARN", 5),
    ] {
        assert_eq!(log.lines_with(hint), times, "{hint}:\n{}", log.text());
    }
}

#[test]
fn waits_are_spread_and_never_longer_than_asked() {
    let waits: Vec<_> = (0..200).map(|_| jittered(Duration::from_secs(100))).collect();
    assert!(waits.iter().all(|wait| (50..100).contains(&wait.as_secs())));
    assert!(waits.iter().collect::<HashSet<_>>().len() > 20);
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn install(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines_with(&self, words: &str) -> usize {
        self.text().lines().filter(|line| line.contains(words)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
