//! The Controller service: turns the parameters of a StorageClass into a volume, without keeping any state.
//!
//! A "volume" is nothing but its parameters: each node fetches the model when a pod needs it. So CreateVolume answers
//! from the request alone and never touches the network (the provisioner gives up after 10 s), and DeleteVolume has
//! nothing to delete. It follows that the same name with other parameters is another volume, with another id, and not
//! an error.

use std::collections::{BTreeMap, HashMap};

use modelmount::Digest;
use tonic::{Request, Response, Status};

use crate::capability;
use crate::csi::controller_server::Controller;
use crate::csi::controller_service_capability::rpc::Type as RpcType;
use crate::csi::controller_service_capability::{Rpc, Type};
use crate::csi::validate_volume_capabilities_response::Confirmed;
use crate::csi::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
};
use crate::status::status;

/// Longest name of a volume, in bytes (the specification's limit for strings).
const MAX_NAME: usize = 128;

/// What the provisioner adds on its own account (the claim's name, for instance). Not part of the model.
const ADDED_BY_KUBERNETES: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];

/// Says whether the parameters describe a model, without asking anybody.
pub trait ParameterCheck: Send + Sync + 'static {
    /// Errors are shown to the user; an unknown key is one.
    fn check(&self, parameters: &BTreeMap<String, String>) -> modelmount::Result<()>;
}

impl<F> ParameterCheck for F
where
    F: Fn(&BTreeMap<String, String>) -> modelmount::Result<()> + Send + Sync + 'static,
{
    fn check(&self, parameters: &BTreeMap<String, String>) -> modelmount::Result<()> {
        self(parameters)
    }
}

/// The Controller service.
#[derive(Debug)]
pub struct ControllerService<P> {
    parameters: P,
}

impl<P: ParameterCheck> ControllerService<P> {
    /// A controller that accepts the parameters that `parameters` accepts.
    pub fn new(parameters: P) -> Self {
        Self { parameters }
    }
}

/// The id of the volume with this name and these parameters: `mm-`, 32 hexadecimal digits, `-`, and 8 more that follow
/// from the ones before, so that an invented id can be told from a real one without remembering any.
fn volume_id(name: &str, parameters: &BTreeMap<String, String>) -> String {
    // Each text with its length in front: no two different inputs look alike.
    let mut input = Vec::new();
    let texts = parameters.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    for text in std::iter::once(name).chain(texts) {
        input.extend((text.len() as u64).to_le_bytes());
        input.extend(text.as_bytes());
    }
    let mut id = Digest::of(&input).hex();
    id.truncate(32);
    id.insert_str(0, "mm-");
    let check = checksum(&id);
    id + "-" + &check
}

fn checksum(text: &str) -> String {
    let mut digits = Digest::of(text).hex();
    digits.truncate(8);
    digits
}

fn is_volume_id(id: &str) -> bool {
    let Some((body, check)) = id.rsplit_once('-') else { return false };
    let hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = |digits: &str| digits.len() == 32 && digits.bytes().all(hex);
    body.strip_prefix("mm-").is_some_and(well_formed) && checksum(body) == check
}

fn check_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("a volume name is required"));
    }
    if name.len() > MAX_NAME {
        return Err(Status::invalid_argument("the volume name is longer than 128 bytes"));
    }
    // The specification's list of what is banned: control characters other than white space.
    if name.chars().any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r')) {
        return Err(Status::invalid_argument("the volume name contains control characters"));
    }
    Ok(())
}

fn own_parameters(parameters: HashMap<String, String>) -> BTreeMap<String, String> {
    let added = |key: &str| ADDED_BY_KUBERNETES.iter().any(|prefix| key.starts_with(prefix));
    parameters.into_iter().filter(|(key, _)| !added(key)).collect()
}

#[tonic::async_trait]
impl<P: ParameterCheck> Controller for ControllerService<P> {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        check_name(&request.name)?;
        capability::check_all(&request.volume_capabilities)?;
        if request.volume_content_source.is_some() {
            return Err(Status::invalid_argument(
                "a model volume can't be made from a snapshot or another volume: name the model in the StorageClass",
            ));
        }
        if !request.mutable_parameters.is_empty() {
            return Err(Status::invalid_argument("a model volume can't be changed: it has no mutable parameters"));
        }
        let parameters = own_parameters(request.parameters);
        self.parameters.check(&parameters).map_err(|error| status(&error))?;
        let volume = Volume {
            volume_id: volume_id(&request.name, &parameters),
            // 0 is "unknown". Whatever the claim asks for is fine: the model is as large as it is.
            capacity_bytes: 0,
            volume_context: parameters.into_iter().collect(),
            ..Volume::default()
        };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        if request.into_inner().volume_id.is_empty() {
            return Err(Status::invalid_argument("a volume id is required"));
        }
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        if request.volume_id.is_empty() {
            return Err(Status::invalid_argument("a volume id is required"));
        }
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume capabilities are required"));
        }
        if !is_volume_id(&request.volume_id) {
            return Err(Status::not_found("this plugin never made a volume with that id"));
        }
        let refusal = capability::check_all(&request.volume_capabilities)
            .and_then(|()| match request.mutable_parameters.is_empty() {
                true => Ok(()),
                false => Err(Status::invalid_argument("a model volume has no mutable parameters")),
            })
            .and_then(|()| {
                let given = [&request.volume_context, &request.parameters].into_iter().filter(|map| !map.is_empty());
                let checked = given.map(|map| self.parameters.check(&own_parameters(map.clone())));
                checked.collect::<Result<(), _>>().map_err(|error| status(&error))
            });
        let answer = match refusal {
            Ok(()) => ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: HashMap::new(),
                }),
                message: String::new(),
            },
            Err(why) => ValidateVolumeCapabilitiesResponse { confirmed: None, message: why.message().to_owned() },
        };
        Ok(Response::new(answer))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let rpc = Rpc { r#type: RpcType::CreateDeleteVolume.into() };
        let capabilities = vec![ControllerServiceCapability { r#type: Some(Type::Rpc(rpc)) }];
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }
}

#[cfg(test)]
mod tests;
