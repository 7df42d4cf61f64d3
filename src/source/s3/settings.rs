//! What the volume and the Secret say about a bucket, in KServe's names and those of the AWS tools.
//!
//! `S3_CONNECT_TIMEOUT`, `S3_READ_TIMEOUT` and `S3_MAX_ATTEMPTS` of KServe's are not needed: stalls are cut and
//! requests repeated anyway.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::aws::AwsCredential;

use super::{ADDRESSING, ENDPOINT, REGION};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{CaCertificates, HttpClient};
use crate::source::object::{parse_endpoint, setting};
use crate::source::{Context, Options};

/// Where PEM certificates stand that the caller trusts besides the node's. The second name is a file's in KServe's
/// environment: `pull` trusts that file by itself.
const AUTHORITIES: &[&str] = &["cabundle.crt", "AWS_CA_BUNDLE"];

/// As the attribute `region`.
pub(super) const REGION_KEYS: &[&str] = &["AWS_REGION", "AWS_DEFAULT_REGION"];

pub(super) struct Settings {
    pub(super) region: String,
    /// Without a slash at the end; `None` for Amazon's own.
    pub(super) endpoint: Option<String>,
    pub(super) virtual_hosted: bool,
    /// Whether Amazon's faster way is taken.
    pub(super) accelerate: bool,
    /// `None` for anonymous access.
    pub(super) credential: Option<Arc<StaticCredentialProvider<AwsCredential>>>,
    pub(super) client: HttpClient,
    /// See [`CaCertificates::mark`].
    pub(super) mark: String,
}

