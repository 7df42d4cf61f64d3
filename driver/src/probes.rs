//! `/healthz` and `/readyz`: what kubelet's probes of the container read.
//!
//! | page | 200 when | what kubelet does otherwise |
//! | --- | --- | --- |
//! | `/healthz` | the plugin answers on its own CSI socket | restarts the container |
//! | `/readyz` | the cache can be written, and kubelet knows the plugin (if it registers itself) | tells that it is not ready |
//!
//! Liveness is for what a restart cures, and only for that: a runtime that hangs, a socket that somebody removed, a
//! process that has run out of file descriptors. All that shows on the way that kubelet's own calls take, so that way is
//! taken. A disk that is full or read-only is as full after a restart, which would cut downloads and calls for nothing:
//! it shows in readiness, in Probe, and in the log.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

use crate::client::connect;
use crate::csi::GetPluginInfoRequest;
use crate::csi::identity_client::IdentityClient;
use crate::http_server::{Page, Pages};
use crate::identity::{self, Health};
use crate::registration;
use crate::status::message;

/// How long the plugin may take to answer itself. It takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two pages.
#[derive(Debug)]
pub struct Probes {
    endpoint: String,
    health: Arc<Health>,
    registration: Option<watch::Receiver<registration::State>>,
}

impl Probes {
    /// Pages about the plugin that serves on `endpoint`, and about its registration if it registers itself.
    pub fn new(
        endpoint: impl Into<String>,
        health: Arc<Health>,
        registration: Option<watch::Receiver<registration::State>>,
    ) -> Self {
        Self { endpoint: endpoint.into(), health, registration }
    }

    async fn alive(&self) -> Result<(), String> {
        let call = async {
            let channel = connect(&self.endpoint).await.map_err(|error| error.to_string())?;
            let answer = IdentityClient::new(channel).get_plugin_info(GetPluginInfoRequest {}).await;
            answer.map(drop).map_err(|status| format!("the plugin answers {:?}: {}", status.code(), status.message()))
        };
        let late = |_| Err(format!("the plugin has not answered on {} for {} s", self.endpoint, PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(late)
    }

    fn ready(&self) -> Result<(), String> {
        match self.health.state() {
            identity::State::Starting => return Err("the plugin is starting".to_owned()),
            identity::State::Unhealthy(reason) => return Err(reason),
            identity::State::Ready => {}
        }
        match &self.registration {
            Some(state) => state.borrow().obstacle().map_or(Ok(()), Err),
            None => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Pages for Probes {
    async fn page(&self, path: &str) -> Option<Page> {
        let outcome = match path {
            "/healthz" => self.alive().await,
            "/readyz" => self.ready(),
            _ => return None,
        };
        Some(match outcome {
            Ok(()) => Page::plain(StatusCode::OK, "ok"),
            Err(reason) => Page::plain(StatusCode::SERVICE_UNAVAILABLE, message(&reason)),
        })
    }
}
