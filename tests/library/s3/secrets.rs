//! What KServe's Secrets say about a bucket, at work.

use std::collections::BTreeMap;

use modelmount::model::MODEL_URI;
use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::http::Options;
use modelmount_test_support::script::Response;
use modelmount_test_support::{Nginx, S3Kind, ScriptedServer};

use crate::bucket::Bucket;
use crate::node::{Node, assert_snapshot, limits, resolve};

fn at(path: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(MODEL_URI.to_owned(), format!("s3://models/{path}"))])
}

fn with(credentials: &Credentials, further: &[(&str, &str)]) -> Credentials {
    let own = credentials.names().map(|name| (name.to_owned(), credentials.get(&[name]).unwrap().expose().clone()));
    own.chain(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect()
}

/// A Secret as KServe's annotations make it: no URL, but a host and whether to use TLS.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_from_the_secret() {
    let Some(bucket) = Bucket::start(S3Kind::S3sFs).await else { return };
    bucket.put("m/weights", b"weights").await;
    let host = bucket.server.address().to_string();
    let secret = [("S3_ENDPOINT", host.as_str()), ("S3_USE_HTTPS", "0"), ("S3_VERIFY_SSL", "0")];
    let (source, manifest) = resolve(&at("m"), &with(&bucket.credentials(), &secret)).await.unwrap();
    let expected = BTreeMap::from([("weights".to_owned(), b"weights".to_vec())]);
    assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &expected);
    // The same place, under whichever key it is named.
    let (_, named) = bucket.resolve("m").await.unwrap();
    assert_eq!(manifest.id(), named.id());
}

/// With anonymous access forced, keys that are there as well are not used.
#[tokio::test(flavor = "multi_thread")]
async fn forced_anonymous_access() {
    let server = ScriptedServer::start(|_| Response::new(404).body("<Error><Code>NoSuchKey</Code></Error>")).await;
    let keys: Credentials = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "SK")].into_iter().collect();
    let endpoint = [("AWS_ENDPOINT_URL", server.url())];
    let endpoint: Vec<(&str, &str)> = endpoint.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (anonymous, signed) in [("true", false), ("false", true)] {
        let before = server.requests().len();
        let secret = [&endpoint[..], &[("awsAnonymousCredential", anonymous)]].concat();
        resolve(&at("m"), &with(&keys, &secret)).await.unwrap_err();
        let requests = &server.requests()[before..];
        assert!(!requests.is_empty() && requests.iter().all(|one| one.header("authorization").is_some() == signed));
    }
}

/// A server whose certificate only the Secret's bundle vouches for. A web server will do for an object that is named
/// exactly.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_from_the_secret() {
    let root = tempfile::tempdir().unwrap();
    let options = Options { tls: true, ..Options::default() };
    let Some(nginx) = Nginx::start_with(root.path(), options).await else { return };
    nginx.put("models/weights", b"weights");
    let url = nginx.url();
    let trusting = |bundle: &str| {
        [("AWS_ENDPOINT_URL", url.as_str()), ("cabundle.crt", bundle)].into_iter().collect::<Credentials>()
    };
    let ca = nginx.ca_pem().expect("it serves TLS").to_owned();
    let (source, manifest) = resolve(&at("weights"), &trusting(&ca)).await.unwrap();
    let expected = BTreeMap::from([("weights".to_owned(), b"weights".to_vec())]);
    assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &expected);

    let error = resolve(&at("weights"), &trusting("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.report().contains("certificate"), "{error:?}");
}
