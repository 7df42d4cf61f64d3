//! Manifests and indexes, as registries serve them (OCI image specification; Docker's schema 2 is the same in other
//! words). Pure: bytes in, checked values out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::manifest::Digest;

/// Largest manifest that is read. The specification lets registries refuse more than 4 MiB.
pub(super) const MAX_MANIFEST: usize = 8 << 20;

/// What manifests are asked for as.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                                 application/vnd.docker.distribution.manifest.v2+json, \
                                 application/vnd.docker.distribution.manifest.list.v2+json";

const MANIFESTS: &[&str] =
    &["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: &[&str] =
    &["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A checked document.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Vec<Candidate>),
}

/// One model.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) artifact_type: Option<String>,
    pub(super) config_type: String,
    pub(super) layers: Vec<Layer>,
}

/// A blob of a manifest.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A manifest of an index.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) digest: Digest,
    platform: Option<Platform>,
    /// Says something of another manifest of the index, and is no model.
    remark: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    urls: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

/// Go writes an empty list or map as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Parses a document.
///
/// # Errors
/// A clause that says what is wrong, to follow the name of the model.
pub(super) fn parse(bytes: &[u8]) -> Result<Document, String> {
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|error| format!("has a manifest that can't be read ({})", shown(&error.to_string())))?;
    if raw.schema_version == Some(1) {
        return Err("has a manifest of Docker's old schema 1: push it again with a tool of today".to_owned());
    }
    let of = |types: &[&str]| raw.media_type.as_deref().is_none_or(|own| types.contains(&own));
    // A document that could be read as both would be one model here and another one elsewhere (CVE-2021-41190).
    match (raw.config, raw.layers, raw.manifests) {
        (config, layers, None) if of(MANIFESTS) => {
            let config_type = config.map(|config| config.media_type).unwrap_or_default();
            let layers = layers.unwrap_or_default().into_iter().map(Layer::try_from).collect::<Result<_, _>>()?;
            Ok(Document::Manifest(Manifest { artifact_type: raw.artifact_type, config_type, layers }))
        }
        (None, None, Some(manifests)) if of(INDEXES) => {
            let candidates = manifests.into_iter().map(Candidate::try_from).collect::<Result<_, _>>()?;
            Ok(Document::Index(candidates))
        }
        _ => Err(format!(
            "has a manifest that is neither an image's nor an index (its media type is {:?})",
            shown(raw.media_type.as_deref().unwrap_or("not given"))
        )),
    }
}

impl TryFrom<RawDescriptor> for Layer {
    type Error = String;

    fn try_from(raw: RawDescriptor) -> Result<Self, String> {
        let RawDescriptor { media_type, size, urls, annotations, .. } = raw;
        let foreign = media_type.contains(".nondistributable.") || media_type.contains(".foreign.");
        if foreign || !urls.is_empty() {
            return Err(
                "has a layer that its registry does not keep (a foreign layer, with URLs of other hosts); those \
                        hosts are never asked: push the model with all its layers"
                    .to_owned(),
            );
        }
        if size > i64::MAX.unsigned_abs() {
            return Err(format!("has a layer of {size} bytes, which is no size of a file"));
        }
        Ok(Self { digest: digest(&raw.digest)?, media_type, size, annotations })
    }
}

impl TryFrom<RawDescriptor> for Candidate {
    type Error = String;

    fn try_from(raw: RawDescriptor) -> Result<Self, String> {
        // BuildKit's attestations: signatures and lists of parts of another manifest.
        let remark = raw.annotations.contains_key("vnd.docker.reference.type");
        let platform = raw.platform.map(|platform| Platform {
            // Some tools write what is not there as an empty string.
            variant: platform.variant.filter(|variant| !variant.is_empty()),
            ..platform
        });
        Ok(Self { digest: digest(&raw.digest)?, platform, remark })
    }
}

fn digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|_| {
        let known = ["sha512:", "sha384:", "blake3:"].iter().find(|algorithm| text.starts_with(**algorithm));
        match known {
            Some(algorithm) => {
                format!(
                    "names a part by {}, which is not supported: push it with sha256",
                    algorithm.trim_end_matches(':')
                )
            }
            None => format!("names a part by {:?}, which is no digest", shown(text)),
        }
    })
}

