//! Google Cloud Storage: `gs://bucket`, `gs://bucket/prefix`, `gs://bucket/object`.
//!
//! Rights needed: `storage.objects.list` and `storage.objects.get` (the role Storage Object Viewer); for a single
//! object `get` alone. Reads are pinned by ETag. Objects that are stored with `Content-Encoding: gzip` are refused:
//! Google's servers would decompress them on the way.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};

use super::object::{
    self, Connector, Dialect, Failures, Key, Meaning, Objects, Store, Tokens, parse_endpoint, setting,
};
use super::{Attribute, Context, Options, Registration};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::ModelUri;

mod application;

#[cfg(any(fuzzing, test))]
pub(super) use application::fuzzing;

const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of another server that speaks Google's XML API, for instance https://gcs.example; default: Google's",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "gcs",
    forms: &["gs://bucket/path"],
    attributes: &[ENDPOINT],
    place_keys: &[],
    claims: |uri| uri.scheme().as_str() == "gs",
    open: |uri, options, credentials, context| Ok(Arc::new(open(uri, options, credentials, context)?)),
};

const GOOGLE: &str = "https://storage.googleapis.com";

const DIALECT: Dialect = Dialect {
    server: "Google Cloud Storage",
    container: "bucket",
    keys: application::KEY,
    rights: "storage.objects.list and storage.objects.get (the role Storage Object Viewer)",
    elsewhere: "not served there; check the attribute endpoint",
    codes: &[
        ("NoSuchBucket", Meaning::NoContainer),
        ("AuthenticationRequired", Meaning::WrongCredentials),
        ("InvalidSecurity", Meaning::WrongCredentials),
        ("ExpiredToken", Meaning::Expired),
        ("RequestTimeTooSkewed", Meaning::Clock),
    ],
};

fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Objects> {
    let bucket = object::bucket(uri)?;
    let key = Key::parse(uri, uri.path())?;
    let endpoint = setting(options, credentials, ENDPOINT, &[])
        .map(|endpoint| parse_endpoint(&endpoint, "https://gcs.example:4443"))
        .transpose()?;
    let issuer = application::read(credentials, endpoint.as_deref(), context)?;
    let place = endpoint.unwrap_or_else(|| GOOGLE.to_owned());

    let anonymous = issuer.is_none();
    let provider: GcpCredentialProvider = match issuer {
        Some(issuer) => Arc::new(Tokens::new(issuer, |bearer| GcpCredential { bearer })),
        // Without a provider, the machine's own credentials would be looked for, even if nothing is to be signed.
        None => Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: String::new() })),
    };
    let store = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_base_url(&place)
        .with_credentials(provider)
        .with_skip_signature(anonymous)
        .with_http_connector(Connector::new(context.http.clone()))
        .with_retry(object::retry())
        .build()
        .map_err(|error| Error::with_source(ErrorKind::InvalidArgument, format!("{uri} can't be opened"), error))?;
    let identity = format!("gcs|{place}|{bucket}");
    let failures = Failures { uri: uri.clone(), container: bucket.to_owned(), place, anonymous, dialect: &DIALECT };
    Ok(Objects { store: Store::new(store), failures, identity, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn opened(uri: &str, endpoint: Option<&str>, secrets: &[(&str, &str)]) -> Result<Objects> {
        let options = endpoint.map(|endpoint| ("endpoint".to_owned(), endpoint.to_owned())).into_iter().collect();
        let credentials = secrets.iter().copied().collect();
        open(&ModelUri::parse(uri)?, &options, &credentials, &Context::new(Policy::default())?)
    }

    #[test]
    fn wrong_settings_are_named() {
        for (uri, endpoint, secrets, hint) in [
            ("gs://b u/m", None, &[][..], "bucket's name"),
            ("gs://b/m//n", None, &[], "component"),
            ("gs://b/m", Some("gcs"), &[], "endpoint"),
            ("gs://b/m", None, &[(application::KEY, "{}")], application::KEY),
        ] {
            let error = opened(uri, endpoint, secrets).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.report().contains(hint), "{uri}: {}", error.report());
        }
    }

    /// Persistent volumes are pinned to what is made of it.
    #[test]
    fn the_identity_is_the_same_for_ever() {
        assert_eq!(opened("gs://b/m", None, &[]).unwrap().identity, "gcs|https://storage.googleapis.com|b");
        let own = opened("gs://b", Some("http://gcs:4443/"), &[]).unwrap();
        assert_eq!(own.identity, "gcs|http://gcs:4443|b");
    }
}
