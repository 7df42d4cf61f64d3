//! What Prometheus can read of a plugin: every metric, its unit, its labels and how stable it is ([`ALL`]).
//!
//! No label holds anything that a user or a source chose (URIs, namespaces, volume ids): there is no end to them, and
//! some are nobody else's business. Values come from memory or, when the disk has to be asked, are those that it last
//! gave: a scrape takes the same time whatever the cache holds, and never hangs with a disk.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;
use modelmount::fetch::Tally;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use tokio::sync::Mutex;
use tonic::Code;

use crate::http_server::{Page, Pages};

/// Begins every name.
const PREFIX: &str = "modelmount";
/// What the text is, as OpenMetrics 1.0 says it.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a scrape waits for the disk's figures before it gives the last ones.
const PATIENCE: Duration = Duration::from_secs(1);
/// From an answer out of memory to a publish that is held until kubelet's deadline, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0];

/// How much a name, its labels and its meaning may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Only with a major version.
    Stable,
    /// At any time.
    Experimental,
}

/// Who has a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Node plugin and controller.
    Both,
    /// The node plugin.
    Node,
    /// The node plugin that registers itself.
    Registrant,
}

/// A metric as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Name without the prefix, the unit at its end.
    pub name: &'static str,
    /// Kind in Prometheus' words.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Who has it.
    pub owner: Owner,
    /// How stable it is.
    pub stability: Stability,
    /// What it tells, without a full stop.
    pub help: &'static str,
}

macro_rules! describe {
    ($($id:ident: $kind:literal $name:literal [$($label:literal),*] $owner:ident $stability:ident $help:literal;)*) => {
        $(const $id: Description = Description {
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            owner: Owner::$owner,
            stability: Stability::$stability,
            help: $help,
        };)*
        /// All metrics. `docs/metrics.md` has the same list.
        pub const ALL: &[Description] = &[$($id),*];
    };
}

describe! {
    BUILD: "info" "build_info" ["version"] Both Stable "The version that is running";
    RPC_DURATION: "histogram" "rpc_duration_seconds" ["method", "code"] Both Stable
        "Time that gRPC calls took, by method and status code; ABORTED is a publish whose download goes on";
    RPCS_IN_FLIGHT: "gauge" "rpcs_in_flight" ["method"] Both Stable "gRPC calls that are not answered yet";
    DOWNLOADS_STARTED: "counter" "downloads_started_total" [] Node Stable "Models whose download was begun";
    DOWNLOADS_ENDED: "counter" "downloads_ended_total" ["result"] Node Stable
        "Downloads that ended: completed, failed, or given_up because every volume was unpublished";
    DOWNLOADS_IN_FLIGHT: "gauge" "downloads_in_flight" [] Node Stable "Downloads under way";
    DOWNLOADED_BYTES: "counter" "downloaded_bytes_total" [] Node Stable
        "Bytes that came from sources, repeated ones included";
    PUBLISHED_VOLUMES: "gauge" "published_volumes" [] Node Stable "Volumes that are published on this node";
    CACHE_SIZE: "gauge" "cache_filesystem_size_bytes" [] Node Stable "Size of the cache's file system";
    CACHE_FREE: "gauge" "cache_filesystem_free_bytes" [] Node Stable
        "What is free on the cache's file system, including what downloads have to leave free";
    CACHE_WRITABLE: "gauge" "cache_writable" [] Node Stable "1 if the cache could be written when it was last tried";
    REGISTERED: "gauge" "kubelet_registered" [] Registrant Stable "1 if kubelet has registered the plugin";
}

/// Labels whose names and values are fixed in this file.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Methods that are told apart. A client may call others, but not make series of them.
const METHODS: [&str; 12] = [
    "GetPluginInfo",
    "GetPluginCapabilities",
    "Probe",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeGetVolumeStats",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "CreateVolume",
    "DeleteVolume",
    "ValidateVolumeCapabilities",
    "ControllerGetCapabilities",
];

/// What is looked up on a node when its metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Of downloads.
    pub downloads: Tally,
    /// Published volumes.
    pub volumes: u64,
    /// Size of the cache's file system and what is free on it, in bytes, if it can be told.
    pub disk: Option<(u64, u64)>,
    /// Whether the cache can be written.
    pub cache_writable: bool,
    /// Whether kubelet knows the plugin.
    pub registered: bool,
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    durations: Family<Labels<2>, Histogram, fn() -> Histogram>,
    in_flight: Family<Labels<1>, Gauge>,
    node: Option<NodeMetrics>,
}

impl Metrics {
    /// Those of a controller.
    pub fn controller() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let in_flight = Family::default();
        register(&mut registry, BUILD, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        register(&mut registry, RPC_DURATION, durations.clone());
        register(&mut registry, RPCS_IN_FLIGHT, in_flight.clone());
        Self { registry, durations, in_flight, node: None }
    }

