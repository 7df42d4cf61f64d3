//! nginx does what the tests that use it rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use modelmount_test_support::http::{self, Nginx, Options, PASSWORD, USER};
use modelmount_test_support::{Proxy, eventually, model};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_RANGES, ETAG, LAST_MODIFIED, LOCATION, RANGE};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn each_location_is_special_in_its_own_way() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    nginx.put("m/weights.bin", b"0123456789");
    let client = http::client();
    let ranged = |path: &str| client.get(format!("{}{path}", nginx.url())).header(RANGE, "bytes=2-4");

    let plain = ranged("/m/weights.bin").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::PARTIAL_CONTENT);
    let first_etag = plain.headers()[ETAG].clone();
    assert_eq!(plain.bytes().await.unwrap(), "234");

    let whole = ranged("/noranges/m/weights.bin").send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.headers().get(ACCEPT_RANGES).is_none());
    assert_eq!(whole.bytes().await.unwrap(), "0123456789");

    let bare = ranged("/novalidator/m/weights.bin").send().await.unwrap();
    assert!(bare.headers().get(ETAG).is_none() && bare.headers().get(LAST_MODIFIED).is_none());

    assert_eq!(ranged("/private/m/weights.bin").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let wrong = ranged("/private/m/weights.bin").basic_auth(USER, Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let right = ranged("/private/m/weights.bin").basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
    assert_eq!(right.bytes().await.unwrap(), "234");

    let redirect = client.get(format!("{}/redirect/m/a%20b%25.bin?q=1", nginx.url())).send().await.unwrap();
    assert_eq!(redirect.status(), StatusCode::FOUND);
    assert_eq!(redirect.headers()[LOCATION], format!("{}/m/a%20b%25.bin?q=1", nginx.other_url()));
    let elsewhere = client.get(format!("{}/m/weights.bin", nginx.other_url())).send().await.unwrap();
    assert_eq!(elsewhere.bytes().await.unwrap(), "0123456789");

    nginx.put("m/weights.bin", b"9876543210");
    assert_ne!(ranged("/m/weights.bin").send().await.unwrap().headers()[ETAG], first_etag);

    eventually("the log to be complete", SOON, || nginx.requests().len() == 9).await;
    let requests = nginx.requests();
    assert_eq!((requests[0].status, requests[0].bytes, &*requests[0].range), (206, 3, "bytes=2-4"));
    assert_eq!(requests[0].authorization, "");
    assert!(requests[5].authorization.starts_with("Basic "), "{requests:?}");
    assert_eq!(requests[6].target, "/redirect/m/a%20b%25.bin?q=1");
    assert_ne!(requests[7].port, requests[6].port);
}

#[tokio::test]
async fn odd_names_are_served_and_what_is_slow_is_complete() {
    let root = tempfile::tempdir().unwrap();
    let options = Options { slow_rate: 20_000, ..Options::default() };
    let Some(nginx) = Nginx::start_with(root.path(), options).await else { return };
    let files = model::odd(1);
    nginx.put_model("m/", &files);
    for (path, bytes) in &files {
        let path = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC).to_string();
        let url = format!("{}/m/{}", nginx.url(), path.replace("%2F", "/"));
        assert_eq!(http::client().get(url).send().await.unwrap().bytes().await.unwrap(), bytes, "{path}");
    }
    nginx.put("big", &vec![0; 60_000]);
    let proxy = Proxy::start(nginx.address()).await;
    let slow = http::client().get(format!("{}/slow/big", proxy.url())).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(slow.len(), 60_000);
    assert!(proxy.received() > 60_000);
}

#[tokio::test]
async fn tls_is_trusted_by_those_who_trust_its_ca() {
    let root = tempfile::tempdir().unwrap();
    let options = Options { tls: true, ..Options::default() };
    let Some(nginx) = Nginx::start_with(root.path(), options).await else { return };
    nginx.put("f", b"secret");
    let url = format!("{}/f", nginx.url());
    let client = http::client_trusting(nginx.ca_pem().unwrap());
    assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap(), "secret");
    let named = url.replace("127.0.0.1", "localhost");
    assert_eq!(client.get(&named).send().await.unwrap().bytes().await.unwrap(), "secret");
    assert!(http::client().get(&url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_stopped_server_is_gone_and_starts_again_at_its_address() {
    let root = tempfile::tempdir().unwrap();
    let Some(nginx) = Nginx::start(root.path()).await else { return };
    nginx.put("f", b"1");
    let (pid, address) = (nginx.process().pid(), nginx.address());
    assert!(nginx.process().peak_rss().unwrap() > 0);
    drop(nginx);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(std::net::TcpStream::connect(address).is_err());
    let options = Options { address: Some(address), ..Options::default() };
    let again = Nginx::start_with(root.path(), options).await.unwrap();
    assert_eq!(again.address(), address);
    assert_eq!(http::client().get(format!("{}/f", again.url())).send().await.unwrap().bytes().await.unwrap(), "1");
}
