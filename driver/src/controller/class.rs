//! The parameters of a StorageClass: some describe the model, and become the volume's attributes; some say how volumes
//! are made of it, and stay here; those with Kubernetes' own prefixes tell of the claim.

use std::collections::{BTreeMap, HashMap};

use modelmount::model::{MODEL_URI, MODEL_URIS};
use modelmount::source::registration;
use modelmount::{Credentials, Error, ErrorKind, ModelRequest, Result};

use super::allowed::Allowed;
use super::claim::Claim;
use super::template::Template;
use crate::kubernetes::Client;
use crate::volume::own_attributes;

/// Parameter: `"false"` for volumes that follow their source instead of staying at one version.
pub const PIN_REVISION: &str = "pinRevision";
/// Parameter: `"true"` for claims that may ask for less than their model needs.
pub const IGNORE_CAPACITY: &str = "ignoreCapacity";
/// Parameter: the places that models may come from.
pub const ALLOWED_URIS: &str = "allowedUris";

/// A StorageClass, and the claim that it is used for.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// Whether volumes stay at the version that their source has when they are made.
    pub(super) pin: bool,
    /// Whether a claim may ask for less than its model needs.
    pub(super) ignore_capacity: bool,
    model_uri: Option<Template>,
    allowed: Option<Template>,
    attributes: BTreeMap<String, String>,
    claim: Claim,
}

/// The model that a claim gets.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// As the node plugin will read it.
    pub(super) attributes: BTreeMap<String, String>,
    /// The same, checked.
    pub(super) request: ModelRequest,
}

impl Class {
    /// Reads the parameters, as far as that goes without asking anybody.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the parameter.
    pub(super) fn parse(parameters: HashMap<String, String>) -> Result<Self> {
        let claim = Claim::of(&parameters);
        let mut attributes = own_attributes(parameters);
        let pin = switch(&mut attributes, PIN_REVISION, true)?;
        let ignore_capacity = switch(&mut attributes, IGNORE_CAPACITY, false)?;
        let template = |key: &str, text: &str| Template::parse(text).map_err(|error| error.within(key));
        let allowed = attributes.remove(ALLOWED_URIS).map(|text| template(ALLOWED_URIS, &text)).transpose()?;
        let model_uri = attributes.get(MODEL_URI).map(|text| template(MODEL_URI, text)).transpose()?;
        if attributes.get(MODEL_URIS).is_some_and(|list| list.contains("${")) {
            // A claim's words inside the list's JSON could end a string and begin another model.
            return Err(invalid(format!("{MODEL_URIS} takes no variables: only {MODEL_URI} does")));
        }
        if allowed.as_ref().is_some_and(Template::wants_annotations) {
            return Err(invalid(format!("{ALLOWED_URIS}: a claim's annotations can't say what the claim may have")));
        }
        if allowed.is_none() && model_uri.as_ref().is_some_and(Template::wants_annotations) {
            return Err(invalid(format!(
                "{MODEL_URI} is made of the claim's annotations, so the StorageClass must say with {ALLOWED_URIS} where \
                 models may come from, for instance s3://models/${{pvc.namespace}}"
            )));
        }
        Ok(Self { pin, ignore_capacity, model_uri, allowed, attributes, claim })
    }

    /// The model for this claim, which will be opened with `credentials`. The API server is asked only if the class
    /// uses annotations.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the parameters or what the claim adds to them name no model, or
    /// [`ErrorKind::FailedPrecondition`] when annotations have a part in that: unlike the rest of a claim and of a class
    /// they can be put right, while the provisioner sets an invalid claim aside for a while; so can a Secret
    /// that names the server where the class bounds that. [`ErrorKind::PermissionDenied`] when the class does not allow
    /// the model; else those of [`Claim`].
    pub(super) async fn model(self, api: Option<&Client>, credentials: &Credentials) -> Result<Model> {
        let annotated = self.model_uri.as_ref().is_some_and(Template::wants_annotations);
        self.named(api, credentials).await.map_err(|error| match error.kind() {
            ErrorKind::InvalidArgument if annotated => Error::new(ErrorKind::FailedPrecondition, error.report()),
            _ => error,
        })
    }

    async fn named(mut self, api: Option<&Client>, credentials: &Credentials) -> Result<Model> {
        if let Some(template) = &self.model_uri {
            if template.wants_annotations() {
                self.claim.read_annotations(api).await?;
            }
            let uri =
                template.expand(|variable| self.claim.value(variable)).map_err(|error| error.within(MODEL_URI))?;
            self.attributes.insert(MODEL_URI.to_owned(), uri);
        }
        let request = ModelRequest::from_attributes(&self.attributes)?;
        if let Some(template) = &self.allowed {
            let within = |error: Error| error.within(ALLOWED_URIS);
            let allowed = template.expand(|variable| self.claim.value(variable)).map_err(within)?;
            let places = Allowed::parse(&allowed).map_err(within)?;
            if let Some(uri) = request.uris().find(|uri| !places.allows(uri)) {
                let text = format!("the StorageClass does not allow {uri}: its {ALLOWED_URIS} are {allowed}");
                return Err(Error::new(ErrorKind::PermissionDenied, text));
            }
            check_place(&request, &self.attributes, credentials)?;
        }
        Ok(Model { attributes: self.attributes, request })
    }
}

/// Checks that it is not the Secret that says where an allowed URI leads: it may be the claimant's own.
fn check_place(request: &ModelRequest, attributes: &BTreeMap<String, String>, credentials: &Credentials) -> Result<()> {
    for uri in request.uris() {
        if let Some((key, attribute)) = registration(uri)?.place_key(uri, attributes, credentials) {
            let text = format!(
                "the Secret's key {key} says where {uri} is, and the StorageClass's {ALLOWED_URIS} leave that to the \
                 class: give the class the parameter {}, or take the key out of the Secret",
                attribute.name
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, text));
        }
    }
    Ok(())
}

fn switch(attributes: &mut BTreeMap<String, String>, key: &str, default: bool) -> Result<bool> {
    match attributes.remove(key).as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(invalid(format!("{key} must be \"true\" or \"false\""))),
    }
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, context)
}
