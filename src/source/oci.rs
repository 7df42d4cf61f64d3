//! Models in container registries: `oci://registry/repository:tag`, `oci://registry/repository@sha256:…`, and Docker
//! Hub's short forms.
//!
//! What a manifest may be, and which files it then stands for, is in the module `layout`. A tag is resolved to the digest
//! of its manifest, and everything after that is asked for by digest: the manifest is checked against its own, each blob
//! by whoever fetches it. Redirects of blobs to storage hosts are followed without credentials.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tracing::debug;
use url::Url;

use super::{Attribute, ByteStream, Context, Options, Portion, Registration, Rights, Source, portion};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Listing};
use crate::net::read_all;
use crate::uri::ModelUri;

mod challenge;
mod failure;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod layout;
mod login;
mod manifest;
mod mirror;
mod reference;
mod registry;
mod token;

use failure::{Asked, Failures};
use login::Logins;
use manifest::{Document, MAX_MANIFEST, Manifest, Platform};
pub use mirror::{RegistryMirror, RegistryMirrors};
use reference::{Reference, Version};
use registry::Registry;
use token::Gate;

const REVISION: Attribute = Attribute {
    name: "revision",
    meaning: "tag, or digest (sha256:…) of the manifest; the same as :tag or @sha256:… in the URI",
};
const PLATFORM: Attribute = Attribute {
    name: "platform",
    meaning: "which manifest of an index, for instance linux/arm64; default: linux and the node's architecture",
};
const PLAIN_HTTP: Attribute = Attribute {
    name: "plainHttp",
    meaning: "\"true\" speaks plain HTTP with the registry, which the node's operator must have allowed",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "oci",
    forms: &["oci://registry/repository:tag"],
    attributes: &[REVISION, PLATFORM, PLAIN_HTTP],
    place_keys: &[],
    claims: |uri| uri.scheme().as_str() == "oci",
    open: |uri, options, credentials, context| Ok(Arc::new(Oci::open(uri, options, credentials, context)?)),
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

#[derive(Debug)]
struct Oci {
    uri: ModelUri,
    reference: Reference,
    platform: Platform,
    /// Asked for manifests, and for who may read; and for what no mirror has.
    registry: Registry,
    mirrors: Vec<Mirror>,
    shared: RegistryMirrors,
    failures: Failures,
}

#[derive(Debug)]
struct Mirror {
    registry: Registry,
    base: Url,
    resolves: bool,
    /// Blobs that it does not have, or not as they should be.
    missing: Mutex<HashSet<Digest>>,
}

impl Oci {
    fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, text);
        let option = |attribute: Attribute| options.get(attribute.name).map(|value| value.trim());
        let reference = Reference::parse(uri, option(REVISION))?;
        let platform = match option(PLATFORM) {
            Some(text) => text.parse().map_err(|problem| invalid(format!("{}: {problem}", PLATFORM.name)))?,
            None => Platform::own(),
        };
        let plain_http = match option(PLAIN_HTTP) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(invalid(format!("{} is {other:?}: write \"true\" or \"false\"", PLAIN_HTTP.name)));
            }
        };
        if plain_http {
            context.policy.check_plain_http(&reference.registry).map_err(|error| error.within(uri))?;
        }
        let Logins { login, absence } = Logins::find(credentials, &reference)?;
        let failures = Failures { uri: uri.clone(), reference: reference.clone(), anonymous: login.is_none(), absence };
        let scheme = if plain_http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/v2/", reference.host()))
            .map_err(|_| invalid(format!("{uri} names no registry that can be asked")))?;
        let gate = |login, plain_http| Gate {
            registry: reference.registry.clone(),
            plain_http,
            login,
            policy: context.policy.clone(),
        };
        let registry = Registry::new(base, None, context.http.clone(), gate(login, plain_http), failures.clone());
        let mirrors = context.mirrors.of(&reference.registry).map(|(mirror, client)| {
            let (base, namespace) = (mirror.base().clone(), Some(reference.registry.clone()));
            // Whatever the caller brought was brought for the registry.
            let failures = Failures { anonymous: true, absence: None, ..failures.clone() };
            let registry = Registry::new(base.clone(), namespace, client.clone(), gate(None, false), failures);
            Mirror { registry, base, resolves: mirror.resolves(), missing: Mutex::default() }
        });
        let mirrors = mirrors.collect();
        Ok(Self { uri: uri.clone(), reference, platform, registry, mirrors, shared: context.mirrors.clone(), failures })
    }

    /// The mirrors that are believed, and the registry.
    fn authorities(&self) -> impl Iterator<Item = (&Registry, Option<&Mirror>)> {
        let believed = self.mirrors.iter().filter(|mirror| mirror.resolves && self.shared.is_up(&mirror.base));
        believed.map(|mirror| (&mirror.registry, Some(mirror))).chain([(&self.registry, None)])
    }

    /// What the first of the authorities says that has an answer; else what the registry says.
    async fn first<'a, T, F>(&'a self, ask: impl Fn(&'a Registry) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        for (registry, mirror) in self.authorities() {
            match (ask(registry).await, mirror) {
                (Err(error), Some(mirror)) => self.pass_over(mirror, &error),
                (answer, _) => return answer,
            }
        }
        Err(Error::new(ErrorKind::Internal, "no registry was asked"))
    }

    fn pass_over(&self, mirror: &Mirror, error: &Error) {
        debug!(mirror = mirror.registry.name(), error = error.report(), "the mirror does not serve it");
        if error.kind() == ErrorKind::Unavailable {
            self.shared.is_down(&mirror.base);
        }
    }

    /// The manifest that the URI names, or of it the one for the platform; and its digest.
    async fn manifest(&self) -> Result<(Digest, Manifest)> {
        let failed = |problem: String| Error::new(ErrorKind::FailedPrecondition, format!("{} {problem}", self.uri));
        let (digest, document) = self.document(&self.reference.version()).await?;
        let candidates = match document {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(candidates) => candidates,
        };
        let chosen = manifest::choose(&candidates, &self.platform).map_err(failed)?;
        match self.document(&Version::Digest(chosen)).await? {
            (digest, Document::Manifest(manifest)) => Ok((digest, manifest)),
            (_, Document::Index(_)) => Err(failed("is an index of indexes, which nobody makes".to_owned())),
        }
    }

    async fn document(&self, version: &Version) -> Result<(Digest, Document)> {
        let (digest, bytes) = self.first(|registry| self.download(registry, version)).await?;
        let document = manifest::parse(&bytes)
            .map_err(|problem| Error::new(ErrorKind::FailedPrecondition, format!("{} {problem}", self.uri)))?;
        Ok((digest, document))
    }

    async fn download(&self, registry: &Registry, version: &Version) -> Result<(Digest, Bytes)> {
        let headers = [(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))].into_iter().collect();
        let path = format!("manifests/{version}");
        let answer = registry.ask(Method::GET, &path, headers, &Asked::Manifest(version), true).await?;
        let declared = answer.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = read_all(answer, MAX_MANIFEST).await.map_err(|error| error.within(&self.uri))?;
        let digest = Digest::of(&bytes);
        let expected = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => declared,
        };
        match expected {
            Some(expected) if expected != digest => Err(self.failures.error(
                ErrorKind::Corrupt,
                format!("{} sent a manifest with the digest {digest} instead of {expected}", registry.name()),
            )),
            _ => Ok((digest, bytes)),
        }
    }

    async fn blob(&self, registry: &Registry, entry: &Entry, portion: &Portion) -> Result<ByteStream> {
        let mut headers = HeaderMap::new();
        portion::ask(portion, &mut headers);
        let path = format!("blobs/{}", blob_digest(entry)?);
        let answer = registry.ask(Method::GET, &path, headers, &Asked::Blob, true).await?;
        if let (Some(size), Some(there)) = (entry.size, total(&answer))
            && size != there
        {
            return Err(self.failures.error(
                ErrorKind::Corrupt,
                format!("{} has {there} bytes of a layer that has {size} by its manifest", registry.name()),
            ));
        }
        portion::receive(answer, portion, entry.size, &self.uri)
    }
}

