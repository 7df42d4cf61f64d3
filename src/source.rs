//! Where models come from: the [`Source`] trait and the registry of its implementations.
//!
//! One file per source; a source never touches the cache. To add one, write `src/source/<name>.rs` and add its
//! [`Registration`] to [`registry`]. Every source passes the conformance suite in `tests/`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Entry, Listing, TOO_MANY};
use crate::policy::Policy;
use crate::uri::ModelUri;

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "file")]
mod file;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
#[allow(dead_code, reason = "no source needs all of it, and a build may have but one")]
pub mod fuzzing;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "git")]
mod git;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "huggingface")]
mod huggingface;
#[cfg(feature = "modelscope")]
mod modelscope;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod object;
#[cfg(feature = "oci")]
mod oci;
#[cfg(any(
    feature = "azure",
    feature = "git",
    feature = "http",
    feature = "huggingface",
    feature = "modelscope",
    feature = "oci"
))]
mod portion;
#[cfg(any(feature = "huggingface", feature = "modelscope"))]
mod repository;
#[cfg(feature = "s3")]
mod s3;

#[cfg(feature = "oci")]
pub use oci::{RegistryMirror, RegistryMirrors};

/// The bytes of one file, in order.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// What to read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portion {
    /// All of it, however long it is.
    Whole,
    /// These bytes, of a file whose size is known.
    Range(Range<u64>),
}

/// A place that holds one model, opened with the caller's credentials.
///
/// Implementations don't retry for long (the transfer does, with back-off), don't cache, and never fall back to
/// credentials other than those that they were given.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// Lists the model's files without reading them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such model, [`ErrorKind::Unauthenticated`] and
    /// [`ErrorKind::PermissionDenied`] when the source says so, [`ErrorKind::Unavailable`] when it can't be asked.
    async fn list(&self) -> Result<Listing>;

    /// Asks the source whether these credentials may read this file, which [`Source::list`] has named. Cheap: no
    /// content is read. Listing is a right of its own in most stores, so having listed proves nothing.
    ///
    /// # Errors
    /// As [`Source::list`].
    async fn authorize(&self, entry: &Entry) -> Result<()>;

    /// What the answer to [`Source::authorize`] holds for.
    fn rights(&self) -> Rights {
        Rights::File
    }

    /// Reads a file at exactly the version that `entry` names.
    ///
    /// The stream yields exactly the portion's bytes or ends in an error; for [`Portion::Whole`] of a file of unknown
    /// size its end is the file's end.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] when the source has another version by now; else as [`Source::list`].
    /// [`ErrorKind::RangesUnsupported`] when the server does not serve ranges of this file: the caller then reads the
    /// whole.
    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream>;
}

/// What a source gives rights to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The model: whoever may read one file of it may read all of them, as in a repository.
    Model,
    /// Each file by itself.
    File,
}

/// Settings of a source beside the URI (endpoint, region, …), by attribute name.
pub type Options = BTreeMap<String, String>;

/// An attribute that a source understands.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Name, as in `volumeAttributes`.
    pub name: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
}

/// Keys of a Secret that say where a model is, in place of what its URI stands for: a server, or a part of a path. Who
/// writes the Secret then decides what the URI means.
#[derive(Clone, Copy, Debug)]
pub struct PlaceKeys {
    /// The keys.
    pub names: &'static [&'static str],
    /// Attributes that come before them: where one of these has a value, the keys mean nothing.
    pub attributes: &'static [Attribute],
    /// Whether this URI, with the attributes of its volume, leaves it to them.
    pub concern: fn(&ModelUri, &Options) -> bool,
}

/// What all sources of a process share.
#[derive(Clone, Debug)]
pub struct Context {
    /// What requests may reach.
    pub policy: Policy,
    /// Connections, shared so that a publish does not pay for a new handshake.
    #[cfg(feature = "net")]
    pub http: crate::net::HttpClient,
    /// Who may serve the content of registries in their place.
    #[cfg(feature = "oci")]
    pub mirrors: RegistryMirrors,
}

impl Context {
    /// A context under `policy`.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] when the TLS stack can't be set up.
    pub fn new(policy: Policy) -> Result<Self> {
        Ok(Self {
            #[cfg(feature = "net")]
            http: crate::net::HttpClient::new(&policy, &crate::net::CaCertificates::default())?,
            #[cfg(feature = "oci")]
            mirrors: RegistryMirrors::default(),
            policy,
        })
    }

