//! What a user asks for: a model, or several in one volume, by the attributes of the volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Entry, Manifest, RelPath};
use crate::select::Selection;
use crate::source::{self, ByteStream, Context, Options, Portion, Registration, Rights, Source};
use crate::unpack::Archives;
use crate::uri::ModelUri;

/// Attribute: the model's URI.
pub const MODEL_URI: &str = "modelUri";
/// Attribute: several models, as a JSON list of `{"uri": "s3://…", "path": "directory"}`.
pub const MODEL_URIS: &str = "modelUris";
/// Attribute: files to take.
pub const ALLOW_PATTERNS: &str = "allowPatterns";
/// Attribute: files to leave.
pub const IGNORE_PATTERNS: &str = "ignorePatterns";
/// Attribute: what becomes of an archive; see [`Archives`].
pub const UNPACK: &str = "unpack";
/// Attribute: the digest that the model must have.
pub const DIGEST: &str = "digest";

/// Attribute: the version that the model must have at its source, as [`Manifest::id`] tells it. A volume that was made
/// from a claim has it, so that every node mounts what the claim was given, or nothing.
pub const PIN: &str = "pin";

/// Attribute of the sources that have revisions. In a volume of several models each URI names its own.
const REVISION: &str = "revision";

const COMMON: &[&str] = &[MODEL_URI, MODEL_URIS, ALLOW_PATTERNS, IGNORE_PATTERNS, UNPACK, DIGEST, PIN];

/// Most questions at once of one [`Model::authorize`].
const QUESTIONS: usize = 16;

/// Most models of one volume. Each costs at least one request whenever the volume is published.
pub const MAX_MODELS: usize = 64;

/// One volume's content as a user asks for it, checked as far as that goes without asking a source.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// Never empty.
    parts: Vec<Part>,
    selection: Selection,
    archives: Archives,
    digest: Option<Digest>,
    pin: Option<Digest>,
}

/// One model of a volume.
#[derive(Clone, Debug)]
struct Part {
    uri: ModelUri,
    /// The directory of the volume that it is laid out in; `None` is the volume's root.
    below: Option<RelPath>,
    options: Options,
}

impl ModelRequest {
    /// Reads the attributes of a volume. Every attribute must be one that modelmount or the source of a URI knows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the attribute and what to change.
    pub fn from_attributes(attributes: &BTreeMap<String, String>) -> Result<Self> {
        let get = |key: &str| attributes.get(key).map(String::as_str);
        let models = match (get(MODEL_URI), get(MODEL_URIS)) {
            (Some(uri), None) => vec![(ModelUri::parse(uri).map_err(|error| error.within(MODEL_URI))?, None)],
            (None, Some(list)) => parse_list(list).map_err(|error| error.within(MODEL_URIS))?,
            (Some(_), Some(_)) => {
                return Err(invalid(format!("both {MODEL_URI} and {MODEL_URIS} are given: keep one of them")));
            }
            (None, None) => return Err(no_uri(attributes)),
        };
        let several = models.len() > 1;
        let mut parts = Vec::new();
        for (uri, below) in models {
            let registration = source::registration(&uri)?;
            parts.push((Part { uri, below, options: Options::new() }, registration));
        }
        for (key, value) in attributes {
            if COMMON.contains(&key.as_str()) {
                continue;
            }
            if several && key == REVISION {
                let text = format!("the attribute {REVISION} does not say whose: write @revision into the URIs");
                return Err(invalid(text));
            }
            let mut whose: Option<&str> = None;
            for (part, registration) in &mut parts {
                if registration.attributes.iter().any(|attribute| attribute.name == key) {
                    match whose.replace(registration.name) {
                        // One of them would be asked, and be shown its credentials, where only the other one is.
                        Some(other) if other != registration.name => {
                            return Err(ambiguous_attribute(key, other, registration.name));
                        }
                        _ => part.options.insert(key.clone(), value.clone()),
                    };
                }
            }
            if whose.is_none() {
                return Err(unknown_attribute(key, parts.iter().map(|(_, registration)| *registration)));
            }
        }
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        let digest = |key| get(key).map(str::parse).transpose().map_err(|error: Error| error.within(key));
        let (digest, pin) = (digest(DIGEST)?, digest(PIN)?);
        let selection = Selection::parse(get(ALLOW_PATTERNS), get(IGNORE_PATTERNS))?;
        let archives = get(UNPACK).map(str::parse).transpose().map_err(|error: Error| error.within(UNPACK))?;
        Ok(Self { parts, selection, archives: archives.unwrap_or_default(), digest, pin })
    }