/// A server's text, as far as it may be shown.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// An operating system and an architecture, in Go's names.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The one that this program runs on.
    pub(super) fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    fn is_unknown(&self) -> bool {
        let unknown = |text: &str| text.is_empty() || text == "unknown";
        unknown(&self.os) && unknown(&self.architecture)
    }

    /// Whether a model for `other` is one for this. Without a variant, any will do.
    fn accepts(&self, other: &Self) -> bool {
        let variant = self.variant.is_none() || self.variant == other.variant;
        self.os == other.os && self.architecture == other.architecture && variant
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() < 2 && parts.iter().all(valid) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: variant.first().map(|variant| (*variant).to_owned()),
            }),
            _ => Err(format!("{:?} is not a platform such as linux/amd64 or linux/arm64/v8", shown(text))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{}", shown(variant)))
    }
}

/// The manifest of an index that is for `wanted`; the only one, if that is for no platform at all.
///
/// # Errors
/// A clause that says what there is, to follow the name of the model.
pub(super) fn choose(candidates: &[Candidate], wanted: &Platform) -> Result<Digest, String> {
    let models: Vec<&Candidate> = candidates.iter().filter(|candidate| !candidate.remark).collect();
    let known = |candidate: &Candidate| candidate.platform.clone().filter(|platform| !platform.is_unknown());
    let mut fitting: Vec<_> = models
        .iter()
        .filter_map(|candidate| known(candidate).filter(|own| wanted.accepts(own)).map(|own| (own, candidate.digest)))
        .collect();
    // Of several variants, the one that runs everywhere has none, or (arm64) is the lowest.
    fitting.sort_by(|(a, _), (b, _)| a.variant.cmp(&b.variant));
    match (fitting.first(), models.as_slice()) {
        (Some((_, digest)), _) => Ok(*digest),
        (None, [only]) if known(only).is_none() => Ok(only.digest),
        (None, []) => Err("is an index without manifests".to_owned()),
        (None, models) => {
            let there: Vec<String> = models.iter().take(20).filter_map(|one| Some(known(one)?.to_string())).collect();
            let there = if there.is_empty() { "several without a platform".to_owned() } else { there.join(", ") };
            Err(format!(
                "has no manifest for {wanted}, but {there}: set the attribute platform, or name one by its digest"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn descriptor(more: &Value) -> Value {
        let mut one = json!({"mediaType": "a/b", "size": 1, "digest": Digest::of("x").to_string()});
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    }

    fn parsed(document: &Value) -> Result<Document, String> {
        parse(document.to_string().as_bytes())
    }

    fn index(platforms: &[Option<&str>]) -> Vec<Candidate> {
        let manifests: Vec<Value> = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| {
                let mut more = json!({"digest": Digest::of(number.to_string()).to_string()});
                if let Some(text) = platform {
                    let parts: Vec<&str> = text.split('/').collect();
                    more["platform"] = json!({"os": parts[0], "architecture": parts[1], "variant": parts.get(2)});
                }
                descriptor(&more)
            })
            .collect();
        match parsed(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap() {
            Document::Index(candidates) => candidates,
            Document::Manifest(_) => panic!("it is an index"),
        }
    }

    #[test]
    fn both_kinds_are_read_and_nulls_are_nothing() {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFESTS[0], "artifactType": "x/y",
            "config": descriptor(&json!({"mediaType": "c/d"})),
            "layers": [descriptor(&json!({"annotations": {"k": "v"}, "urls": null})), descriptor(&json!({"annotations": null}))],
        });
        let Document::Manifest(manifest) = parsed(&manifest).unwrap() else { panic!("it is a manifest") };
        assert_eq!((manifest.artifact_type.as_deref(), manifest.config_type.as_str()), (Some("x/y"), "c/d"));
        assert_eq!((manifest.layers.len(), manifest.layers[0].annotations["k"].as_str()), (2, "v"));
        let empty = json!({"schemaVersion": 2, "config": descriptor(&json!({})), "layers": null});
        assert!(matches!(parsed(&empty).unwrap(), Document::Manifest(manifest) if manifest.layers.is_empty()));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let layer =
            |more: Value| json!({"schemaVersion": 2, "config": descriptor(&json!({})), "layers": [descriptor(&more)]});
        let hex = "a".repeat(63);
        for (document, hint) in [
            (json!([]), "can't be read"),
            (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
            (json!({"schemaVersion": 2, "layers": [], "manifests": []}), "neither"),
            (json!({"schemaVersion": 2, "mediaType": MANIFESTS[0], "manifests": []}), "neither"),
            (json!({"schemaVersion": 2, "mediaType": INDEXES[0], "layers": []}), "neither"),
            (json!({"schemaVersion": 2, "mediaType": "text/html\n", "layers": []}), "text/html\""),
            (layer(json!({"digest": "sha256:../../../etc/passwd"})), "is no digest"),
            (layer(json!({"digest": format!("sha256:{hex}A")})), "is no digest"),
            (layer(json!({"digest": format!("sha256:{hex}")})), "is no digest"),
            (layer(json!({"digest": format!("sha512:{}", "a".repeat(128))})), "sha512, which is not supported"),
            (layer(json!({"size": -1})), "can't be read"),
            (layer(json!({"size": u64::MAX})), "no size of a file"),
            (layer(json!({"urls": ["https://elsewhere.example/blob"]})), "never asked"),
            (layer(json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"})), "never asked"),
            (layer(json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"})), "never asked"),
        ] {
            let error = parsed(&document).unwrap_err();
            assert!(error.contains(hint) && error.len() < 400, "{document}: {error}");
        }
        assert!(parse(br#"{"layers": [], "layers": []}"#).unwrap_err().contains("duplicate"));
        assert!(parse(b"<html>").unwrap_err().contains("can't be read"));
    }

    #[test]
    fn an_index_gives_the_wanted_platform() {
        let digest = |number: usize| Digest::of(number.to_string());
        let choose = |platforms: &[Option<&str>], wanted: &str| choose(&index(platforms), &wanted.parse().unwrap());
        let both = [Some("linux/amd64"), Some("linux/arm64/v8")];
        assert_eq!(choose(&both, "linux/amd64"), Ok(digest(0)));
        assert_eq!(choose(&both, "linux/arm64"), Ok(digest(1)));
        assert_eq!(choose(&[Some("linux/amd64/v3"), Some("linux/amd64")], "linux/amd64"), Ok(digest(1)));
        assert_eq!(choose(&[Some("linux/amd64/v3"), Some("linux/amd64")], "linux/amd64/v3"), Ok(digest(0)));
        assert_eq!(choose(&[None], "linux/amd64"), Ok(digest(0)));
        assert_eq!(choose(&[Some("unknown/unknown")], "linux/amd64"), Ok(digest(0)));
        for (platforms, hint) in [
            (&[][..], "without manifests"),
            (&[None, None], "several without a platform"),
            (&both, "linux/amd64, linux/arm64/v8: set the attribute platform"),
            (&[Some("windows/amd64")], "windows/amd64"),
        ] {
            let error = choose(platforms, "linux/s390x").unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
        for bad in ["", "linux", "linux/", "linux/a/b/c", "linux/amd64/", "../x"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
        assert!(!Platform::own().is_unknown());
    }

    #[test]
    fn an_attestation_is_no_model() {
        let attestation = descriptor(&json!({
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        }));
        let model = descriptor(&json!({"digest": Digest::of("model").to_string(), "platform": null}));
        let document = json!({"schemaVersion": 2, "manifests": [attestation, model]});
        let Document::Index(candidates) = parsed(&document).unwrap() else { panic!("it is an index") };
        assert_eq!(choose(&candidates, &Platform::own()), Ok(Digest::of("model")));
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":, a-z0-9]{0,80}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
            let _ = text.parse::<Platform>();
        }
    }
}
