//! Brings up what a plugin shows to others, each when it can be used, and takes it down in reverse.
//!
//! ```text
//! ports --> directory of the socket --> socket --> registration with kubelet
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::server::Router;

use crate::endpoint::{EndpointError, socket_path};
use crate::http_server::{HttpServer, ListenAddress, ListenError, Pages};
use crate::identity::Health;
use crate::metrics::Metrics;
use crate::probes::Probes;
use crate::registration::{Registrar, State};
use crate::server::{Server, ServerError, termination};
use crate::socket_directory::{SocketDirectory, SocketDirectoryError};

/// What calls in flight get when the plugin is told to stop. Kubernetes kills after 30 s by default.
const GRACE: Duration = Duration::from_secs(5);

/// Why a plugin can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The socket's address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A socket is not to be had.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Nor is its directory.
    #[error(transparent)]
    Directory(#[from] SocketDirectoryError),
    /// Nor is a port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system does not let it wait for signals, or tell its address.
    #[error("can't serve")]
    Io(#[from] io::Error),
}

/// What a plugin is asked to show.
#[derive(Debug)]
pub struct Plugin {
    /// The address of its socket.
    pub endpoint: String,
    /// Its name.
    pub driver_name: String,
    /// Kubelet's directory of registrations, and who wants to hear what kubelet says, if it registers itself.
    pub registration: Option<(PathBuf, watch::Sender<State>)>,
    /// The port of the probes.
    pub health_address: Option<ListenAddress>,
    /// The port of the metrics.
    pub metrics_address: Option<ListenAddress>,
    /// Its health.
    pub health: Arc<Health>,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
}

impl Plugin {
    /// Serves `router` and the pages until the process is told to stop.
    ///
    /// # Errors
    /// When something that is asked for is not to be had; then nothing is served.
    pub async fn serve(self, router: Router) -> Result<(), PluginError> {
        let Self { endpoint, driver_name, registration, health_address, metrics_address, health, metrics } = self;
        let stop = termination()?;
        let socket = socket_path(&endpoint)?;
        let told = registration.as_ref().map(|(_, told)| told.subscribe());
        let probes = Arc::new(Probes::new(endpoint.clone(), health, told));
        let ports: [(_, _, Arc<dyn Pages>); 2] =
            [("health", health_address, probes), ("metrics", metrics_address, metrics)];
        let mut bound = Vec::new();
        for (what, address, pages) in ports {
            if let Some(address) = address {
                bound.push((what, HttpServer::bind(address)?, pages));
            }
        }
        let directory = SocketDirectory::prepare(&socket, &driver_name)?;
        let server = Server::bind(&endpoint).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), endpoint, "serving");
        // From here on clients can connect to the socket, and wait.
        let registrar = match registration {
            Some((directory, told)) => Some(Registrar::start(&directory, &driver_name, &socket, told).await?),
            None => None,
        };
        for (what, port, pages) in bound {
            tracing::info!(what, address = %port.local_address()?, "serving");
            tokio::spawn(port.serve(pages));
        }
        let stop = async {
            stop.await;
            if let Some(registrar) = registrar {
                registrar.stop().await;
            }
        };
        let ended = server.serve(router, stop, GRACE).await?;
        directory.remove();
        tracing::info!(?ended, "stopped");
        Ok(())
    }
}
