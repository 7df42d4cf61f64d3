//! What the plugin's process may do, seen from outside.

use std::fs;

use crate::harness::Plugin;

/// `capabilities(7)`: the bits of CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_ADMIN: u64 = 1 << 21;

/// What any thread of the process has.
fn capabilities(plugin: &Plugin) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", plugin.pid())).unwrap();
    let mut all: Vec<u64> = threads
        .flat_map(|thread| {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default();
            let sets = status.lines().filter_map(|line| {
                let set = ["CapEff:", "CapPrm:"].iter().find_map(|name| line.strip_prefix(name))?;
                Some(u64::from_str_radix(set.trim(), 16).unwrap())
            });
            sets.collect::<Vec<_>>()
        })
        .collect();
    assert!(all.len() > 4, "the plugin has threads");
    all.sort_unstable();
    all.dedup();
    all
}

#[tokio::test]
async fn privileged_the_plugin_keeps_the_right_to_mount_and_no_other() {
    assert_eq!(capabilities(&Plugin::start(&[]).await), [SYS_ADMIN]);
    let reading = Plugin::start(&["--allow-file-root", "/usr"]).await;
    assert_eq!(capabilities(&reading), [DAC_READ_SEARCH | SYS_ADMIN]);
}
