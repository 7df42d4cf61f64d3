//! The claim that a volume is made for, as far as the provisioner and the API server tell.

use std::collections::{BTreeMap, HashMap};

use modelmount::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::template::Variable;
use crate::kubernetes::{ApiErrorKind, Client};

/// Names that the provisioner adds to the parameters when it runs with `--extra-create-metadata`.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    namespace: Option<String>,
    name: Option<String>,
    volume: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl Claim {
    /// Reads the names.
    pub(super) fn of(parameters: &HashMap<String, String>) -> Self {
        let get = |key: &str| parameters.get(&format!("csi.storage.k8s.io/{key}")).cloned();
        let annotations = BTreeMap::new();
        Self { namespace: get("pvc/namespace"), name: get("pvc/name"), volume: get("pv/name"), annotations }
    }

    /// Asks the API server for the claim's annotations.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it can't be asked now; [`ErrorKind::FailedPrecondition`] when it can't be asked
    /// at all; [`ErrorKind::NotFound`] when the claim is gone.
    pub(super) async fn read_annotations(&mut self, api: Option<&Client>) -> Result<()> {
        let (namespace, name) = (self.value(&Variable::ClaimNamespace)?, self.value(&Variable::ClaimName)?);
        let api = api.ok_or_else(|| {
            let text = "the StorageClass uses annotations of its claims, which can be read in a cluster only";
            Error::new(ErrorKind::FailedPrecondition, text)
        })?;
        let path = ["api", "v1", "namespaces", &namespace, "persistentvolumeclaims", &name];
        let claim: ClaimObject = api.get(&path).await.map_err(|error| {
            let (kind, advice) = match error.kind() {
                ApiErrorKind::NotFound => (ErrorKind::NotFound, "the claim is gone"),
                ApiErrorKind::Forbidden => (
                    ErrorKind::FailedPrecondition,
                    "the controller's service account needs get on persistentvolumeclaims",
                ),
                ApiErrorKind::NotConfigured | ApiErrorKind::Unauthorized => {
                    (ErrorKind::FailedPrecondition, "the controller has no usable service account")
                }
                ApiErrorKind::Conflict | ApiErrorKind::Unavailable | ApiErrorKind::Unexpected => {
                    (ErrorKind::Unavailable, "it is asked again")
                }
            };
            let text = format!("can't read the annotations of claim {namespace}/{name}; {advice}");
            Error::with_source(kind, text, error)
        })?;
        self.annotations = claim.metadata.annotations.unwrap_or_default();
        Ok(())
    }

    /// What a variable of a template stands for.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] when the provisioner does not tell; [`ErrorKind::InvalidArgument`] when the
    /// claim has no such annotation.
    pub(super) fn value(&self, variable: &Variable) -> Result<String> {
        let name = match variable {
            Variable::ClaimNamespace => &self.namespace,
            Variable::ClaimName => &self.name,
            Variable::VolumeName => &self.volume,
            Variable::Annotation(key) => {
                let missing = || {
                    let text =
                        format!("the claim has no annotation {key:?}, which its StorageClass makes the model's URI of");
                    Error::new(ErrorKind::InvalidArgument, text)
                };
                return self.annotations.get(key).cloned().ok_or_else(missing);
            }
        };
        name.clone().ok_or_else(|| {
            let text = "the StorageClass uses names of the claim, which the provisioner tells only with \
                        --extra-create-metadata";
            Error::new(ErrorKind::FailedPrecondition, text)
        })
    }
}

#[derive(Deserialize)]
struct ClaimObject {
    metadata: ClaimMetadata,
}

#[derive(Deserialize)]
struct ClaimMetadata {
    annotations: Option<BTreeMap<String, String>>,
}
