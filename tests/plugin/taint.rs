//! The startup taint, as far as a plugin outside of a cluster can look after it.

use modelmount_test_support::eventually;

use crate::harness::{Plugin, SOON};

#[tokio::test]
async fn a_plugin_that_can_not_reach_the_cluster_serves_all_the_same() {
    let plugin = Plugin::start(&["--remove-startup-taint"]).await;
    eventually("the complaint", SOON, || plugin.log().contains("can't look after the startup taint")).await;
}