    /// The same for another model: what servers ask of whoever reads one (`Retry-After`) does not concern the others.
    pub(crate) fn apart(&self) -> Self {
        Self {
            #[cfg(feature = "net")]
            http: self.http.apart(),
            ..self.clone()
        }
    }

    /// A context under `policy` whose sources also trust `authorities`.
    ///
    /// # Errors
    /// As [`Self::new`].
    #[cfg(feature = "net")]
    pub fn trusting(policy: Policy, authorities: &crate::net::CaCertificates) -> Result<Self> {
        Ok(Self {
            http: crate::net::HttpClient::new(&policy, authorities)?,
            #[cfg(feature = "oci")]
            mirrors: RegistryMirrors::default(),
            policy,
        })
    }

    /// The same context, whose registries may be served by `mirrors`, in their order. Mirrors may have any address, also
    /// on this machine; `authorities` are trusted for them besides the system's.
    ///
    /// # Errors
    /// As [`Self::trusting`].
    #[cfg(feature = "oci")]
    pub fn with_registry_mirrors(
        self,
        mirrors: Vec<RegistryMirror>,
        authorities: &crate::net::CaCertificates,
    ) -> Result<Self> {
        Ok(Self { mirrors: RegistryMirrors::new(mirrors, &self.policy, authorities)?, ..self })
    }
}

/// A source's entry in the registry.
#[derive(Debug)]
pub struct Registration {
    /// Name of the source, and of its cargo feature.
    pub name: &'static str,
    /// Forms of URI that it reads, for messages and documentation.
    pub forms: &'static [&'static str],
    /// Attributes that it understands.
    pub attributes: &'static [Attribute],
    /// Keys of the Secret that lead it elsewhere.
    pub place_keys: &'static [PlaceKeys],
    /// Whether the URI is this source's. The first registration that claims a URI gets it.
    pub claims: fn(&ModelUri) -> bool,
    /// Opens a model. Checks the URI and the options; does no I/O.
    pub open: Open,
}

impl Registration {
    /// The first key of the Secret that says where this model is, with the attribute that says it instead; `None` if
    /// the URI and the attributes alone decide.
    pub fn place_key(
        &self,
        uri: &ModelUri,
        attributes: &Options,
        credentials: &Credentials,
    ) -> Option<(&'static str, Attribute)> {
        let given =
            |attribute: &Attribute| attributes.get(attribute.name).is_some_and(|value| !value.trim().is_empty());
        self.place_keys.iter().filter(|keys| (keys.concern)(uri, attributes)).find_map(|keys| {
            let name = keys.names.iter().find(|name| credentials.get(&[name]).is_some())?;
            let attribute = keys.attributes.first()?;
            (!keys.attributes.iter().any(given)).then_some((*name, *attribute))
        })
    }
}

/// Opens a model: checks its URI and options, takes the caller's credentials.
pub type Open = fn(&ModelUri, &Options, &Credentials, &Context) -> Result<Arc<dyn Source>>;

/// The sources that this build has, the most particular first.
pub fn registry() -> &'static [Registration] {
    &[
        #[cfg(feature = "s3")]
        s3::REGISTRATION,
        #[cfg(feature = "huggingface")]
        huggingface::REGISTRATION,
        #[cfg(feature = "oci")]
        oci::REGISTRATION,
        #[cfg(feature = "modelscope")]
        modelscope::REGISTRATION,
        #[cfg(feature = "gcs")]
        gcs::REGISTRATION,
        // Before http: it claims some https URLs.
        #[cfg(feature = "azure")]
        azure::REGISTRATION,
        #[cfg(feature = "git")]
        git::REGISTRATION,
        #[cfg(feature = "http")]
        http::REGISTRATION,
        #[cfg(feature = "hdfs")]
        hdfs::REGISTRATION,
        #[cfg(feature = "file")]
        file::REGISTRATION,
    ]
}

/// The source that reads `uri`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`], listing the forms that this build reads.
pub fn registration(uri: &ModelUri) -> Result<&'static Registration> {
    registry().iter().find(|registration| (registration.claims)(uri)).ok_or_else(|| {
        let forms: Vec<_> = registry().iter().flat_map(|registration| registration.forms).copied().collect();
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{uri}: no source reads the scheme {}://; this build reads {}", uri.scheme(), forms.join(", ")),
        )
    })
}