    /// Those of a node plugin. `look` may block; only one look is taken at a time. `registers` is whether the plugin
    /// registers itself.
    pub fn node(registers: bool, look: impl Fn() -> Figures + Send + Sync + 'static) -> Self {
        let mut metrics = Self::controller();
        let gauges = NodeGauges::new(&mut metrics.registry, registers);
        metrics.node = Some(NodeMetrics { gauges, look: Arc::new(look), looking: Arc::default() });
        metrics
    }

    /// Counts a call to the gRPC method at `path` (`/csi.v1.Node/NodePublishVolume`) until it ends.
    pub fn begin(self: &Arc<Self>, path: &str) -> Call {
        let called = path.rsplit('/').next().unwrap_or_default();
        let method = METHODS.into_iter().find(|method| *method == called).unwrap_or("other");
        self.in_flight.get_or_create(&[("method", method)]).inc();
        Call { metrics: Arc::clone(self), method, begun: Instant::now(), code: Code::Cancelled }
    }

    /// The text that Prometheus reads.
    pub async fn text(&self) -> String {
        if let Some(node) = &self.node {
            node.refresh().await;
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[tonic::async_trait]
impl Pages for Metrics {
    async fn page(&self, path: &str) -> Option<Page> {
        if path != "/metrics" {
            return None;
        }
        Some(Page { status: StatusCode::OK, content_type: CONTENT_TYPE, text: self.text().await })
    }
}

/// A call that is being answered. Dropped without an answer, it counts as cancelled: the caller has gone, or its
/// deadline has passed.
#[derive(Debug)]
pub struct Call {
    metrics: Arc<Metrics>,
    method: &'static str,
    begun: Instant,
    code: Code,
}

impl Call {
    /// It was answered.
    pub fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Self { metrics, method, begun, code } = self;
        metrics.in_flight.get_or_create(&[("method", *method)]).dec();
        let labels = [("method", *method), ("code", code_name(*code))];
        metrics.durations.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    }
}

struct NodeMetrics {
    gauges: NodeGauges,
    look: Arc<dyn Fn() -> Figures + Send + Sync>,
    looking: Arc<Mutex<()>>,
}

impl fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeMetrics").field("gauges", &self.gauges).finish_non_exhaustive()
    }
}

impl NodeMetrics {
    /// Takes a look, unless one is being taken; waits for it, but not for long.
    async fn refresh(&self) {
        let Ok(turn) = Arc::clone(&self.looking).try_lock_owned() else { return };
        let (gauges, look) = (self.gauges.clone(), Arc::clone(&self.look));
        let looked = tokio::task::spawn_blocking(move || {
            gauges.set(&look());
            drop(turn);
        });
        // Late or broken: what is shown is what was known.
        let _ = tokio::time::timeout(PATIENCE, looked).await;
    }
}

#[derive(Clone, Debug, Default)]
struct NodeGauges {
    started: Counter,
    ended: Family<Labels<1>, Counter>,
    running: Gauge,
    bytes: Counter,
    volumes: Gauge,
    size: Gauge,
    free: Gauge,
    writable: Gauge,
    registered: Gauge,
}

impl NodeGauges {
    fn new(registry: &mut Registry, registers: bool) -> Self {
        let gauges = Self::default();
        register(registry, DOWNLOADS_STARTED, gauges.started.clone());
        register(registry, DOWNLOADS_ENDED, gauges.ended.clone());
        register(registry, DOWNLOADS_IN_FLIGHT, gauges.running.clone());
        register(registry, DOWNLOADED_BYTES, gauges.bytes.clone());
        register(registry, PUBLISHED_VOLUMES, gauges.volumes.clone());
        register(registry, CACHE_SIZE, gauges.size.clone());
        register(registry, CACHE_FREE, gauges.free.clone());
        register(registry, CACHE_WRITABLE, gauges.writable.clone());
        if registers {
            register(registry, REGISTERED, gauges.registered.clone());
        }
        gauges
    }

    fn set(&self, figures: &Figures) {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        // The library counts already, and never backwards.
        let count = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        let Figures { downloads, volumes, disk, cache_writable, registered } = figures;
        count(&self.started, downloads.started);
        let ended =
            [("completed", downloads.completed), ("failed", downloads.failed), ("given_up", downloads.given_up)];
        for (result, value) in ended {
            count(&self.ended.get_or_create(&[("result", result)]), value);
        }
        set(&self.running, downloads.running());
        count(&self.bytes, downloads.bytes_fetched);
        set(&self.volumes, *volumes);
        if let Some((size, free)) = disk {
            set(&self.size, *size);
            set(&self.free, *free);
        }
        set(&self.writable, (*cache_writable).into());
        set(&self.registered, (*registered).into());
    }
}

/// The registry adds what the kind demands at the end of a name, and the full stop of the help.
fn register(registry: &mut Registry, description: Description, metric: impl Metric) {
    let Description { name, help, .. } = description;
    let family = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name);
    registry.register(family, help, metric);
}

/// As the gRPC specification writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests;
