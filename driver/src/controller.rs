//! The Controller service: turns a claim of a StorageClass into a volume, without keeping any state.
//!
//! ```text
//! class.rs     parameters --> what is asked of the controller, what describes the model
//! template.rs  modelUri, with what claim.rs knows of the claim; within allowed.rs, which no Secret may lead out of
//!              resolve with the provisioner's secrets --> version, size          (nothing is downloaded)
//! capacity.rs  size --> capacity;  id.rs  name and attributes --> id;  version --> the attribute pin
//! ```
//!
//! A volume is nothing but its attributes: each node fetches the model when a pod needs it, and mounts the pinned
//! version or nothing. So DeleteVolume has nothing to delete, and any number of controllers may run.
//!
//! Without state nobody knows what a name stood for before. The same name with other attributes is another volume, with
//! another id, and not an error; with another capacity it is the same volume. If a model changes between two tries of
//! one CreateVolume, the second answer has another pin; whichever answer the provisioner keeps becomes the volume.
//!
//! Not offered: ListVolumes, for want of state; GetCapacity, since the room is each node's own; anything that changes,
//! copies or attaches a volume.

use std::collections::HashMap;

use modelmount::model::PIN;
use modelmount::{Context, Credentials, Error, ErrorKind, ModelRequest};
use tokio::time::timeout_at;
use tonic::{Code, Request, Response, Status};

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
use crate::deadline::answer_by;
use crate::kubernetes::Client;
use crate::status::{message, status};
use crate::volume::{check_size, own_attributes};

mod allowed;
mod capacity;
mod claim;
mod class;
mod id;
mod template;

use class::Class;
pub use class::{ALLOWED_URIS, IGNORE_CAPACITY, PIN_REVISION};
use id::{is_volume_id, volume_id};

/// Longest name of a volume, in bytes (the specification's limit for strings).
const MAX_NAME: usize = 128;

/// The Controller service.
#[derive(Debug)]
pub struct ControllerService {
    context: Context,
    api: Option<Client>,
}

impl ControllerService {
    /// A controller that asks sources within `context`, and the API server, if there is one, for annotations of claims.
    pub fn new(context: Context, api: Option<Client>) -> Self {
        Self { context, api }
    }

    async fn make(&self, request: CreateVolumeRequest) -> Result<Volume, Status> {
        let CreateVolumeRequest { name, parameters, secrets, capacity_range, .. } = request;
        let class = Class::parse(parameters).map_err(|error| status(&error))?;
        let (pin, ignore_capacity) = (class.pin, class.ignore_capacity);
        let anonymous = secrets.is_empty();
        let credentials: Credentials = secrets.into_iter().collect();
        let model = class.model(self.api.as_ref(), &credentials).await.map_err(|error| status(&error))?;
        let (mut attributes, request) = (model.attributes, model.request);
        let uri = request.name();
        if let Some(uri) = request.uris().find(|uri| uri.scheme().as_str() == "file") {
            return Err(Status::invalid_argument(message(&format!(
                "{uri} names files of one node, which a StorageClass knows nothing of: name it in an inline volume, or in \
                 a PersistentVolume of your own"
            ))));
        }
        let resolved = async {
            let model = request.open(&credentials, &self.context)?;
            request.resolve(&model).await
        };
        let manifest = resolved.await.map_err(|error| unresolved(&error, anonymous))?;
        let capacity_bytes =
            capacity::capacity(&uri, manifest.known_bytes(), capacity_range.as_ref(), ignore_capacity)?;
        let volume_id = volume_id(&name, &attributes);
        // A digest pins the content itself.
        if pin && request.digest().is_none() {
            if !manifest.tells_versions() {
                let text = format!(
                    "{uri}: the server does not tell versions apart (it sends neither ETag nor Last-Modified), so a volume \
                     can't be pinned to one: give the StorageClass a digest, or {PIN_REVISION}: \"false\""
                );
                return Err(status(&Error::new(ErrorKind::FailedPrecondition, text)));
            }
            attributes.insert(PIN.to_owned(), manifest.id().to_string());
        }
        let volume_context: HashMap<_, _> = attributes.into_iter().collect();
        check_size("volume_context", &volume_context)?;
        tracing::info!(volume = %volume_id, name, uri = %uri, version = %manifest.id(), "created");
        Ok(Volume { volume_id, capacity_bytes, volume_context, ..Volume::default() })
    }
}

/// The status for a model that could not be resolved, with what only a StorageClass's author needs to be told.
fn unresolved(error: &Error, anonymous: bool) -> Status {
    let status = status(error);
    if !anonymous || status.code() != Code::Unauthenticated {
        return status;
    }
    let text = format!(
        "the StorageClass names no Secret for it; its parameters csi.storage.k8s.io/provisioner-secret-name and \
         csi.storage.k8s.io/node-publish-secret-name do: {}",
        status.message()
    );
    Status::new(status.code(), message(&text))
}

fn check_request(request: &CreateVolumeRequest) -> Result<(), Status> {
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
    Ok(())
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

/// Checks what an orchestrator gives as a volume's attributes and as its class's parameters.
fn check_maps(context: HashMap<String, String>, parameters: HashMap<String, String>) -> Result<(), Error> {
    if !context.is_empty() {
        ModelRequest::from_attributes(&own_attributes(context))?;
    }
    if !parameters.is_empty() {
        Class::parse(parameters)?;
    }
    Ok(())
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let request = request.into_inner();
        check_request(&request)?;
        let name = request.name.clone();
        let made = timeout_at(answer_by, self.make(request)).await.unwrap_or_else(|_| {
            Err(Status::unavailable("the model's source has not answered in time; it is asked again"))
        });
        let volume = made.inspect_err(|status| tracing::warn!(name, error = %status.message(), "not created"))?;
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
        // A PersistentVolume that somebody wrote has an id of their choice, and says itself which model it is.
        if !is_volume_id(&request.volume_id) && request.volume_context.is_empty() {
            return Err(Status::not_found("this plugin never made a volume with that id"));
        }
        let refusal = capability::check_all(&request.volume_capabilities)
            .and_then(|()| match request.mutable_parameters.is_empty() {
                true => Ok(()),
                false => Err(Status::invalid_argument("a model volume has no mutable parameters")),
            })
            .and_then(|()| {
                let (context, parameters) = (request.volume_context.clone(), request.parameters.clone());
                check_maps(context, parameters).map_err(|error| status(&error))
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
