//! What a user asks for: one model, by the attributes of a volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, Manifest};
use crate::select::Selection;
use crate::source::{self, Context, Options, Source};
use crate::uri::ModelUri;

/// Attribute: the model's URI.
pub const MODEL_URI: &str = "modelUri";
/// Attribute: files to take.
pub const ALLOW_PATTERNS: &str = "allowPatterns";
/// Attribute: files to leave.
pub const IGNORE_PATTERNS: &str = "ignorePatterns";
/// Attribute: the digest that the model must have.
pub const DIGEST: &str = "digest";

/// Attribute: the version that the model must have at its source, as [`Manifest::id`] tells it. A volume that was made
/// from a claim has it, so that every node mounts what the claim was given, or nothing.
pub const PIN: &str = "pin";

const COMMON: &[&str] = &[MODEL_URI, ALLOW_PATTERNS, IGNORE_PATTERNS, DIGEST, PIN];

/// One model as a user asks for it, checked as far as that goes without asking the source.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    uri: ModelUri,
    selection: Selection,
    digest: Option<Digest>,
    pin: Option<Digest>,
    options: Options,
}

impl ModelRequest {
    /// Reads the attributes of a volume. Every attribute must be one that modelmount or the URI's source knows.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the attribute and what to change.
    pub fn from_attributes(attributes: &BTreeMap<String, String>) -> Result<Self> {
        let get = |key: &str| attributes.get(key).map(String::as_str);
        let Some(uri) = get(MODEL_URI) else {
            let hint = attributes.keys().find(|key| is_misspelt(key, MODEL_URI));
            let hint = hint.map(|key| format!(" (there is \"{key}\")")).unwrap_or_default();
            return Err(invalid(format!(
                "no attribute \"{MODEL_URI}\"{hint}: give the model's URI, for instance s3://bucket/model"
            )));
        };
        let uri = ModelUri::parse(uri).map_err(|error| error.within(MODEL_URI))?;
        let registration = source::registration(&uri)?;
        let mut options = Options::new();
        for (key, value) in attributes {
            if COMMON.contains(&key.as_str()) {
                continue;
            }
            if !registration.attributes.iter().any(|attribute| attribute.name == key) {
                return Err(unknown_attribute(key, &uri, registration));
            }
            options.insert(key.clone(), value.clone());
        }
        let digest = |key| get(key).map(str::parse).transpose().map_err(|error: Error| error.within(key));
        let (digest, pin) = (digest(DIGEST)?, digest(PIN)?);
        let selection = Selection::parse(get(ALLOW_PATTERNS), get(IGNORE_PATTERNS))?;
        Ok(Self { uri, selection, digest, pin, options })
    }

    /// The model's URI.
    pub fn uri(&self) -> &ModelUri {
        &self.uri
    }

    /// The digest that the model must have, if the user named one: see [`crate::content::content_digest`]; for a
    /// model of one file, that file's SHA-256 will do.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Opens the model's source with the caller's credentials. No I/O.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for options or credentials of wrong form.
    pub fn open(&self, credentials: &Credentials, context: &Context) -> Result<Arc<dyn Source>> {
        (source::registration(&self.uri)?.open)(&self.uri, &self.options, credentials, context)
    }

    /// Asks the source what the model consists of.
    ///
    /// # Errors
    /// Those of [`Source::list`] and [`Manifest::build`]; [`ErrorKind::FailedPrecondition`] when the source has another
    /// version than the one that the request is pinned to.
    pub async fn resolve(&self, source: &dyn Source) -> Result<Manifest> {
        let manifest = Manifest::build(&self.uri, source.list().await?, &self.selection)?;
        match self.pin {
            Some(pin) if pin != manifest.id() => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "{} is pinned to the version {pin}, and its source has the version {} by now: put the pinned one \
                     back, or make a new volume",
                    self.uri,
                    manifest.id()
                ),
            )),
            _ => Ok(manifest),
        }
    }
}

fn unknown_attribute(key: &str, uri: &ModelUri, registration: &source::Registration) -> Error {
    let own = registration.attributes.iter().map(|attribute| attribute.name);
    let known: Vec<&str> = COMMON.iter().copied().chain(own).collect();
    let advice = match known.iter().find(|name| is_misspelt(key, name)) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("{}:// knows {}", uri.scheme(), known.join(", ")),
    };
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    invalid(format!("unknown attribute \"{shown}\": {advice}"))
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

#[cfg(test)]
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
            (&[("modelUri", "file:///m"), ("region", "x")], "file:// knows modelUri, allowPatterns"),
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
}
