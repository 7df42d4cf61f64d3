//! The CSI Node service: volumes on this node. Everything but the fields of messages is the [`Publisher`]'s. Calls that
//! are not here (staging, expansion, the alpha health calls) are answered UNIMPLEMENTED by the generated code.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::csi::node_server::Node;
use crate::csi::node_service_capability::{Rpc, Type, rpc};
use crate::csi::volume_usage::Unit;
use crate::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeServiceCapability, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, VolumeUsage,
};
use crate::deadline::answer_by;
use crate::publisher::Publisher;
use crate::volume::{Volume, check_id, check_target};

/// See the [module documentation](self).
#[derive(Debug)]
pub struct NodeService {
    node_id: String,
    publisher: Arc<Publisher>,
}

impl NodeService {
    /// The service of the node called `node_id`.
    pub fn new(node_id: String, publisher: Arc<Publisher>) -> Self {
        Self { node_id, publisher }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let volume = Volume::from_request(request.into_inner())?;
        self.publisher.publish(volume, answer_by).await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let NodeUnpublishVolumeRequest { volume_id, target_path } = request.into_inner();
        self.publisher.unpublish(check_id(volume_id)?, check_target(target_path)?).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let NodeGetVolumeStatsRequest { volume_id, volume_path, .. } = request.into_inner();
        if volume_path.is_empty() {
            return Err(Status::invalid_argument("volume_path is missing"));
        }
        let usage = self.publisher.usage(check_id(volume_id)?, check_target(volume_path)?).await?;
        let full = |unit: Unit, amount: u64| {
            let amount = i64::try_from(amount).unwrap_or(i64::MAX);
            VolumeUsage { unit: unit.into(), total: amount, used: amount, available: 0 }
        };
        let usage = vec![full(Unit::Bytes, usage.bytes), full(Unit::Inodes, usage.files)];
        Ok(Response::new(NodeGetVolumeStatsResponse { usage }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let rpc = Rpc { r#type: rpc::Type::GetVolumeStats.into() };
        let capabilities = vec![NodeServiceCapability { r#type: Some(Type::Rpc(rpc)) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: self.node_id.clone(), ..Default::default() }))
    }
}
