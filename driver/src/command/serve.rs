//! `modelmount node` and `modelmount controller`: the plugin.
//!
//! Two runtimes: one answers calls, the other fetches. Fetching hashes and writes inside its tasks, and must not keep a
//! Probe waiting.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use modelmount::net::CaCertificates;
use modelmount::source::RegistryMirror;
use modelmount::{Cache, Context, Policy, Transfers};
use rustix::fs::statvfs;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tonic::transport::Server as Transport;

use super::Failure;
use crate::args::{Controller, Node, Ports, Reach, Trust};
use crate::controller::ControllerService;
use crate::csi::controller_server::ControllerServer;
use crate::csi::identity_server::IdentityServer;
use crate::csi::node_server::NodeServer;
use crate::identity::{Health, IdentityService, State};
use crate::kubernetes::{Client, Config};
use crate::measured::Measured;
use crate::metrics::{Figures, Metrics};
use crate::mount::Mounter;
use crate::node::NodeService;
use crate::plugin::Plugin;
use crate::preparation::Workshop;
use crate::privileges;
use crate::publisher::Publisher;
use crate::registration;
use crate::selinux;
use crate::status::with_cause;
use crate::taint::{Schedule, StartupTaint};

/// How often the cache's disk is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(15);
/// How long a look may take. A busy disk may need seconds; one that hangs never answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a mount that is being made gets to be finished at the end. A disk that hangs is not waited for.
const FINISHING: Duration = Duration::from_secs(5);
/// Threads that answer calls: none of them does much.
const ANSWERING: usize = 2;

/// Serves the node plugin until it is told to stop.
pub(super) fn node(args: Node) -> Result<(), Failure> {
    let Node { endpoint, node_id, cache_dir, kubelet_dir, driver_name, with_controller, registration_dir, .. } = args;
    privileges::drop_unneeded(!args.allow_file_root.is_empty())
        .map_err(|error| Failure::Configuration(format!("can't drop privileges: {error}")))?;
    let (answering, fetching) = (runtime("answer", ANSWERING)?, runtime("fetch", fetching_threads())?);
    if let Some(label) = &args.selinux_label {
        selinux::label(&cache_dir, label).map_err(configuration_text)?;
    }
    let cache = Arc::new(Cache::open(&cache_dir, args.keep_free).map_err(configuration)?);
    let mounter = Mounter::new(&kubelet_dir).map_err(configuration_text)?.with_staging(&cache.staging_dir());
    let limits = args.fetch.into();
    let transfers = Arc::new(Transfers::new(Arc::clone(&cache), limits, fetching.handle().clone()));
    let context = reaching(args.reach, args.allow_file_root, &args.trust)?;
    let workshop = Workshop {
        cache: Arc::clone(&cache),
        transfers: Arc::clone(&transfers),
        context: context.clone(),
        runtime: fetching.handle().clone(),
    };
    let publisher = Publisher::new(workshop, mounter)?;

    let health = Arc::new(Health::default());
    answering.spawn(watch_cache(Arc::clone(&health), Arc::clone(&cache)));
    if args.remove_startup_taint {
        remove_startup_taint(&answering, &node_id, &driver_name);
    }
    let (told, registered) = watch::channel(registration::State::default());
    let registration = registration_dir.map(|directory| (directory, told));
    let look = look(Arc::clone(&cache), transfers, Arc::clone(&health), registered);
    let metrics = Arc::new(Metrics::node(registration.is_some(), look));

    let identity = IdentityServer::new(IdentityService::new(driver_name.clone(), Arc::clone(&health)));
    let node = NodeServer::new(NodeService::new(node_id, publisher));
    let mut router = Transport::builder()
        .add_service(Measured::new(identity, Arc::clone(&metrics)))
        .add_service(Measured::new(node, Arc::clone(&metrics)));
    if with_controller {
        router = router.add_service(Measured::new(controller_server(context), Arc::clone(&metrics)));
    }
    let Ports { health_address, metrics_address } = args.ports;
    let plugin = Plugin { endpoint, driver_name, registration, health_address, metrics_address, health, metrics };
    let served = answering.block_on(plugin.serve(router)).map_err(configuration_text);
    // Downloads under way are cut: the next start resumes them. Nor does anybody wait for the disk: the end of the
    // process closes the cache.
    std::mem::forget(cache);
    fetching.shutdown_background();
    answering.shutdown_timeout(FINISHING);
    served
}

/// Serves the controller until it is told to stop.
pub(super) fn controller(args: Controller) -> Result<(), Failure> {
    let Controller { endpoint, driver_name, reach, trust, ports: Ports { health_address, metrics_address } } = args;
    let runtime = runtime("answer", ANSWERING)?;
    let context = reaching(reach, Vec::new(), &trust)?;
    let health = Arc::new(Health::default());
    health.ready();
    let metrics = Arc::new(Metrics::controller());
    let identity = IdentityServer::new(IdentityService::new(driver_name.clone(), Arc::clone(&health)));
    let router = Transport::builder()
        .add_service(Measured::new(identity, Arc::clone(&metrics)))
        .add_service(Measured::new(controller_server(context), Arc::clone(&metrics)));
    let registration = None;
    let plugin = Plugin { endpoint, driver_name, registration, health_address, metrics_address, health, metrics };
    runtime.block_on(plugin.serve(router)).map_err(configuration_text)
}