/// What a source says that lists more than [`Count`](crate::manifest::Count) takes.
#[allow(dead_code, reason = "a build may have no source that lists")]
fn too_many(uri: &ModelUri) -> Error {
    Error::new(ErrorKind::ResourceExhausted, format!("{uri} {TOO_MANY}: name a path further down"))
}

/// Ends a stream in an error unless it has exactly `expected` bytes (any number, if `None`), and never yields more.
#[cfg_attr(not(feature = "file"), allow(dead_code, reason = "a build with no source but `net` has no stream"))]
fn exactly(bytes: ByteStream, expected: Option<u64>, name: String) -> ByteStream {
    let Some(expected) = expected else { return bytes };
    let wrong = move |seen: &str| {
        let text = format!("{name}: the server sent {seen} bytes than the {expected} that were asked for");
        Err(Error::new(ErrorKind::Unavailable, text))
    };
    futures_util::stream::try_unfold((bytes, 0), move |(mut bytes, seen)| {
        let wrong = wrong.clone();
        async move {
            match bytes.try_next().await? {
                Some(chunk) if chunk.len() as u64 > expected - seen => wrong("more"),
                Some(chunk) => {
                    let seen = seen + chunk.len() as u64;
                    Ok(Some((chunk, (bytes, seen))))
                }
                None if seen < expected => wrong("fewer"),
                None => Ok(None),
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn an_unknown_scheme_is_told_what_there_is() {
        let error = registration(&ModelUri::parse("s4://bucket/m").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        for registration in registry() {
            assert!(error.to_string().contains(registration.forms[0]), "{error}");
        }
    }

    /// Each name in the sources' code is tried as a key of a Secret, so that no key that leads elsewhere is forgotten.
    #[test]
    fn a_secret_leads_elsewhere_by_no_other_keys_than_those_that_are_listed() {
        let mut names = BTreeSet::new();
        let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source")];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                    continue;
                }
                let text = fs::read_to_string(entry.path()).unwrap();
                let name = |text: &&str| {
                    text.len() > 3 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                };
                names.extend(text.split('"').filter(name).map(str::to_owned));
            }
        }
        for registration in registry() {
            for form in registration.forms {
                // With a port, it can't be the beginning of a path on another namenode.
                let uri = ModelUri::parse(&form.replace(":9870", "").replace(":9871", "")).unwrap();
                for name in &names {
                    let secrets: [Credentials; 2] =
                        ["elsewhere", "https://elsewhere.example"].map(|value| [(name, value)].into_iter().collect());
                    // Whether each Secret leads elsewhere, as far as it can be opened.
                    let led = |attributes: &Options| -> Vec<bool> {
                        let open = |secret| (registration.open)(&uri, attributes, secret, &fuzzing::CONTEXT);
                        let opened = secrets.iter().filter_map(|secret| open(secret).ok());
                        opened.map(|source| format!("{source:?}").contains("elsewhere")).collect()
                    };
                    let listed = registration.place_key(&uri, &Options::new(), &secrets[0]);
                    assert_eq!(led(&Options::new()).contains(&true), listed.is_some(), "{uri}: {name}");
                    let Some((_, attribute)) = listed else { continue };
                    let given = ["given", "https://given.example"].map(|value| {
                        let attributes = [(attribute.name.to_owned(), value.to_owned())].into();
                        assert!(registration.place_key(&uri, &attributes, &secrets[0]).is_none());
                        led(&attributes)
                    });
                    let given = given.concat();
                    assert!(given.contains(&false) && !given.contains(&true), "{uri}: {name}, {}", attribute.name);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_the_wrong_length_is_an_error() {
        let body =
            || futures_util::stream::iter(["ab", "cd"]).map(|text| Ok(Bytes::from_static(text.as_bytes()))).boxed();
        let read = async |expected| exactly(body(), expected, "m".into()).try_collect::<Vec<_>>().await;
        assert_eq!(read(Some(4)).await.unwrap().concat(), b"abcd");
        assert_eq!(read(None).await.unwrap().concat(), b"abcd");
        assert!(read(Some(5)).await.unwrap_err().to_string().contains("fewer"));
        assert!(read(Some(3)).await.unwrap_err().to_string().contains("more"));
    }
}