    /// The URIs; at least one.
    pub fn uris(&self) -> impl Iterator<Item = &ModelUri> {
        self.parts.iter().map(|part| &part.uri)
    }

    /// What to call it: its URI, as it may be shown; of several, all.
    pub fn name(&self) -> String {
        let names: Vec<_> = self.uris().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// The digest that the model must have, if the user named one: see [`crate::content::content_digest`]; for a
    /// model of one file, that file's SHA-256 will do.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Opens the model's sources with the caller's credentials. No I/O.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for options or credentials of wrong form.
    pub fn open(&self, credentials: &Credentials, context: &Context) -> Result<Model> {
        let context = &context.apart();
        let open =
            |part: &Part| (source::registration(&part.uri)?.open)(&part.uri, &part.options, credentials, context);
        let sources = self.parts.iter().map(open).collect::<Result<_>>()?;
        Ok(Model { sources, credentials: Some(Arc::new(credentials.clone())) })
    }

    /// Asks the sources what the model consists of.
    ///
    /// # Errors
    /// Those of [`Source::list`], [`Manifest::build`] and [`Manifest::join`]; [`ErrorKind::FailedPrecondition`] when the
    /// source has another version than the one that the request is pinned to.
    pub async fn resolve(&self, model: &Model) -> Result<Manifest> {
        let listings = try_join_all(model.sources.iter().map(|source| source.list())).await?;
        let build = |(part, listing): (&Part, _)| {
            let manifest = Manifest::build(&part.uri, listing, &self.selection, self.archives)?;
            Ok((part.below.clone(), manifest))
        };
        let manifest = Manifest::join(self.parts.iter().zip(listings).map(build).collect::<Result<_>>()?)?;
        match self.pin {
            Some(_) if !manifest.tells_versions() => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "{} is pinned to a version, and its source tells no versions apart: give the attribute {DIGEST} in \
                     place of {PIN}",
                    self.name()
                ),
            )),
            Some(pin) if pin != manifest.id() => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "{} is pinned to the version {pin}, and its source has the version {} by now: put the pinned one \
                     back, or make a new volume",
                    self.name(),
                    manifest.id()
                ),
            )),
            _ => Ok(manifest),
        }
    }
}

/// A model whose sources were opened with somebody's credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model {
    /// Never empty. Files say by [`Entry::part`] whose they are.
    sources: Arc<[Arc<dyn Source>]>,
    /// What they were opened with, if that is known.
    credentials: Option<Arc<Credentials>>,
}

impl Model {
    /// The sources, in the order of the request's URIs.
    pub fn sources(&self) -> &[Arc<dyn Source>] {
        &self.sources
    }

    /// The files of `manifest` that [`Self::authorize`] has to be asked about, before somebody is given them from a cache:
    /// all of them; of a source that gives rights to the model as a whole, the largest.
    pub fn witnesses(&self, manifest: &Manifest) -> Vec<Arc<Entry>> {
        let is_whole = |entry: &&Arc<Entry>| self.source(entry).is_ok_and(|source| source.rights() == Rights::Model);
        let (whole, mut witnesses): (Vec<_>, Vec<_>) = manifest.entries().iter().partition(is_whole);
        let mut largest = BTreeMap::new();
        for entry in whole {
            let known = largest.entry(entry.part).or_insert(entry);
            if entry.size > known.size {
                *known = entry;
            }
        }
        witnesses.extend(largest.into_values());
        witnesses.into_iter().cloned().collect()
    }

