//! Amazon S3 and compatible stores: `s3://bucket`, `s3://bucket/prefix`, `s3://bucket/key`.
//!
//! Rights needed: `s3:ListBucket` on the prefix and `s3:GetObject`; for a single object `GetObject` alone.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder};

use super::object::{self, Connector, Dialect, Failures, Key, Meaning, Objects, Store};
use super::{Attribute, Context, Options, PlaceKeys, Registration};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::ModelUri;

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod settings;

use settings::{REGION_KEYS, Settings};

const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of the S3 server, for instance https://minio.example:9000; default: Amazon's for the region",
};
const REGION: Attribute =
    Attribute { name: "region", meaning: "the bucket's region; default us-east-1, or what the server says" };
const ADDRESSING: Attribute = Attribute {
    name: "addressingStyle",
    meaning: "\"path\" or \"virtual\"; default: path with an endpoint, and for a bucket whose name has a dot, an upper-case \
              letter or an underscore; else virtual",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "s3",
    forms: &["s3://bucket/path"],
    attributes: &[ENDPOINT, REGION, ADDRESSING],
    place_keys: &[
        PlaceKeys { names: &["AWS_ENDPOINT_URL", "S3_ENDPOINT"], attributes: &[ENDPOINT], concern: |_, _| true },
        // At Amazon, the region is a part of the server's name.
        PlaceKeys {
            names: REGION_KEYS,
            attributes: &[REGION],
            concern: |_, attributes| attributes.get(ENDPOINT.name).is_none_or(|endpoint| settings::is_amazon(endpoint)),
        },
    ],
    claims: |uri| uri.scheme().as_str() == "s3",
    open: |uri, options, credentials, context| Ok(Arc::new(open(uri, options, credentials, context)?)),
};

const DIALECT: Dialect = Dialect {
    server: "an S3 server",
    container: "bucket",
    keys: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    rights: "s3:ListBucket on the prefix and s3:GetObject",
    elsewhere: "in another region than the request names; set the attribute region",
    codes: &[
        ("NoSuchBucket", Meaning::NoContainer),
        ("InvalidAccessKeyId", Meaning::WrongCredentials),
        ("SignatureDoesNotMatch", Meaning::WrongCredentials),
        ("InvalidToken", Meaning::WrongCredentials),
        ("InvalidSecurity", Meaning::WrongCredentials),
        // versitygw's.
        ("XAdminUserNotFound", Meaning::WrongCredentials),
        ("ExpiredToken", Meaning::Expired),
        ("TokenRefreshRequired", Meaning::Expired),
        ("RequestTimeTooSkewed", Meaning::Clock),
        ("PermanentRedirect", Meaning::Elsewhere),
        ("AuthorizationHeaderMalformed", Meaning::Elsewhere),
    ],
};

fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Objects> {
    let bucket = object::bucket(uri)?;
    let key = Key::parse(uri, uri.path())?;
    let settings = Settings::read(bucket, options, credentials, context)?;
    let region = settings.region.clone();
    let place = settings.endpoint.clone().unwrap_or_else(|| format!("https://{}", settings::amazon_host(&region)));
    let identity = format!("s3|{place}|{bucket}{}", settings.mark);
    let (container, anonymous) = (bucket.to_owned(), settings.credential.is_none());
    let failures = Failures { uri: uri.clone(), container, place, anonymous, dialect: &DIALECT };
    let (uri, bucket) = (uri.clone(), bucket.to_owned());
    let open = move |region: &str| -> Result<Arc<dyn ObjectStore>> {
        let store = store(&settings, &bucket, region);
        let refused = |error| Error::with_source(ErrorKind::InvalidArgument, format!("{uri} can't be opened"), error);
        Ok(Arc::new(store.map_err(refused)?))
    };
    Ok(Objects { store: Store::in_region(region, open)?, failures, identity, key })
}

/// The bucket as it is asked in a region.
fn store(settings: &Settings, bucket: &str, region: &str) -> object_store::Result<AmazonS3> {
    let url = url(settings, bucket, region);
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(settings.virtual_hosted || settings.accelerate)
        .with_allow_http(url.starts_with("http://"))
        .with_endpoint(url)
        .with_http_connector(Connector::new(settings.client.clone()))
        .with_retry(object::retry());
    let signed = match &settings.credential {
        Some(credential) => builder.with_credentials(Arc::clone(credential) as _),
        None => builder.with_skip_signature(true),
    };
    signed.build()
}

/// Whom to ask; with the bucket in the host's name if that is where it belongs.
fn url(settings: &Settings, bucket: &str, region: &str) -> String {
    let amazon = settings::amazon_host(region);
    match &settings.endpoint {
        Some(endpoint) if settings.virtual_hosted => with_bucket_host(endpoint, bucket),
        Some(endpoint) => endpoint.clone(),
        // Another way to the same bucket, whose content it is known by.
        None if settings.accelerate => format!("https://{bucket}.s3-accelerate.amazonaws.com"),
        None if settings.virtual_hosted => format!("https://{bucket}.{amazon}"),
        None => format!("https://{amazon}"),
    }
}

