//! The client against nginx, for what TLS and files are about, and against a server that answers as it is told.

use modelmount_test_support::http::Options;
use modelmount_test_support::script::Response as Answer;
use modelmount_test_support::{Nginx, ScriptedServer, eventually};
use tempfile::TempDir;

use super::*;

const NODE: &[&str] = &["api", "v1", "nodes", "n"];

/// A service account's directory.
fn account(token: &str, authority: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), token).unwrap();
    fs::write(directory.path().join("ca.crt"), authority).unwrap();
    directory
}

fn client(server: &str, account: &TempDir) -> Client {
    Client::new(Config { server: server.parse().unwrap(), service_account: account.path().to_owned() })
}

async fn tls_server() -> Option<(Nginx, TempDir)> {
    let root = tempfile::tempdir().unwrap();
    let nginx = Nginx::start_with(root.path(), Options { tls: true, ..Options::default() }).await?;
    nginx.put("api/v1/nodes/n", br#"{"kind": "Node"}"#);
    Some((nginx, root))
}

#[tokio::test]
async fn token_and_authority_are_those_of_the_moment() {
    let Some((first, _root)) = tls_server().await else { return };
    let Some((second, _other_root)) = tls_server().await else { return };
    let account = account("one\n", second.ca_pem().unwrap());
    let client = client(&first.url(), &account);

    let error = client.get::<Value>(NODE).await.unwrap_err();
    assert_eq!(error.kind(), ApiErrorKind::Unavailable);
    assert!(error.report().contains("certificate"), "{}", error.report());

    fs::write(account.path().join("ca.crt"), first.ca_pem().unwrap()).unwrap();
    assert_eq!(client.get::<Value>(NODE).await.unwrap()["kind"], "Node");
    fs::write(account.path().join("token"), "two").unwrap();
    client.get_cached::<Value>(NODE).await.unwrap();
    // nginx logs a request when it is through with it.
    eventually("the log", Duration::from_secs(20), || first.requests().len() == 2).await;
    let seen: Vec<_> = first.requests().into_iter().map(|request| (request.target, request.authorization)).collect();
    let (newest, cached) = ("/api/v1/nodes/n", "/api/v1/nodes/n?resourceVersion=0");
    let expected = [(newest, "Bearer one"), (cached, "Bearer two")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(seen, expected);
    assert!(!format!("{client:?}").contains("two"));
}

#[tokio::test]
async fn every_refusal_has_its_kind_and_says_what_the_server_said() {
    let server = ScriptedServer::start(|request| {
        let status = request.target.trim_start_matches('/').parse().unwrap();
        Answer::new(status).body(r#"{"kind": "Status", "message": "nodes is\nwrong"}"#)
    })
    .await;
    let account = account("secret", "");
    let client = client(&server.url(), &account);
    for (status, kind) in [
        (401, ApiErrorKind::Unauthorized),
        (403, ApiErrorKind::Forbidden),
        (404, ApiErrorKind::NotFound),
        (409, ApiErrorKind::Conflict),
        (422, ApiErrorKind::Conflict),
        (429, ApiErrorKind::Unavailable),
        (500, ApiErrorKind::Unavailable),
        (504, ApiErrorKind::Unavailable),
        (302, ApiErrorKind::Unexpected),
        (400, ApiErrorKind::Unexpected),
    ] {
        let error = client.get::<Value>(&[&status.to_string()]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        assert_eq!(error.report(), format!("GET /{status}: the API server answers {status}: nodes is wrong"));
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors() {
    let page = "<html>a login page</html>";
    for (answer, kind, hint) in [
        (Answer::new(200).body(page), ApiErrorKind::Unexpected, "not the object"),
        (Answer::new(200).body("[]"), ApiErrorKind::Unexpected, "not the object"),
        (Answer::new(403).body(page), ApiErrorKind::Forbidden, "answers 403"),
        (
            Answer::new(200).body("{}").header("content-length", "9").truncate_after(2),
            ApiErrorKind::Unavailable,
            "broke",
        ),
        (Answer::new(200).body(vec![b' '; MAX_BODY + 1]), ApiErrorKind::Unexpected, "larger"),
    ] {
        let server = ScriptedServer::start(move |_| answer.clone()).await;
        let error =
            client(&server.url(), &account("t", "")).get::<std::collections::HashMap<String, Value>>(NODE).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.report());
        assert!(error.report().contains(hint) && !error.report().contains("login"), "{}", error.report());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let error = client("http://127.0.0.1:1", &account("t", "")).get::<Value>(NODE).await.unwrap_err();
    assert_eq!(error.kind(), ApiErrorKind::Unavailable);
    assert!(error.report().contains("can't connect") && error.report().contains("refused"), "{}", error.report());
}

#[tokio::test]
async fn a_patch_is_sent_as_the_standard_writes_it() {
    let server = ScriptedServer::start(|_| Answer::new(200).body("{}")).await;
    let steps = [
        Step::Test { path: "/spec/taints/0/key".into(), value: "k".into() },
        Step::Remove { path: "/spec/taints/0".into() },
    ];
    let _: Value = client(&server.url(), &account("t", "")).patch(NODE, &steps).await.unwrap();
    let request = server.requests().remove(0);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PATCH", "/api/v1/nodes/n"));
    assert_eq!(request.header("content-type"), Some("application/json-patch+json"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected = serde_json::json!([
        {"op": "test", "path": "/spec/taints/0/key", "value": "k"},
        {"op": "remove", "path": "/spec/taints/0"},
    ]);
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_name_never_leads_to_another_object() {
    let server = ScriptedServer::start(|_| Answer::new(200).body("{}")).await;
    let account = account("t", "");
    let client = client(&server.url(), &account);
    client.get::<Value>(&["api", "v1", "nodes", "../secrets/x?y#z%2e"]).await.unwrap();
    assert_eq!(server.requests()[0].target, "/api/v1/nodes/..%2Fsecrets%2Fx%3Fy%23z%252e");
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let account = account("a\nb", "");
    let http = client("http://127.0.0.1:1", &account);
    let error = http.get::<Value>(NODE).await.unwrap_err();
    assert_eq!((error.kind(), error.report().contains("not a token")), (ApiErrorKind::NotConfigured, true));
    fs::remove_file(account.path().join("token")).unwrap();
    let error = http.get::<Value>(NODE).await.unwrap_err();
    assert_eq!((error.kind(), error.report().contains("automount")), (ApiErrorKind::NotConfigured, true));
}

#[test]
fn the_address_is_what_kubelet_says() {
    let config = |host: Option<&str>, port: Option<&str>| {
        Config::from_variables(host.map(str::to_owned), port.map(str::to_owned)).map(|config| config.server.to_string())
    };
    assert_eq!(config(Some("10.96.0.1"), Some("443")).unwrap(), "https://10.96.0.1/");
    assert_eq!(config(Some("fd00::1"), Some("6443")).unwrap(), "https://[fd00::1]:6443/");
    for (host, port) in [(None, Some("443")), (Some("h"), None), (Some("h"), Some("tcp://h"))] {
        assert_eq!(config(host, port).unwrap_err().kind(), ApiErrorKind::NotConfigured);
    }
}