#[async_trait]
impl Source for Oci {
    async fn list(&self) -> Result<Listing> {
        let (digest, manifest) = self.manifest().await?;
        let (items, exact) = layout::items(&manifest)
            .map_err(|problem| Error::new(ErrorKind::FailedPrecondition, format!("{} {problem}", self.uri)))?;
        let Reference { registry, repository, .. } = &self.reference;
        let store = format!("oci|{registry}|{repository}");
        Ok(Listing { store, revision: Some(digest.to_string()), items, exact })
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        let path = format!("blobs/{}", blob_digest(entry)?);
        // A redirect to a storage host is a yes: only who may read is led there.
        self.first(async |registry: &Registry| {
            registry.ask(Method::HEAD, &path, HeaderMap::new(), &Asked::Blob, false).await.map(drop)
        })
        .await
    }

    fn rights(&self) -> Rights {
        Rights::Model
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let digest = blob_digest(entry)?;
        let start = match &portion {
            Portion::Whole => 0,
            Portion::Range(range) => range.start,
        };
        if !self.mirrors.is_empty() && self.shared.serve(digest, start) {
            for mirror in self.mirrors.iter().filter(|mirror| self.shared.is_up(&mirror.base)) {
                if missing(mirror).contains(&digest) {
                    continue;
                }
                match self.blob(&mirror.registry, entry, &portion).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => {
                        missing(mirror).insert(digest);
                        self.pass_over(mirror, &error);
                    }
                }
            }
        }
        self.blob(&self.registry, entry, &portion).await
    }
}

fn missing(mirror: &Mirror) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
    mirror.missing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `list` gave as the locator.
fn blob_digest(entry: &Entry) -> Result<Digest> {
    entry
        .locator
        .parse()
        .map_err(|error: Error| Error::with_source(ErrorKind::Internal, "a locator that listing did not give", error))
}

/// How many bytes the whole of an answer's file has, as far as it tells.
fn total(answer: &Response) -> Option<u64> {
    match answer.status() {
        StatusCode::PARTIAL_CONTENT => {
            answer.headers().get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
        }
        StatusCode::OK => answer.content_length(),
        _ => None,
    }
}