    /// Asks the sources whether these credentials may read these files: one question for each.
    ///
    /// # Errors
    /// As [`Source::authorize`].
    pub async fn authorize(&self, witnesses: &[Arc<Entry>]) -> Result<()> {
        let questions = stream::iter(witnesses).map(Ok);
        questions
            .try_for_each_concurrent(QUESTIONS, |entry| async move { self.source(entry)?.authorize(entry).await })
            .await
    }

    /// Whether sources can't tell the two apart: they are one, or were opened with the same credentials.
    pub(crate) fn is_same_caller(&self, other: &Self) -> bool {
        let same_credentials = self.credentials.is_some() && self.credentials == other.credentials;
        same_credentials || Arc::ptr_eq(&self.sources, &other.sources)
    }

    /// Reads a file: see [`Source::read`].
    ///
    /// # Errors
    /// As [`Source::read`].
    pub async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        self.source(entry)?.read(entry, portion).await
    }

    fn source(&self, entry: &Entry) -> Result<&Arc<dyn Source>> {
        let lost = || Error::new(ErrorKind::Internal, format!("\"{}\" is of another model", entry.path));
        self.sources.get(entry.part).ok_or_else(lost)
    }
}

impl From<Arc<dyn Source>> for Model {
    fn from(source: Arc<dyn Source>) -> Self {
        Self { sources: Arc::new([source]), credentials: None }
    }
}

/// An element of the attribute `modelUris`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    uri: String,
    #[serde(default)]
    path: String,
}

fn parse_list(text: &str) -> Result<Vec<(ModelUri, Option<RelPath>)>> {
    const FORM: &str = r#"write a JSON list such as [{"uri":"s3://bucket/model","path":"base"}]"#;
    let listed: Vec<Listed> =
        serde_json::from_str(text).map_err(|error| Error::with_source(ErrorKind::InvalidArgument, FORM, error))?;
    if listed.is_empty() || listed.len() > MAX_MODELS {
        return Err(invalid(format!("the list has {} models: give 1 to {MAX_MODELS}", listed.len())));
    }
    listed
        .into_iter()
        .map(|Listed { uri, path }| {
            let path = path.trim_end_matches('/');
            let below = if matches!(path, "" | ".") { None } else { Some(RelPath::parse(path)?) };
            Ok((ModelUri::parse(&uri)?, below))
        })
        .collect()
}

fn no_uri(attributes: &BTreeMap<String, String>) -> Error {
    let hint = attributes.keys().find(|key| is_misspelt(key, MODEL_URI) || is_misspelt(key, MODEL_URIS));
    let hint = hint.map(|key| format!(" (there is \"{key}\")")).unwrap_or_default();
    invalid(format!("no attribute \"{MODEL_URI}\"{hint}: give the model's URI, for instance s3://bucket/model"))
}

fn unknown_attribute(key: &str, registrations: impl Iterator<Item = &'static Registration>) -> Error {
    let own = registrations.flat_map(|registration| registration.attributes).map(|attribute| attribute.name);
    let mut known = COMMON.to_vec();
    for name in own {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    let advice = match known.iter().find(|name| is_misspelt(key, name)) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known here are {}", known.join(", ")),
    };
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    invalid(format!("unknown attribute \"{shown}\": {advice}"))
}

fn ambiguous_attribute(key: &str, one: &str, other: &str) -> Error {
    invalid(format!(
        "the attribute {key} does not say whose: the sources {one} and {other} both have it; put their models into \
         volumes of their own, or say it by a key of the Secret that only one of them has"
    ))
}

/// Whether `typed` is `name` but for letter case, punctuation, or one letter.
fn is_misspelt(typed: &str, name: &str) -> bool {
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (typed, name) = (plain(typed), plain(name));
    let common_start = typed.iter().zip(&name).take_while(|(a, b)| a == b).count();
    let common_end = typed.iter().rev().zip(name.iter().rev()).take_while(|(a, b)| a == b).count();
    let longer = typed.len().max(name.len());
    typed.len().abs_diff(name.len()) <= 1 && common_start + common_end + 1 >= longer
}

fn invalid(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, context)
}