/// `object_store` wants the bucket inside a virtual-hosted endpoint.
fn with_bucket_host(endpoint: &str, bucket: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let already = rest.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'));
    if already { endpoint.to_owned() } else { format!("{scheme}://{bucket}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    /// Nobody has its key.
    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBQDCB86ADAgECAhQLkfYUVKwQLPlrRKfd0g4hXJ6lIDAFBgMrZXAwFTETMBEG
A1UEAwwKbW9kZWxtb3VudDAgFw0yNjExMjMwMjUwNTlaGA8yMTI2MTAzMDAyNTA1
OVowFTETMBEGA1UEAwwKbW9kZWxtb3VudDAqMAUGAytlcAMhAOcApjTWdA0sEGHw
aWl+6n3J5wYBMTVj+VCKw16T7qmho1MwUTAdBgNVHQ4EFgQUlwc+BkAG4FOdbT/M
B6DjMbEZU4UwHwYDVR0jBBgwFoAUlwc+BkAG4FOdbT/MB6DjMbEZU4UwDwYDVR0T
AQH/BAUwAwEB/zAFBgMrZXADQQD4UMZJhdBrOL74/4EUyBjvkOrxnsXzMD9oQPkX
ghF/Aoc0cclQukSR4FbZJ4xLy+BxobEQqCxKWTs2oPVj4lEB
-----END CERTIFICATE-----";

    fn opened(uri: &str, options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<Objects> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let credentials = secrets.iter().copied().collect();
        open(&ModelUri::parse(uri)?, &options, &credentials, &Context::new(Policy::default())?)
    }

    #[test]
    fn wrong_settings_are_named() {
        let keys = &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")][..];
        for (uri, options, secrets, hint) in [
            ("s3://b u/m", &[][..], keys, "bucket's name"),
            ("s3://b/m//n", &[], keys, "component"),
            ("s3://b/../n", &[], keys, "component"),
            ("s3://b/m", &[("endpoint", "minio:9000")], keys, "endpoint"),
            ("s3://b/m", &[("endpoint", "https://u:p@minio")], keys, "has a user"),
            ("s3://b/m", &[("addressingStyle", "dns")], keys, "addressingStyle"),
            ("s3://b/m", &[], &keys[..1], "AWS_SECRET_ACCESS_KEY"),
            ("s3://b/m", &[], &keys[1..], "AWS_ACCESS_KEY_ID"),
        ] {
            let error = opened(uri, options, secrets).unwrap_err().report();
            assert!(error.contains(hint), "{uri}: {error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn the_store_is_part_of_the_identity() {
        let amazon = opened("s3://b/m", &[("region", "eu-west-1")], &[]).unwrap();
        let own = opened("s3://b/m/", &[("endpoint", "http://minio:9000/")], &[]).unwrap();
        assert_eq!(amazon.identity, "s3|https://s3.eu-west-1.amazonaws.com|b");
        assert_eq!(own.identity, "s3|http://minio:9000|b");
        assert!(own.key.directory && !amazon.key.directory);
    }

    #[test]
    fn the_bucket_is_asked_for_at_amazons_host_for_the_region() {
        let (china, path) = (("region", "cn-north-1"), ("addressingStyle", "path"));
        let accelerated = [("S3_USE_ACCELERATE", "1")];
        for (bucket, options, secrets, expected) in [
            ("b", &[][..], &[][..], "https://b.s3.us-east-1.amazonaws.com"),
            ("b.c", &[], &[], "https://s3.us-east-1.amazonaws.com"),
            ("b", &[path], &accelerated, "https://b.s3-accelerate.amazonaws.com"),
            ("b", &[china], &[], "https://b.s3.cn-north-1.amazonaws.com.cn"),
            ("b", &[china, path], &[], "https://s3.cn-north-1.amazonaws.com.cn"),
            ("b", &[china], &accelerated, "https://b.s3.cn-north-1.amazonaws.com.cn"),
            ("b", &[("endpoint", "http://minio"), china], &[], "http://minio"),
            ("b", &[("endpoint", "http://minio"), ("addressingStyle", "virtual")], &[], "http://b.minio"),
        ] {
            let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let context = &Context::new(Policy::default()).unwrap();
            let settings = Settings::read(bucket, &options, &secrets.iter().copied().collect(), context).unwrap();
            assert_eq!(url(&settings, bucket, &settings.region), expected);
        }
        assert_eq!(opened("s3://b/m", &[china], &[]).unwrap().identity, "s3|https://s3.cn-north-1.amazonaws.com.cn|b");
    }

    #[test]
    fn amazons_own_endpoint_leaves_the_place_to_the_region() {
        for endpoint in ["", "https://s3.amazonaws.com", " HTTPS://S3.amazonaws.com:443/ "] {
            let attributes = Options::from([("endpoint".to_owned(), endpoint.to_owned())]);
            let key = |secret: &[(&str, &str)]| {
                let uri = ModelUri::parse("s3://b/m").unwrap();
                REGISTRATION.place_key(&uri, &attributes, &secret.iter().copied().collect()).map(|(key, _)| key)
            };
            assert_eq!(key(&[("AWS_REGION", "eu-west-1")]), Some("AWS_REGION"), "{endpoint}");
            let opened = opened("s3://b/m", &[("endpoint", endpoint)], &[("AWS_REGION", "eu-west-1")]).unwrap();
            assert_eq!(opened.identity, "s3|https://s3.eu-west-1.amazonaws.com|b");
        }
    }

    #[test]
    fn an_own_authority_is_part_of_the_identity() {
        let endpoint = [("endpoint", "https://minio")];
        let identity = |secrets: &[(&str, &str)]| opened("s3://b/m", &endpoint, secrets).unwrap().identity;
        let (one, other) = (AUTHORITY, &format!("another text\n{AUTHORITY}"));
        assert_eq!(identity(&[]), "s3|https://minio|b");
        assert_ne!(identity(&[("cabundle.crt", one)]), identity(&[]));
        assert_ne!(identity(&[("cabundle.crt", one)]), identity(&[("cabundle.crt", other)]));
        assert_eq!(identity(&[("cabundle.crt", one)]), identity(&[("AWS_CA_BUNDLE", one)]));
        // As in KServe's environment, where it is a file's name.
        assert_eq!(identity(&[("AWS_CA_BUNDLE", "/etc/ssl/ca.pem")]), identity(&[]));
    }
}
