//! `oci://` against real registries, with what the usual tools push, and against registries that lie.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use modelmount::fetch::pull;
use modelmount::model::MODEL_URI;
use modelmount::{Context, Credentials, Digest, Error, ErrorKind, Manifest, Model, ModelRequest, Policy};
use modelmount_test_support::Registry;
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::model::Files;
use modelmount_test_support::registry::MANIFEST;
use modelmount_test_support::script::{Request, Response};
use serde_json::json;

use crate::node::{limits, resolve, walk};

mod artifacts;
mod hostile;
mod images;
mod mirrors;
mod refusals;
mod tokens;

pub(crate) const TITLE: &str = "org.opencontainers.image.title";
pub(crate) const OCTETS: &str = "application/octet-stream";

/// The attributes of a model at `host:port`, over plain HTTP.
pub(crate) fn at(reference: &str) -> Attributes {
    [(MODEL_URI, format!("oci://{reference}")), ("plainHttp", "true".to_owned())]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

fn with(mut attributes: Attributes, name: &str, value: &str) -> Attributes {
    attributes.insert(name.to_owned(), value.to_owned());
    attributes
}

async fn found(registry: &Registry, name: &str) -> (Model, Manifest) {
    resolve(&at(&registry.reference(name)), &registry.credentials()).await.unwrap()
}

async fn resolve_with(
    context: &Context,
    attributes: &Attributes,
    credentials: &Credentials,
) -> Result<(Model, Manifest), Error> {
    let request = ModelRequest::from_attributes(attributes)?;
    let model = request.open(credentials, context)?;
    let manifest = request.resolve(&model).await?;
    Ok((model, manifest))
}

/// All files of a model, as they arrive in a directory.
async fn files(model: &Model, manifest: &Manifest) -> Result<Files, Error> {
    let destination = tempfile::tempdir().unwrap();
    pull(manifest, model.clone(), destination.path(), limits(3), Arc::default()).await?;
    Ok(read(destination.path()))
}

/// The regular files below a directory.
fn read(directory: &Path) -> Files {
    let found = walk(directory).into_iter().filter(|(_, metadata)| metadata.is_file());
    found.map(|(path, _)| (path.clone(), fs::read(directory.join(path)).unwrap())).collect()
}

fn assert_same(found: &Files, expected: &Files) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, bytes) in found {
        assert!(*bytes == expected[path], "{path:?} has {} bytes that are not its own", bytes.len());
    }
}

fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries().iter().map(|entry| entry.path.as_str()).collect()
}

/// Runs a tool, and returns what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {shown}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn refused(attributes: &Attributes, credentials: &Credentials) -> Error {
    refused_under(Policy::unrestricted(), attributes, credentials).await
}

async fn refused_under(policy: Policy, attributes: &Attributes, credentials: &Credentials) -> Error {
    let answer = crate::node::resolve_under(policy, attributes, credentials);
    let answer = tokio::time::timeout(crate::node::SOON, answer).await.expect("an answer comes soon");
    let error = answer.map(|(_, manifest)| manifest).unwrap_err();
    for name in [".dockerconfigjson", "password"] {
        let Some(secret) = credentials.get(&[name]) else { continue };
        for shown in [error.report(), format!("{error:?}")] {
            assert!(!shown.contains(secret.expose().as_str()), "{name} is shown: {shown}");
        }
    }
    error
}

fn assert_says(error: &Error, kind: ErrorKind, hints: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for hint in hints {
        assert!(error.report().contains(hint), "{:?} does not say {hint:?}", error.report());
    }
}

/// A registry without any rule, for scripts to begin with: one manifest under every tag, and blobs.
#[derive(Clone)]
struct Shelf {
    manifest: Vec<u8>,
    blobs: Files,
}

impl Shelf {
    /// An artifact of these files.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let layers: Vec<_> = files
            .iter()
            .map(|(name, bytes)| {
                let digest = Digest::of(bytes).to_string();
                json!({"mediaType": OCTETS, "digest": digest, "size": bytes.len(), "annotations": {TITLE: name}})
            })
            .collect();
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of("{}").to_string(), "size": 2});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let blobs = files.iter().map(|(_, bytes)| (Digest::of(bytes).to_string(), bytes.to_vec())).collect();
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }

    fn answer(&self, request: &Request) -> Response {
        let path = request.target.split('?').next().unwrap();
        if path.contains("/manifests/") {
            return Response::new(200).header("content-type", MANIFEST).body(self.manifest.clone());
        }
        match path.rsplit('/').next().and_then(|digest| self.blobs.get(digest)) {
            Some(blob) => Response::content(request, blob),
            None => Response::new(404),
        }
    }
}
