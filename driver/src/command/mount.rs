//! `modelmount mount` and `unmount`: what kubelet does for an inline volume, by hand.

use std::collections::HashMap;
use std::time::Duration;

use modelmount::{Digest, ModelUri, fetch::Amounts, model};
use tonic::{Code, Request, Status};

use super::terminal::Display;
use super::{Failure, runtime};
use crate::args::{Mount, Unmount};
use crate::client::connect;
use crate::csi::node_client::NodeClient;
use crate::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use crate::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use crate::publisher::PROGRESS_METADATA;
use crate::status::with_cause;

/// Deadline of each call: after it the plugin tells how far it is, and is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn mount(args: &Mount) -> Result<(), Failure> {
    let secrets = args.secret.iter().map(|(name, file)| match std::fs::read_to_string(file) {
        Ok(value) => Ok((name.clone(), value)),
        Err(error) => Err(Failure::Usage(format!("--secret {name}: can't read {file}: {error}"))),
    });
    let secrets: HashMap<String, String> = secrets.collect::<Result<_, _>>()?;
    let mut context: HashMap<String, String> = args.attribute.iter().cloned().collect();
    context.insert(model::MODEL_URI.to_owned(), args.uri.clone());
    context.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
    let publish = NodePublishVolumeRequest {
        volume_id: volume_id(&args.target),
        target_path: args.target.clone(),
        volume_capability: Some(VolumeCapability {
            // What kubelet sends for every inline volume.
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }),
        readonly: true,
        secrets,
        volume_context: context,
        ..Default::default()
    };
    runtime()?.block_on(async {
        let channel = connect(&args.endpoint).await.map_err(unreachable_plugin)?;
        let mut client = NodeClient::new(channel);
        let shown = ModelUri::parse(&args.uri)?.to_string();
        let mut display = Display::new(&shown);
        loop {
            let mut request = Request::new(publish.clone());
            request.set_timeout(PATIENCE);
            match client.node_publish_volume(request).await {
                Ok(_) => break,
                // A download that goes on; anything else that may pass is for the user to repeat.
                Err(status) if status.code() == Code::Aborted => {
                    if let Some(amounts) = amounts(&status) {
                        display.show(amounts);
                    }
                }
                Err(status) => {
                    display.abandon();
                    return Err(status.into());
                }
            }
        }
        display.done(&format!("mounted at {}", args.target));
        Ok(())
    })
}

pub(super) fn unmount(args: &Unmount) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let channel = connect(&args.endpoint).await.map_err(unreachable_plugin)?;
        let request =
            NodeUnpublishVolumeRequest { volume_id: volume_id(&args.target), target_path: args.target.clone() };
        NodeClient::new(channel).node_unpublish_volume(request).await?;
        Ok(())
    })
}

/// One volume for each target, so that `unmount` needs no more than the target.
fn volume_id(target: &str) -> String {
    format!("csi-{}", Digest::of(target.trim_end_matches('/')).hex())
}

fn amounts(status: &Status) -> Option<Amounts> {
    let number = |name| status.metadata().get(name)?.to_str().ok()?.parse().ok();
    let [bytes_done, bytes_total] = PROGRESS_METADATA.map(number);
    Some(Amounts { bytes_done: bytes_done?, bytes_total: bytes_total?, ..Amounts::default() })
}

fn unreachable_plugin(error: impl std::error::Error + 'static) -> Failure {
    Failure::Failed(with_cause(&error))
}