// With a source that any test may name.
#[cfg(all(test, feature = "file"))]
mod tests {
    use super::*;

    fn request(attributes: &[(&str, &str)]) -> Result<ModelRequest> {
        ModelRequest::from_attributes(&attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn mistakes_are_named_with_their_mending() {
        for (attributes, hint) in [
            (&[][..], "no attribute \"modelUri\""),
            (&[("modelURI", "s3://b/m")], "there is \"modelURI\""),
            (&[("modelUri", "nonsense")], "modelUri: \"nonsense\" is not a model URI"),
            (&[("modelUri", "s4://b/m")], "no source reads the scheme s4://"),
            (&[("modelUri", "file:///m"), ("allowPattern", "*")], "did you mean \"allowPatterns\"?"),
            (&[("modelUri", "file:///m"), ("Allow-Patterns", "*")], "did you mean \"allowPatterns\"?"),
            (&[("modelUri", "file:///m"), ("regoin", "x")], "known here are modelUri, modelUris, allowPatterns"),
            (&[("modelUri", "file:///m"), ("unpack", "yes")], "unpack: \"yes\" is no way to unpack"),
            (&[("modelUri", "file:///m"), ("modelUris", "[]")], "both modelUri and modelUris"),
            (&[("modelUris", "[]")], "modelUris: the list has 0 models"),
            (&[("modelUris", "s3://b/m")], "modelUris: write a JSON list"),
            (&[("modelUris", r#"[{"url":"file:///m"}]"#)], "modelUris: write a JSON list"),
            (&[("modelUris", r#"[{"uri":"file:///m","path":"../x"}]"#)], "a component \".\" or \"..\""),
            (&[("modelUris", r#"[{"uri":"nonsense"}]"#)], "modelUris: \"nonsense\" is not a model URI"),
            (&[("modelUris", r#"[{"uri":"file:///m"},{"uri":"file:///n"}]"#), ("revision", "x")], "@revision"),
            (&[("modelUri", "file:///m"), ("digest", "md5:x")], "digest: a digest is written"),
            (&[("modelUri", "file:///m"), ("pin", "main")], "pin: a digest is written"),
            (&[("modelUri", "file:///m"), ("ignorePatterns", "[a")], "ignorePatterns"),
        ] {
            let error = request(attributes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(hint), "{attributes:?}: {error}");
        }
        assert!(request(&[("modelUri", "file:///m"), ("allowPatterns", "*.json")]).is_ok());
    }

    #[cfg(all(feature = "s3", feature = "huggingface"))]
    #[test]
    fn an_attribute_is_for_the_models_of_one_source() {
        let given = |uris: [&str; 2], key| {
            let list = format!(r#"[{{"uri":"{}"}},{{"uri":"{}","path":"b"}}]"#, uris[0], uris[1]);
            request(&[("modelUris", &list), (key, "http://minio:9000")])
        };
        for uris in [["s3://b/m", "hf://o/m"], ["hf://o/m", "s3://b/m"]] {
            let error = given(uris, "endpoint").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            for part in ["the attribute endpoint", "s3", "huggingface", "volumes of their own"] {
                assert!(error.to_string().contains(part), "{error}");
            }
            assert!(given(uris, "region").is_ok());
        }
        let request = given(["s3://b/m", "s3://b/n"], "endpoint").unwrap();
        assert!(request.parts.iter().all(|part| part.options.contains_key("endpoint")));
        let request = given(["s3://b/m", "file:///m"], "endpoint").unwrap();
        assert!(request.parts[0].options.contains_key("endpoint") && request.parts[1].options.is_empty());
    }

    #[test]
    fn a_list_names_a_directory_for_each_model() {
        let list = r#"[{"uri":"file:///base"},{"uri":"file:///lora","path":"adapters/lora/"}]"#;
        let request = request(&[("modelUris", list)]).unwrap();
        assert_eq!(request.name(), "file:///base, file:///lora");
        let below: Vec<_> = request.parts.iter().map(|part| part.below.as_ref().map(RelPath::as_str)).collect();
        assert_eq!(below, [None, Some("adapters/lora")]);
    }
}
