//! The Identity service: who this plugin is, and whether it can work.
//!
//! Answers from memory alone. Whoever finds out that something is wrong tells [`Health`]; Probe never goes looking,
//! because it is asked every few seconds and must answer while the disk hangs.

use std::sync::{Arc, PoisonError, RwLock};

use tonic::{Request, Response, Status};

use crate::csi::identity_server::Identity;
use crate::csi::plugin_capability::service::Type as ServiceType;
use crate::csi::plugin_capability::{Service, Type};
use crate::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use crate::status::message;

/// Whether the plugin can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Recovery is still under way; nothing is wrong.
    Starting,
    /// All is well.
    Ready,
    /// It can't, and why: a sentence for whoever has to put it right.
    Unhealthy(String),
}

/// The plugin's health, shared by whoever notices something and whoever is asked. Starts as [`State::Starting`].
#[derive(Debug)]
pub struct Health {
    state: RwLock<State>,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: RwLock::new(State::Starting) }
    }
}

impl Health {
    /// Everything works (again).
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    /// Something is broken. `reason` is shown to people, and must not hold a secret.
    pub fn unhealthy(&self, reason: impl Into<String>) {
        self.set(State::Unhealthy(reason.into()));
    }

    /// The present state.
    pub fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// The Identity service of one plugin.
#[derive(Debug)]
pub struct IdentityService {
    driver_name: String,
    health: Arc<Health>,
}

impl IdentityService {
    /// `driver_name` is what users write into `driver:`.
    pub fn new(driver_name: impl Into<String>, health: Arc<Health>) -> Self {
        Self { driver_name: driver_name.into(), health }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        // Also where this instance serves none: the specification wants the same answer from every one of a release.
        let controller = Service { r#type: ServiceType::ControllerService.into() };
        let capabilities = vec![PluginCapability { r#type: Some(Type::Service(controller)) }];
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ready = match self.health.state() {
            State::Starting => false,
            State::Ready => true,
            State::Unhealthy(reason) => return Err(Status::failed_precondition(message(&reason))),
        };
        Ok(Response::new(ProbeResponse { ready: Some(ready) }))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn service() -> IdentityService {
        IdentityService::new("csi.modelmount.io", Arc::default())
    }

    #[tokio::test]
    async fn the_plugin_says_who_it_is() {
        let info = service().get_plugin_info(Request::new(Default::default())).await.unwrap().into_inner();
        assert_eq!((info.name.as_str(), info.vendor_version.as_str()), ("csi.modelmount.io", "0.1.0"));
    }

    #[tokio::test]
    async fn every_instance_announces_the_controller() {
        let answer = service().get_plugin_capabilities(Request::new(Default::default())).await.unwrap().into_inner();
        let controller = Service { r#type: ServiceType::ControllerService.into() };
        let announced: Vec<_> = answer.capabilities.into_iter().map(|capability| capability.r#type).collect();
        assert_eq!(announced, [Some(Type::Service(controller))]);
    }

    #[tokio::test]
    async fn probe_tells_starting_from_working_from_broken() {
        let health = Arc::new(Health::default());
        let service = IdentityService::new("x", Arc::clone(&health));
        let probe =
            async || service.probe(Request::new(Default::default())).await.map(|answer| answer.into_inner().ready);
        assert_eq!(probe().await.unwrap(), Some(false));
        health.ready();
        assert_eq!(probe().await.unwrap(), Some(true));
        health.unhealthy("the cache is gone:\nmount it");
        let status = probe().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "the cache is gone: mount it"));
        health.ready();
        assert_eq!(probe().await.unwrap(), Some(true));
    }
}