/// What the sources of a plugin share.
fn reaching(reach: Reach, file_roots: Vec<PathBuf>, trust: &Trust) -> Result<Context, Failure> {
    let Reach { allow_address, allow_plain_http, registry_mirror, resolving_registry_mirror } = reach;
    let authorities = CaCertificates::read(&trust.ca_file).map_err(configuration)?;
    let policy = Policy::new(allow_address, file_roots).with_plain_http(allow_plain_http);
    let context = Context::trusting(policy, &authorities).map_err(configuration)?;
    let resolving = resolving_registry_mirror.into_iter().map(RegistryMirror::resolving);
    let mirrors: Vec<_> = resolving.chain(registry_mirror).collect();
    if mirrors.is_empty() {
        return Ok(context);
    }
    context.with_registry_mirrors(mirrors, &authorities).map_err(configuration)
}

/// Outside of a cluster there are no claims to ask about.
fn controller_server(context: Context) -> ControllerServer<ControllerService> {
    let api = Config::in_cluster().ok().map(Client::new);
    ControllerServer::new(ControllerService::new(context, api))
}

/// Goes on beside the plugin, which serves whatever comes of it.
fn remove_startup_taint(runtime: &Runtime, node: &str, driver: &str) {
    match Config::in_cluster() {
        Ok(config) => {
            let taint = StartupTaint::new(Client::new(config), node, driver, Schedule::default());
            runtime.spawn(taint.keep_off());
        }
        Err(error) => tracing::error!(error = %error.report(), "can't look after the startup taint"),
    }
}

/// What the metrics show of the node.
fn look(
    cache: Arc<Cache>,
    transfers: Arc<Transfers>,
    health: Arc<Health>,
    registered: watch::Receiver<registration::State>,
) -> impl Fn() -> Figures {
    move || Figures {
        downloads: transfers.tally(),
        volumes: cache.leases().published() as u64,
        disk: statvfs(cache.root()).ok().map(|disk| (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)),
        cache_writable: health.state() == State::Ready,
        registered: *registered.borrow() == registration::State::Registered,
    }
}

async fn watch_cache(health: Arc<Health>, cache: Arc<Cache>) {
    let hanging = format!("the cache at {} can't be written: its disk has stopped answering", cache.root().display());
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    // After a probe that hung for hours, one is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let cache = Arc::clone(&cache);
        let probe = tokio::task::spawn_blocking(move || cache.probe());
        let probe = async { probe.await.map_err(|error| error.to_string())?.map_err(|error| error.report()) };
        tell(&health, probe, PROBE_TIMEOUT, &hanging).await;
    }
}

/// Tells `health` what `probe` finds, and `hanging` when that takes longer than `patience`. It waits for the probe all
/// the same: another one beside it would hang as well, and keep a thread more.
async fn tell(health: &Health, probe: impl Future<Output = Result<(), String>>, patience: Duration, hanging: &str) {
    let mut probe = pin!(probe);
    let found = match timeout(patience, probe.as_mut()).await {
        Ok(found) => found,
        Err(_) => {
            health.unhealthy(hanging);
            probe.await
        }
    };
    match found {
        Ok(()) => health.ready(),
        Err(reason) => health.unhealthy(reason),
    }
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
    runtime.map_err(|error| Failure::Configuration(format!("can't start threads: {error}")))
}

/// One core hashes 1.2 GB/s or more; beyond eight the network is the limit, and the node's cores are the models'.
fn fetching_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

fn configuration(error: modelmount::Error) -> Failure {
    Failure::Configuration(error.report())
}

fn configuration_text(error: impl std::error::Error + 'static) -> Failure {
    Failure::Configuration(with_cause(&error))
}

#[cfg(test)]
mod tests {
    use modelmount_test_support::wait::eventually;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_is_unhealthy_until_it_answers() {
        let health = Arc::new(Health::default());
        let unhealthy = |reason: &str| State::Unhealthy(reason.to_owned());
        for (found, state) in [(Ok(()), State::Ready), (Err("it is full".to_owned()), unhealthy("it is full"))] {
            health.ready();
            let (finding, probe) = oneshot::channel();
            let told = Arc::clone(&health);
            let telling =
                tokio::spawn(
                    async move { tell(&told, async { probe.await.unwrap() }, Duration::ZERO, "it hangs").await },
                );
            eventually("the end of patience", Duration::from_secs(60), || health.state() == unhealthy("it hangs"))
                .await;
            assert!(!telling.is_finished(), "another probe would be begun beside the one that hangs");
            finding.send(found).unwrap();
            telling.await.unwrap();
            assert_eq!(health.state(), state);
        }
    }
}
