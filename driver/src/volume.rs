//! What a publish request asks for, checked before anything is done about it.

use std::collections::{BTreeMap, HashMap};

use modelmount::{Credentials, Digest, ModelRequest};
use tonic::Status;

use crate::capability;
use crate::csi::NodePublishVolumeRequest;
use crate::mount::MountOptions;
use crate::status::status;

/// Longest id of a volume, in bytes (CSI specification, "Size Limits").
const MAX_ID: usize = 128;
/// Longest map of a request, in bytes (CSI specification, "Size Limits").
const MAX_MAP: usize = 4096;
/// Keys that kubelet and the provisioner add to a volume's context. They describe the pod, not the model.
const ADDED_BY_KUBERNETES: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];

/// One volume at one target, as asked for.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The volume's id.
    pub id: String,
    /// The path to mount at, without a slash at its end.
    pub target: String,
    /// The model.
    pub request: ModelRequest,
    /// The caller's own.
    pub credentials: Credentials,
    /// How to mount.
    pub options: MountOptions,
    /// Digest of everything that decides what is mounted, and how.
    pub arguments: Digest,
}

impl Volume {
    /// Checks a request.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, naming the field and what to change.
    pub fn from_request(request: NodePublishVolumeRequest) -> Result<Self, Status> {
        let NodePublishVolumeRequest { volume_id, target_path, volume_capability, secrets, volume_context, .. } =
            request;
        let id = check_id(volume_id)?;
        let target = check_target(target_path)?;
        let capability = volume_capability
            .ok_or_else(|| Status::invalid_argument("volume_capability is missing: it must ask for a mount"))?;
        let options = capability::check(&capability)?;
        check_size("volume_context", &volume_context)?;
        let attributes = own_attributes(volume_context);
        let request = ModelRequest::from_attributes(&attributes).map_err(|error| status(&error))?;
        let arguments = arguments(&attributes, options);
        Ok(Self { id, target, request, credentials: secrets.into_iter().collect(), options, arguments })
    }
}

/// Checks a volume's id. It is never used as a path; one that looks like an attempt at it is refused all the same.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_id(id: String) -> Result<String, Status> {
    let problem = if id.is_empty() {
        "is missing"
    } else if id.len() > MAX_ID {
        "is longer than 128 bytes"
    } else if id.chars().any(char::is_control) {
        "contains a control character"
    } else if id.starts_with('/') || id.split('/').any(|part| matches!(part, "." | "..")) {
        "looks like a path: use an id without a leading slash and without \".\" and \"..\""
    } else {
        return Ok(id);
    };
    Err(Status::invalid_argument(format!("volume_id {problem}")))
}

/// Checks that a target is given; what it may be is for the mounter to say.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_target(target: String) -> Result<String, Status> {
    if target.is_empty() {
        return Err(Status::invalid_argument("target_path is missing"));
    }
    Ok(target.strip_suffix('/').filter(|rest| !rest.is_empty()).map(str::to_owned).unwrap_or(target))
}

/// Checks a map against the specification's limit.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn check_size(name: &str, map: &HashMap<String, String>) -> Result<(), Status> {
    // The service account tokens that kubelet adds are not ours to count.
    let own = map.iter().filter(|(key, _)| !is_added_by_kubernetes(key));
    let size: usize = own.map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_MAP {
        return Err(Status::invalid_argument(format!("{name} has {size} bytes, and at most {MAX_MAP} are allowed")));
    }
    Ok(())
}

/// The attributes that a user wrote.
pub fn own_attributes(context: HashMap<String, String>) -> BTreeMap<String, String> {
    context.into_iter().filter(|(key, _)| !is_added_by_kubernetes(key)).collect()
}

fn is_added_by_kubernetes(key: &str) -> bool {
    ADDED_BY_KUBERNETES.iter().any(|prefix| key.starts_with(prefix))
}

fn arguments(attributes: &BTreeMap<String, String>, options: MountOptions) -> Digest {
    let mut text = format!("{options:?}");
    for (key, value) in attributes {
        // Length-prefixed: no two sets of attributes give the same text.
        text.push_str(&format!("\n{} {key}{} {value}", key.len(), value.len()));
    }
    Digest::of(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::VolumeCapability;
    use crate::csi::volume_capability::{AccessMode, AccessType, MountVolume};
    use tonic::Code;

    fn request(context: &[(&str, &str)]) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: "csi-1".into(),
            target_path: "/var/lib/kubelet/pods/1/mount/".into(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode: 1 }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            }),
            volume_context: context.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Default::default()
        }
    }

    const GOOD: &[(&str, &str)] = &[("modelUri", "s3://b/m"), ("region", "eu")];

    #[test]
    fn what_kubernetes_adds_is_no_argument() {
        let plain = Volume::from_request(request(GOOD)).unwrap();
        let pod =
            [GOOD, &[("csi.storage.k8s.io/pod.name", "p"), ("storage.kubernetes.io/csiProvisionerIdentity", "x")]];
        let with_pod = Volume::from_request(request(&pod.concat())).unwrap();
        assert_eq!(plain.arguments, with_pod.arguments);
        assert_eq!(plain.target, "/var/lib/kubelet/pods/1/mount");
        let other = Volume::from_request(request(&[("modelUri", "s3://b/m"), ("region", "us")])).unwrap();
        assert_ne!(plain.arguments, other.arguments);
        let moved = arguments(&[("ab".to_owned(), "c".to_owned())].into(), MountOptions::default());
        assert_ne!(moved, arguments(&[("a".to_owned(), "bc".to_owned())].into(), MountOptions::default()));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let long = "x".repeat(5000);
        let good = || request(GOOD);
        for (request, hint) in [
            (NodePublishVolumeRequest { volume_id: String::new(), ..good() }, "volume_id is missing"),
            (NodePublishVolumeRequest { volume_id: "x".repeat(129), ..good() }, "longer than 128"),
            (NodePublishVolumeRequest { volume_id: "../../etc".into(), ..good() }, "looks like a path"),
            (NodePublishVolumeRequest { volume_id: "a\0b".into(), ..good() }, "control character"),
            (NodePublishVolumeRequest { target_path: String::new(), ..good() }, "target_path is missing"),
            (NodePublishVolumeRequest { volume_capability: None, ..good() }, "volume_capability is missing"),
            (request(&[("modelUri", "s3://b/m"), ("region", &long)]), "at most 4096"),
            (request(&[]), "no attribute \"modelUri\""),
            (request(&[("modelUri", "s3://b/m"), ("regoin", "eu")]), "unknown attribute \"regoin\""),
        ] {
            let status = Volume::from_request(request).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(hint), "{}", status.message());
        }
    }
}
