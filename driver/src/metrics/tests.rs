use std::sync::atomic::AtomicBool;

use super::*;

/// `name kind` of every family in a text.
fn families(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
}

fn described(owners: &[Owner]) -> Vec<String> {
    let family = |name: &str| name.trim_end_matches("_total").trim_end_matches("_info").to_owned();
    let of = ALL.iter().filter(|metric| owners.contains(&metric.owner));
    of.map(|metric| format!("{PREFIX}_{} {}", family(metric.name), metric.kind)).collect()
}

#[tokio::test]
async fn what_is_served_is_what_is_described() {
    for (metrics, owners) in [
        (Metrics::controller(), &[Owner::Both][..]),
        (Metrics::node(false, Figures::default), &[Owner::Both, Owner::Node]),
        (Metrics::node(true, Figures::default), &[Owner::Both, Owner::Node, Owner::Registrant]),
    ] {
        let metrics = Arc::new(metrics);
        metrics.begin("/csi.v1.Identity/Probe").end(Code::Ok);
        let text = metrics.text().await;
        assert_eq!(families(&text), described(owners), "{text}");
        assert!(text.ends_with("# EOF\n"));
        for metric in ALL.iter().filter(|metric| owners.contains(&metric.owner)) {
            let help =
                format!("{} {}.\n", metric.name.trim_end_matches("_total").trim_end_matches("_info"), metric.help);
            assert!(text.contains(&help), "{help} {text}");
            for label in metric.labels {
                let sample = text.lines().find(|line| line.starts_with(&format!("{PREFIX}_{}", metric.name)));
                assert!(sample.is_some_and(|line| line.contains(&format!("{label}=\""))), "{label}: {sample:?}");
            }
        }
    }
}

#[test]
fn the_documentation_lists_the_same_metrics() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `modelmount_")).collect();
    let owner = |owner| match owner {
        Owner::Both => "node, controller",
        Owner::Node => "node",
        Owner::Registrant => "node, if it registers itself",
    };
    let row = |metric: &Description| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let stability = format!("{:?}", metric.stability).to_lowercase();
        let Description { name, kind, help, .. } = metric;
        format!(
            "| `{PREFIX}_{name}` | {kind} | {} | {} | {stability} | {help} |",
            labels.join(", "),
            owner(metric.owner)
        )
    };
    assert_eq!(listed, ALL.iter().map(row).collect::<Vec<_>>());
}

#[tokio::test]
async fn calls_are_counted_by_their_end() {
    let metrics = Arc::new(Metrics::controller());
    let running = metrics.begin("/csi.v1.Node/NodePublishVolume");
    metrics.begin("/csi.v1.Node/NodePublishVolume").end(Code::Aborted);
    drop(metrics.begin("/csi.v1.Node/NodePublishVolume"));
    for path in ["/csi.v1.Node/Invented", "/", "", "/x/y\"} 1"] {
        metrics.begin(path).end(Code::Unimplemented);
    }
    let text = metrics.text().await;
    for line in [
        "modelmount_rpcs_in_flight{method=\"NodePublishVolume\"} 1",
        "modelmount_rpc_duration_seconds_count{method=\"NodePublishVolume\",code=\"ABORTED\"} 1",
        "modelmount_rpc_duration_seconds_count{method=\"NodePublishVolume\",code=\"CANCELLED\"} 1",
        "modelmount_rpc_duration_seconds_count{method=\"other\",code=\"UNIMPLEMENTED\"} 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    drop(running);
    assert!(metrics.text().await.contains("modelmount_rpcs_in_flight{method=\"NodePublishVolume\"} 0\n"));
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_scrape() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (held, hang) = (std::sync::Mutex::new(held), Arc::new(AtomicBool::new(false)));
    let hangs = Arc::clone(&hang);
    let metrics = Metrics::node(false, move || {
        if hangs.load(Ordering::SeqCst) {
            held.lock().unwrap().recv().ok();
        }
        Figures { volumes: 3, ..Figures::default() }
    });
    let shown = "modelmount_published_volumes 3\n";
    assert!(metrics.text().await.contains(shown));
    hang.store(true, Ordering::SeqCst);
    // The first waits for its patience to end, the others not even that long.
    for _ in 0..100 {
        assert!(metrics.text().await.contains(shown));
    }
    drop(release);
}
