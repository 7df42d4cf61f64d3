//! What kubelet does to register a plugin: finds its socket in a directory, asks, and tells what came of it.

use std::fs;
use std::path::PathBuf;

use modelmount_driver::client::connect;
use modelmount_driver::csi::NodeGetInfoRequest;
use modelmount_driver::csi::node_client::NodeClient;
use modelmount_driver::registration::api::registration_client::RegistrationClient;
use modelmount_driver::registration::api::{InfoRequest, PluginInfo, RegistrationStatus};
use modelmount_test_support::wait::until;
use tonic::transport::Channel;

use crate::harness::{Plugin, SOON};

/// Kubelet's directory.
pub(crate) struct Registry {
    pub(crate) directory: PathBuf,
}

impl Registry {
    pub(crate) fn of(plugin: &Plugin) -> Self {
        Self { directory: plugin.kubelet().join("plugins_registry") }
    }

    /// What is in it.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits for the only plugin in it, and asks who it is.
    pub(crate) async fn discover(&self) -> PluginInfo {
        until("a plugin that says who it is", SOON, async || {
            let [socket] = &self.sockets()[..] else { return None };
            let mut client = RegistrationClient::new(connect(socket.to_str().unwrap()).await.ok()?);
            client.get_info(InfoRequest {}).await.ok().map(tonic::Response::into_inner)
        })
        .await
    }

    /// Asks the plugin itself, as kubelet does before it registers it; returns the node's name.
    pub(crate) async fn node_id(&self, info: &PluginInfo) -> String {
        let mut client = NodeClient::new(connect(&info.endpoint).await.unwrap());
        client.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner().node_id
    }

    /// Tells the plugin how its registration ended.
    pub(crate) async fn notify(&self, outcome: Result<(), &str>) {
        let status = RegistrationStatus {
            plugin_registered: outcome.is_ok(),
            error: outcome.err().unwrap_or_default().to_owned(),
        };
        self.client().await.notify_registration_status(status).await.unwrap();
    }

    async fn client(&self) -> RegistrationClient<Channel> {
        let [socket] = &self.sockets()[..] else { panic!("one plugin: {:?}", self.sockets()) };
        RegistrationClient::new(connect(socket.to_str().unwrap()).await.unwrap())
    }
}
