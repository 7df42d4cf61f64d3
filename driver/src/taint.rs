//! The startup taint: keeps pods away from a node until this plugin can mount their models.
//!
//! A node that joins with the taint [`STARTUP_TAINT`] gets no pods. As soon as kubelet knows the plugin, which it shows
//! by naming the driver in the node's CSINode object, the taint is taken away, by a patch that can't undo what others
//! do to the node's taints at the same time. Cloud agents may put it on late, so the node is looked at for ten minutes.
//!
//! One look is one or two GETs of single objects, answered from the API server's cache. Looks get rarer, and no two
//! nodes look at the same moments: a node that joins costs about twenty GETs in ten minutes, 150 nodes at once about
//! five a second.
//!
//! Nothing of the plugin waits for this, and no failure stops it.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::kubernetes::{ApiError, ApiErrorKind, Client, Step};

/// Key of the taint. Its value and effect are the operator's choice.
pub const STARTUP_TAINT: &str = "modelmount.io/agent-not-ready";

/// When to look.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// How long to wait after the first look. Doubles from look to look.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// For how long to look, at least.
    pub watch: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60), watch: Duration::from_secs(600) }
    }
}

/// Takes the startup taint off one node.
#[derive(Debug)]
pub struct StartupTaint {
    client: Client,
    node: String,
    driver: String,
    schedule: Schedule,
    registered: bool,
    reported: HashSet<ApiErrorKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    NotRegistered,
    Removed,
    NoTaint,
}

impl StartupTaint {
    /// For the node `node`, on which the driver `driver` is about to be registered.
    pub fn new(client: Client, node: impl Into<String>, driver: impl Into<String>, schedule: Schedule) -> Self {
        let (node, driver) = (node.into(), driver.into());
        Self { client, node, driver, schedule, registered: false, reported: HashSet::new() }
    }

    /// Looks until the time is over and the node has no such taint: while it can't be asked, or its kubelet does not
    /// know the driver, the looks go on.
    pub async fn keep_off(mut self) {
        let end = Instant::now() + self.schedule.watch;
        let mut wait = self.schedule.first;
        loop {
            match self.look().await {
                Ok(Seen::NoTaint) if Instant::now() >= end => return,
                Ok(Seen::NoTaint | Seen::NotRegistered | Seen::Removed) => {}
                Err(error) => self.report(&error),
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(self.schedule.longest);
        }
    }

    async fn look(&mut self) -> Result<Seen, ApiError> {
        if !self.registered {
            self.registered = self.is_registered().await?;
            if !self.registered {
                return Ok(Seen::NotRegistered);
            }
        }
        let path = ["api", "v1", "nodes", &self.node];
        let node: Node = self.client.get_cached(&path).await?;
        let steps = steps(&node);
        if steps.is_empty() {
            return Ok(Seen::NoTaint);
        }
        let _: Node = self.client.patch(&path, &steps).await?;
        tracing::info!(node = %self.node, taint = STARTUP_TAINT, "the startup taint was removed");
        Ok(Seen::Removed)
    }

    async fn is_registered(&self) -> Result<bool, ApiError> {
        let path = ["apis", "storage.k8s.io", "v1", "csinodes", &self.node];
        match self.client.get_cached::<CsiNode>(&path).await {
            Ok(csi_node) => Ok(csi_node.spec.drivers.unwrap_or_default().iter().any(|own| own.name == self.driver)),
            // Kubelet makes the object a moment after it has started.
            Err(error) if error.kind() == ApiErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Logs the first failure of each kind: what it takes to end it does not change from look to look.
    fn report(&mut self, error: &ApiError) {
        let advice = match error.kind() {
            // Somebody else changed the taints between reading and patching, or this read was a moment old.
            ApiErrorKind::Conflict => return,
            ApiErrorKind::Forbidden => {
                "the node plugin's service account needs the verbs get and patch on nodes, and get on \
                 csinodes.storage.k8s.io"
            }
            ApiErrorKind::NotFound => "--node-id must be the node's name in Kubernetes",
            ApiErrorKind::NotConfigured | ApiErrorKind::Unauthorized => {
                "the node plugin's pod needs a service account whose token is mounted"
            }
            ApiErrorKind::Unavailable | ApiErrorKind::Unexpected => "it is tried again",
        };
        if self.reported.insert(error.kind()) {
            tracing::warn!(
                node = %self.node,
                taint = STARTUP_TAINT,
                error = %error.report(),
                advice,
                "can't look after the startup taint"
            );
        }
    }
}

/// The patch that removes the taint, whatever its effects: from the end, so that no step moves what a later one names.
/// Each removal is guarded: by now another taint may have that index.
fn steps(node: &Node) -> Vec<Step> {
    let taints = node.spec.taints.as_deref().unwrap_or_default().iter().enumerate().rev();
    let own = taints.filter(|(_, taint)| taint.key == STARTUP_TAINT);
    own.flat_map(|(i, _)| {
        let path = format!("/spec/taints/{i}");
        let value = Value::from(STARTUP_TAINT);
        [Step::Test { path: format!("{path}/key"), value }, Step::Remove { path }]
    })
    .collect()
}

/// Between half of it and all of it, so that nodes that were started together do not stay together.
fn jittered(wait: Duration) -> Duration {
    let spread = RandomState::new().build_hasher().finish() % 50;
    wait * (50 + spread as u32) / 100
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Deserialize)]
struct CsiNode {
    spec: CsiNodeSpec,
}

#[derive(Deserialize)]
struct CsiNodeSpec {
    drivers: Option<Vec<CsiNodeDriver>>,
}

#[derive(Deserialize)]
struct CsiNodeDriver {
    name: String,
}

#[cfg(test)]
mod tests;
