//! Whose credentials a download reads with that several volumes share.

use std::sync::Arc;

use modelmount::ErrorKind;
use modelmount::fetch::Transfer;
use modelmount_test_support::eventually;
use modelmount_test_support::model::Files;

use super::sized;
use crate::memory::{Account, Memory, source_for};
use crate::node::{Node, PART, SOON, assert_snapshot, limits};

/// A download in the middle, and two volumes that share it.
struct Shared {
    files: Files,
    memory: Arc<Memory>,
    accounts: [Account; 2],
    transfers: [Arc<Transfer>; 2],
    _node: Node,
}

impl Shared {
    async fn new() -> Self {
        let files = sized(&[("a", 6 * PART), ("b", 100), ("c", 3 * PART)]);
        let memory = Memory::gated(&files);
        let manifest = memory.manifest().await;
        let node = Node::new(limits(2));
        let accounts: [Account; 2] = Default::default();
        let transfers = [0, 1].map(|i| node.transfers().join(manifest.clone(), source_for(&memory, &accounts[i])));
        assert!(Arc::ptr_eq(&transfers[0], &transfers[1]));
        memory.let_through(5);
        eventually("the download's begin", SOON, || memory.is_waiting()).await;
        Self { files, memory, accounts, transfers, _node: node }
    }
}

/// The rights of one volume's credentials end: that is no reason to fail the other one.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_refused() {
    for kind in [ErrorKind::Unauthenticated, ErrorKind::PermissionDenied] {
        for refused in [0, 1] {
            let Shared { files, memory, accounts, transfers, _node } = Shared::new().await;
            accounts[refused].refuse(kind);
            memory.let_through(1_000);
            for transfer in transfers {
                assert_snapshot(&transfer.wait().await.unwrap(), &files);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_refused() {
    let Shared { memory, accounts, transfers, _node, .. } = Shared::new().await;
    for account in &accounts {
        account.refuse(ErrorKind::PermissionDenied);
    }
    memory.let_through(1_000);
    for transfer in transfers {
        assert_eq!(transfer.wait().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