impl Settings {
    pub(super) fn read(bucket: &str, options: &Options, credentials: &Credentials, context: &Context) -> Result<Self> {
        let region = setting(options, credentials, REGION, REGION_KEYS);
        let endpoint = match setting(options, credentials, ENDPOINT, &["AWS_ENDPOINT_URL"]) {
            Some(endpoint) => Some(endpoint),
            None => host_and_scheme(credentials)?,
        };
        let endpoint = endpoint.map(|endpoint| parse_endpoint(&endpoint, "https://s3.example:9000")).transpose()?;
        let endpoint = endpoint.filter(|endpoint| !is_amazon(endpoint));
        let over_tls = endpoint.as_deref().is_none_or(|endpoint| endpoint.starts_with("https://"));
        if over_tls && flag(credentials, "S3_VERIFY_SSL")? == Some(false) {
            return Err(invalid(
                "S3_VERIFY_SSL turns off the check of the server's certificate, and anybody on the way could change the \
                 model; put the certificate of the server's authority there as cabundle.crt, or have the operator give \
                 it to the plugin with --ca-file",
            ));
        }
        let names_host = endpoint.is_none() && is_host_label(bucket);
        let virtual_hosted = match options.get(ADDRESSING.name).map(String::as_str) {
            None => flag(credentials, "S3_USER_VIRTUAL_BUCKET")?.unwrap_or(names_host),
            Some("virtual") => true,
            Some("path") => false,
            Some(other) => {
                let text = format!("{} is {other:?}: write \"path\" or \"virtual\"", ADDRESSING.name);
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
        };
        let region = region.unwrap_or_else(|| "us-east-1".into());
        let accelerate = names_host && !is_chinese(&region) && flag(credentials, "S3_USE_ACCELERATE")? == Some(true);
        let credential = match flag(credentials, "awsAnonymousCredential")? {
            Some(true) => None,
            _ => static_credentials(credentials)?,
        };
        let credential = credential.map(|credential| Arc::new(StaticCredentialProvider::new(credential)));
        let authorities = authorities(credentials);
        let client = client(authorities.as_ref(), context)?;
        let mark = CaCertificates::mark(authorities.as_ref().map(|(_, pem)| pem.expose().as_str()));
        Ok(Self { region, endpoint, virtual_hosted, accelerate, credential, client, mark })
    }
}

/// Whether an endpoint is Amazon's of all regions, as in KServe's own examples, or none. It answers for buckets of one
/// region only, under its plain name, and stands for no endpoint at all.
pub(super) fn is_amazon(endpoint: &str) -> bool {
    let endpoint = endpoint.trim();
    endpoint.is_empty() || parse_endpoint(endpoint, "").is_ok_and(|endpoint| endpoint == "https://s3.amazonaws.com")
}

/// Amazon's host for a region. (`object_store` knows no other end of it than `.com`.)
pub(super) fn amazon_host(region: &str) -> String {
    let end = if is_chinese(region) { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("s3.{region}.{end}")
}

/// Amazon's regions in China are run apart from its others: they have names of their own, and no transfer acceleration.
fn is_chinese(region: &str) -> bool {
    region.starts_with("cn-")
}

/// Whether a bucket's name can be a part of its server's name. With another one that would be no host's name, or, with a
/// dot in it, one that Amazon's certificate does not cover.
fn is_host_label(bucket: &str) -> bool {
    let letters = bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    letters && bucket.len() <= 63 && !bucket.starts_with('-') && !bucket.ends_with('-')
}

/// KServe's pair of an endpoint without a scheme and whether to use TLS; a scheme of the endpoint's own comes first.
fn host_and_scheme(credentials: &Credentials) -> Result<Option<String>> {
    let Some(endpoint) = credentials.get(&["S3_ENDPOINT"]) else { return Ok(None) };
    let endpoint = endpoint.expose();
    if endpoint.contains("://") {
        return Ok(Some(endpoint.clone()));
    }
    let scheme = if flag(credentials, "S3_USE_HTTPS")?.unwrap_or(true) { "https" } else { "http" };
    Ok(Some(format!("{scheme}://{endpoint}")))
}

/// A yes or no, in all spellings that KServe takes.
fn flag(credentials: &Credentials, key: &str) -> Result<Option<bool>> {
    let Some(value) = credentials.get(&[key]) else { return Ok(None) };
    match value.expose().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(Some(true)),
        "0" | "false" | "no" => Ok(Some(false)),
        _ => Err(invalid(&format!("{key} is neither \"true\" nor \"false\""))),
    }
}

/// The authorities that the caller trusts, as PEM, and the key under which they stand.
fn authorities(credentials: &Credentials) -> Option<(&'static str, Secret<String>)> {
    let mut found = AUTHORITIES.iter().filter_map(|key| Some((*key, credentials.get(&[key])?)));
    found.find(|(_, pem)| pem.expose().contains("-----BEGIN"))
}

/// The shared client, or one that trusts the caller's authorities too.
fn client(authorities: Option<&(&str, Secret<String>)>, context: &Context) -> Result<HttpClient> {
    match authorities {
        Some((key, pem)) => context.http.trusting(pem.expose()).map_err(|problem| invalid(&format!("{key} {problem}"))),
        None => Ok(context.http.clone()),
    }
}

fn static_credentials(credentials: &Credentials) -> Result<Option<AwsCredential>> {
    let key = credentials.get(&["AWS_ACCESS_KEY_ID", "awsAccessKeyID"]);
    let secret = credentials.get(&["AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey"]);
    let token = credentials.get(&["AWS_SESSION_TOKEN", "awsSessionToken"]);
    match (key, secret) {
        (Some(key), Some(secret)) => Ok(Some(AwsCredential {
            key_id: key.expose().clone(),
            secret_key: secret.expose().clone(),
            token: token.map(|token| token.expose().clone()),
        })),
        (None, None) => Ok(None),
        (key, _) => {
            let missing = if key.is_some() { "AWS_SECRET_ACCESS_KEY" } else { "AWS_ACCESS_KEY_ID" };
            let text = format!("the Secret has only half of an S3 key pair: add {missing}");
            Err(Error::new(ErrorKind::Unauthenticated, text))
        }
    }
}

fn invalid(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the Secret's key {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fuzzing::CONTEXT;
    use proptest::prelude::*;

    fn read(options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<Settings> {
        read_of("models", options, secrets)
    }

    fn read_of(bucket: &str, options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<Settings> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read(bucket, &options, &secrets.iter().copied().collect(), &CONTEXT)
    }

    #[test]
    fn kserves_names_are_understood() {
        for (options, secrets, endpoint, virtual_hosted) in [
            (&[][..], &[][..], None, true),
            (&[], &[("S3_ENDPOINT", "minio:9000")], Some("https://minio:9000"), false),
            (&[], &[("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", "1")], Some("https://minio:9000"), false),
            (&[], &[("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", "0")], Some("http://minio:9000"), false),
            (&[], &[("S3_ENDPOINT", "http://minio"), ("S3_USE_HTTPS", "1")], Some("http://minio"), false),
            (&[], &[("S3_ENDPOINT", "a"), ("AWS_ENDPOINT_URL", "http://b")], Some("http://b"), false),
            (&[("endpoint", "http://c")], &[("AWS_ENDPOINT_URL", "http://b")], Some("http://c"), false),
            (&[], &[("S3_ENDPOINT", "a"), ("S3_USER_VIRTUAL_BUCKET", "True")], Some("https://a"), true),
            (&[], &[("S3_USER_VIRTUAL_BUCKET", "false")], None, false),
            (&[], &[("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")], None, true),
            (&[], &[("S3_ENDPOINT", "S3.amazonaws.com:443"), ("S3_USE_HTTPS", "1")], None, true),
            (&[], &[("S3_ENDPOINT", "s3.amazonaws.com"), ("S3_USER_VIRTUAL_BUCKET", "0")], None, false),
            (&[("endpoint", "https://s3.amazonaws.com/")], &[("AWS_ENDPOINT_URL", "http://b")], None, true),
            (&[], &[("S3_ENDPOINT", "s3.amazonaws.com:444")], Some("https://s3.amazonaws.com:444"), false),
            (&[], &[("S3_ENDPOINT", "http://s3.amazonaws.com")], Some("http://s3.amazonaws.com"), false),
            (&[], &[("S3_ENDPOINT", "s3.amazonaws.com.x")], Some("https://s3.amazonaws.com.x"), false),
            (&[("addressingStyle", "virtual")], &[("S3_USER_VIRTUAL_BUCKET", "0")], None, true),
        ] {
            let settings = read(options, secrets).unwrap();
            assert_eq!(
                (settings.endpoint.as_deref(), settings.virtual_hosted),
                (endpoint, virtual_hosted),
                "{secrets:?}"
            );
        }
        for endpoint in [&[][..], &[("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")]] {
            let secrets = [endpoint, &[("AWS_DEFAULT_REGION", "eu-west-1"), ("S3_USE_ACCELERATE", "yes")]].concat();
            let settings = read(&[], &secrets).unwrap();
            assert!(settings.region == "eu-west-1" && settings.accelerate);
        }
    }

    #[test]
    fn a_bucket_that_is_no_part_of_a_host_name_has_a_path() {
        let accelerated = [("S3_USE_ACCELERATE", "1")];
        for bucket in ["my-models-1", "0models"] {
            let settings = read_of(bucket, &[], &accelerated).unwrap();
            assert!(settings.virtual_hosted && settings.accelerate, "{bucket}");
        }
        for bucket in ["my.models", "Models", "my_models", "-models", "models-", &"m".repeat(64)] {
            // Amazon has no faster way to them.
            let settings = read_of(bucket, &[], &accelerated).unwrap();
            assert!(!settings.virtual_hosted && !settings.accelerate, "{bucket}");
            // Who asks for it gets it.
            assert!(read_of(bucket, &[("addressingStyle", "virtual")], &[]).unwrap().virtual_hosted);
            assert!(read_of(bucket, &[], &[("S3_USER_VIRTUAL_BUCKET", "1")]).unwrap().virtual_hosted);
        }
    }

    #[test]
    fn anonymous_is_anonymous_whatever_keys_there_are() {
        let keys = [("awsAccessKeyID", "a"), ("awsSecretAccessKey", "b"), ("AWS_SESSION_TOKEN", "c")];
        assert_eq!(static_credentials(&keys.into_iter().collect()).unwrap().unwrap().token.as_deref(), Some("c"));
        let forced = [&keys[..], &[("awsAnonymousCredential", "true")]].concat();
        assert!(read(&[], &forced).unwrap().credential.is_none());
        // Half a pair too: nothing of it is sent.
        assert!(read(&[], &forced[1..]).unwrap().credential.is_none());
    }

    #[test]
    fn certificates_are_always_checked() {
        let unchecked = ("S3_VERIFY_SSL", "0");
        let shouted = ("AWS_ENDPOINT_URL", "HTTPS://minio");
        for secrets in [&[unchecked][..], &[unchecked, ("S3_ENDPOINT", "minio")], &[unchecked, shouted]] {
            let error = read(&[], secrets).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.report().contains("cabundle.crt") && error.report().contains("--ca-file"), "{error}");
        }
        // Without TLS there is nothing to check: KServe's own examples have both.
        read(&[], &[unchecked, ("S3_ENDPOINT", "http://minio")]).unwrap();
        read(&[], &[("S3_VERIFY_SSL", "1")]).unwrap();
    }

    #[test]
    fn what_can_not_be_understood_is_named_and_not_shown() {
        for (key, value, hint) in [
            ("S3_USE_ACCELERATE", "CANARY", "neither"),
            ("awsAnonymousCredential", "CANARY", "neither"),
            ("cabundle.crt", "-----BEGIN PRIVATE KEY-----\nCANARYAA\n-----END PRIVATE KEY-----\n", "no certificate"),
            ("AWS_CA_BUNDLE", "-----BEGIN CERTIFICATE-----\nCANARY!\n-----END CERTIFICATE-----\n", "PEM"),
        ] {
            let error = read(&[], &[(key, value)]).err().unwrap().report();
            assert!(error.contains(key) && error.contains(hint) && !error.contains("CANARY"), "{error}");
        }
        // As in KServe's environment, where it is a file's name.
        read(&[], &[("AWS_CA_BUNDLE", "/etc/ssl/ca.pem")]).unwrap();
    }

    proptest! {
        #[test]
        fn any_secret_is_settings_or_an_error_that_does_not_show_it(
            keys in prop::collection::vec("S3_USE_HTTPS|S3_VERIFY_SSL|awsAnonymousCredential|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN", 0..4),
            value in "CANARY[a-z\n]{0,6}|0|1|true|no", endpoint in "(https?://)?[a-z:/?@]{0,12}",
        ) {
            let secrets: Vec<_> = keys.iter().map(|key| (key.as_str(), value.as_str())).chain([("S3_ENDPOINT", endpoint.as_str())]).collect();
            match read(&[], &secrets) {
                Ok(settings) => {
                    let endpoint = settings.endpoint.unwrap_or_else(|| "https://s3".to_owned());
                    prop_assert!(endpoint.starts_with("https://") || endpoint.starts_with("http://"), "{}", endpoint);
                }
                Err(error) => prop_assert!(!error.report().contains("CANARY"), "{}", error.report()),
            }
        }
    }
}
