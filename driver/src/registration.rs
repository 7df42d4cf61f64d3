//! Registers the plugin with kubelet, as the node-driver-registrar would.
//!
//! ```text
//! kubelet watches <registration-dir>   -- a socket appears -->  GetInfo            who, and on which socket?
//!                                                               (asks that socket: NodeGetInfo, writes CSINode)
//!                                      -- the outcome    -->    NotifyRegistrationStatus
//!                                      -- it is gone     -->    forgets the plugin, clears CSINode
//! ```
//!
//! - The socket appears after the plugin serves and vanishes before it ceases to, so kubelet never knows a plugin that
//!   does not answer.
//! - A kubelet that restarts looks through its directory and asks again. A directory that was emptied meanwhile
//!   (`kubeadm reset`, a clean-up) tells nobody: so the socket is looked for, and made again.
//! - A refused registration is kubelet's to repeat: it asks again, with growing pauses of up to two minutes, for as long
//!   as the socket is there. The node-driver-registrar ends in order to be restarted; this process has volumes to
//!   publish and downloads under way, and a restart would change nothing. It logs why, and is not ready.
//!
//! Source: `pkg/kubelet/pluginmanager` of Kubernetes 1.37.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server as Transport;
use tonic::{Request, Response, Status};

use crate::server::{Server, ServerError};
use crate::status::message;

pub mod api;

use api::registration_server::{Registration, RegistrationServer};
use api::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// What kubelet calls CSI plugins (`CSIPlugin` in `k8s.io/kubelet/pkg/apis/pluginregistration/v1`).
const PLUGIN_TYPE: &str = "CSIPlugin";
/// The CSI versions that kubelet chooses from. It knows 0.x and 1.x only, and no minor ones.
const SUPPORTED_VERSIONS: [&str; 1] = ["1.0.0"];
/// What a call in flight gets when the socket goes: kubelet's are answered from memory.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait before the socket is made again after that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Whether kubelet knows the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not said anything yet.
    #[default]
    Waiting,
    /// It does.
    Registered,
    /// It does not want to, and why.
    Refused(String),
}

impl State {
    /// Why the plugin can't be used by kubelet, if so.
    pub fn obstacle(&self) -> Option<String> {
        match self {
            Self::Registered => None,
            Self::Waiting => Some("kubelet has not registered the plugin yet".to_owned()),
            Self::Refused(reason) => Some(format!("kubelet refuses to register the plugin: {reason}")),
        }
    }
}

/// A plugin that kubelet can find. Ends with [`Registrar::stop`].
#[derive(Debug)]
pub struct Registrar {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Registrar {
    /// Puts the socket into `directory`, which is kubelet's, and serves on it. `socket` is where the plugin itself
    /// already serves; `state` hears what kubelet says.
    ///
    /// # Errors
    /// [`Server::bind`]'s.
    pub async fn start(
        directory: &Path,
        driver_name: &str,
        socket: &Path,
        state: watch::Sender<State>,
    ) -> Result<Self, ServerError> {
        let service = Service { name: driver_name.to_owned(), socket: socket.to_owned(), state: Arc::new(state) };
        let path = directory.join(format!("{driver_name}-reg.sock"));
        let server = Server::bind(&path.to_string_lossy()).await?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self { stop, serving: tokio::spawn(serve(service, server, path, stopped)) })
    }

    /// Removes the socket, upon which kubelet forgets the plugin. Returns when the socket is gone.
    pub async fn stop(self) {
        let Self { stop, serving } = self;
        let _ = stop.send(());
        if let Err(error) = serving.await {
            tracing::error!(%error, "a task broke");
        }
    }
}

async fn serve(service: Service, mut server: Server, path: PathBuf, mut stopped: oneshot::Receiver<()>) {
    loop {
        let displaced = server.displaced();
        let router = Transport::builder().add_service(RegistrationServer::new(service.clone()));
        let mut stop = false;
        let over = async {
            tokio::select! {
                _ = &mut stopped => stop = true,
                () = displaced => {}
            }
        };
        if let Err(error) = server.serve(router, over, GRACE).await {
            tracing::error!(%error, "registration with kubelet was interrupted");
        }
        if stop {
            return;
        }
        tracing::warn!(path = %path.display(), "the registration socket is gone and is made again");
        service.state.send_replace(State::Waiting);
        let again = tokio::select! {
            _ = &mut stopped => return,
            server = bind_again(&path) => server,
        };
        server = again;
    }
}

/// Tries until it succeeds; says once why it does not.
async fn bind_again(path: &Path) -> Server {
    let mut told = String::new();
    loop {
        match Server::bind(&path.to_string_lossy()).await {
            Ok(server) => return server,
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!(error = %text, "the registration socket can't be made; trying on");
                    told = text;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What kubelet calls.
#[derive(Clone, Debug)]
struct Service {
    name: String,
    socket: PathBuf,
    state: Arc<watch::Sender<State>>,
}

#[tonic::async_trait]
impl Registration for Service {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.name.clone(),
            endpoint: self.socket.to_string_lossy().into_owned(),
            supported_versions: SUPPORTED_VERSIONS.map(str::to_owned).into(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        let state = if plugin_registered { State::Registered } else { State::Refused(message(&error)) };
        // Kubelet repeats itself, the log need not.
        if self.state.send_replace(state.clone()) != state {
            match &state {
                State::Refused(reason) => {
                    tracing::error!(reason, "kubelet refuses to register the plugin; it will retry")
                }
                _ => tracing::info!(driver = self.name, "registered with kubelet"),
            }
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
