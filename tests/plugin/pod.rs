//! What kubelet does for a pod with an inline volume: makes the directories, calls publish and unpublish.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelmount::Digest;
use modelmount_driver::client::connect;
use modelmount_driver::csi::node_client::NodeClient;
use modelmount_driver::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use modelmount_driver::csi::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability,
};
use modelmount_driver::mount::mountinfo::{self, Mount};
use modelmount_driver::status::MAX_MESSAGE;
use modelmount_test_support::model::Files;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Kubelet's own deadline for every call.
const KUBELETS_DEADLINE: Duration = Duration::from_secs(120);

/// What the pod's author wrote, and the Secret that it names.
#[derive(Clone, Default)]
pub(crate) struct Volume {
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) secrets: HashMap<String, String>,
}

impl Volume {
    pub(crate) fn of(uri: &str) -> Self {
        Self::default().with("modelUri", uri)
    }

    /// With an attribute, in place of the one of the same name.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.attributes.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a secret, in place of the one of the same name.
    pub(crate) fn secret(mut self, key: &str, value: &str) -> Self {
        self.secrets.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A pod with one inline volume.
#[derive(Clone)]
pub(crate) struct Pod {
    endpoint: String,
    name: String,
    pub(crate) id: String,
    pub(crate) target: String,
}

impl Pod {
    pub(crate) fn new(endpoint: String, kubelet: &Path, name: &str) -> Self {
        let parent = kubelet.join(format!("pods/{name}-uid/volumes/kubernetes.io~csi/model"));
        fs::create_dir_all(&parent).unwrap();
        let target = parent.join("mount").to_str().unwrap().to_owned();
        let id = format!("csi-{}", Digest::of(format!("{name}-uid model")).hex());
        Self { endpoint, name: name.to_owned(), id, target }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.target)
    }

    /// The same with another volume id.
    pub(crate) fn with_id(&self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self.clone() }
    }

    /// The same at another target.
    pub(crate) fn at(&self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self.clone() }
    }

    /// What kubelet would ask for.
    pub(crate) fn request(&self, volume: &Volume) -> NodePublishVolumeRequest {
        let mut context = volume.attributes.clone();
        let uid = format!("{}-uid", self.name);
        for (key, value) in [
            ("ephemeral", "true"),
            ("pod.name", self.name.as_str()),
            ("pod.namespace", "default"),
            ("pod.uid", uid.as_str()),
            ("serviceAccount.name", "default"),
        ] {
            context.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
        }
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: self.target.clone(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            }),
            readonly: true,
            secrets: volume.secrets.clone(),
            volume_context: context,
            ..Default::default()
        }
    }

    pub(crate) async fn publish(&self, volume: &Volume) -> Result<(), Status> {
        self.publish_within(volume, KUBELETS_DEADLINE).await
    }

    pub(crate) async fn publish_within(&self, volume: &Volume, deadline: Duration) -> Result<(), Status> {
        self.send(self.request(volume), deadline).await
    }

    /// Publishes while the test does something else.
    pub(crate) fn publishing(&self, volume: &Volume) -> tokio::task::JoinHandle<Result<(), Status>> {
        let (pod, volume) = (self.clone(), volume.clone());
        tokio::spawn(async move { pod.publish(&volume).await })
    }

    pub(crate) async fn send(&self, request: NodePublishVolumeRequest, deadline: Duration) -> Result<(), Status> {
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        self.node().await.node_publish_volume(request).await.map(drop).map_err(checked)
    }

    pub(crate) async fn unpublish(&self) -> Result<(), Status> {
        let mut request =
            Request::new(NodeUnpublishVolumeRequest { volume_id: self.id.clone(), target_path: self.target.clone() });
        request.set_timeout(KUBELETS_DEADLINE);
        self.node().await.node_unpublish_volume(request).await.map(drop).map_err(checked)
    }

    /// Bytes and files of the volume.
    pub(crate) async fn stats(&self) -> Result<(u64, u64), Status> {
        let (volume_id, volume_path) = (self.id.clone(), self.target.clone());
        let request = NodeGetVolumeStatsRequest { volume_id, volume_path, ..Default::default() };
        let usage = self.node().await.node_get_volume_stats(request).await.map_err(checked)?.into_inner().usage;
        let units: Vec<i32> = usage.iter().map(|usage| usage.unit).collect();
        assert_eq!(units, [1, 2], "bytes and inodes");
        assert!(usage.iter().all(|usage| usage.used == usage.total && usage.available == 0));
        Ok((usage[0].total.try_into().unwrap(), usage[1].total.try_into().unwrap()))
    }

    /// What is mounted at the target.
    pub(crate) fn mount(&self) -> Option<Mount> {
        let mut here = mountinfo::read_settled().unwrap();
        here.retain(|mount| mount.mount_point == self.path());
        assert!(here.len() < 2, "mounts are stacked: {here:?}");
        here.pop()
    }

    /// What the pod sees: every file must be readable by all and writable by none.
    pub(crate) fn files(&self) -> Files {
        let mut files = Files::new();
        collect(self.path(), self.path(), &mut files);
        files
    }

    async fn node(&self) -> NodeClient<Channel> {
        // As kubelet does it, a new connection for every call.
        NodeClient::new(connect(&self.endpoint).await.unwrap())
    }
}

fn collect(root: &Path, directory: &Path, files: &mut Files) {
    for entry in fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            assert_eq!(mode & 0o555, 0o555, "{path:?}: {mode:o}");
            collect(root, &path, files);
        } else {
            assert!(metadata.is_file() && mode == 0o444, "{path:?}: {mode:o}");
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// What holds for every refusal: nothing but a code and one short line of text.
fn checked(status: Status) -> Status {
    let text = status.message();
    assert!(status.details().is_empty(), "details: {status:?}");
    assert!(!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains(char::is_control), "{text:?}");
    status
}
