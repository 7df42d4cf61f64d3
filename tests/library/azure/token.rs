//! Client secrets: exchanged for a token at the directory's token endpoint.

use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::script::Response;
use modelmount_test_support::{FileShares, ScriptedServer};

use super::{CONTAINER, assert_says, paths, resolved};

const TOKEN: &str = "eyCANARY-TOKEN";

fn client_secret(authority: &str, secret: &str) -> Credentials {
    let pairs = [
        ("AZURE_TENANT_ID", "tenant-1"),
        ("AZ_CLIENT_ID", "client 1"),
        ("AZURE_CLIENT_SECRET", secret),
        ("AZURE_AUTHORITY_HOST", authority),
    ];
    pairs.into_iter().collect()
}

/// A directory that knows one client.
async fn directory() -> ScriptedServer {
    ScriptedServer::start(|request| {
        let form = String::from_utf8_lossy(&request.body);
        let expected = "grant_type=client_credentials&client_id=client+1&client_secret=CANARY%2B1&\
                        scope=https%3A%2F%2Fstorage.azure.com%2F.default";
        if (request.method.as_str(), request.target.as_str()) != ("POST", "/tenant-1/oauth2/v2.0/token") {
            return Response::new(404);
        }
        if form != expected {
            let text = format!(r#"{{"error":"invalid_client","error_description":"AADSTS7000215: {form}"}}"#);
            return Response::new(401).body(text);
        }
        Response::new(200).body(format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{TOKEN}"}}"#))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_read_with_one_token() {
    let directory = directory().await;
    let storage = ScriptedServer::start(|request| {
        if !request.target.contains("comp=list") {
            return Response::new(404).header("x-ms-error-code", "BlobNotFound");
        }
        Response::new(200).body(
            "<EnumerationResults><Blobs><Blob><Name>m/a</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT\
             </Last-Modified><Etag>0x1</Etag><Content-Length>3</Content-Length><Content-Type>x/y</Content-Type>\
             </Properties></Blob></Blobs><NextMarker /></EnumerationResults>",
        )
    })
    .await;
    let endpoint = format!("{}/acct", storage.url());
    let credentials = client_secret(&directory.url(), "CANARY+1");
    let (_, manifest) = resolved("az://models/m", &endpoint, &credentials).await.unwrap();
    assert_eq!(paths(&manifest), ["a"]);
    assert_eq!(directory.requests().len(), 1);
    let seen = storage.requests();
    assert!(seen.iter().all(|request| request.header("authorization") == Some(&format!("Bearer {TOKEN}"))), "{seen:?}");

    let wrong = resolved("az://models/m", &endpoint, &client_secret(&directory.url(), "CANARY-2")).await.unwrap_err();
    assert_says(&wrong, ErrorKind::Unauthenticated, &["az://models/m", "invalid_client", "AZURE_CLIENT_SECRET"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_with_a_token() {
    let (directory, server) = (directory().await, FileShares::start().await);
    server.create_share(CONTAINER);
    server.put(CONTAINER, "m/a", b"abc".to_vec());
    server.change(|behaviour| behaviour.token = Some(TOKEN.to_owned()));
    let uri = format!("https://{}.file.core.windows.net/{CONTAINER}/m", server.account());
    let (_, manifest) = resolved(&uri, &server.endpoint(), &client_secret(&directory.url(), "CANARY+1")).await.unwrap();
    assert_eq!(paths(&manifest), ["a"]);
}

/// Half an identity is never sent, nor a whole one to a directory that is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_here_unless_all_is_right() {
    let directory = directory().await;
    let endpoint = "http://127.0.0.2:1/acct";
    let elsewhere =
        resolved("az://models/m", endpoint, &client_secret(&directory.url(), "CANARY+1")).await.unwrap_err();
    assert_says(&elsewhere, ErrorKind::InvalidArgument, &["token endpoint", &directory.url()]);
    let half: Credentials = [("AZURE_CLIENT_ID", "x"), ("AZURE_TENANT_ID", "y")].into_iter().collect();
    let error = resolved("az://models/m", endpoint, &half).await.unwrap_err();
    assert_says(&error, ErrorKind::Unauthenticated, &["AZURE_CLIENT_SECRET"]);
    let tenant: Credentials =
        [("AZURE_CLIENT_ID", "x"), ("AZURE_TENANT_ID", "../y"), ("AZURE_CLIENT_SECRET", "CANARY")]
            .into_iter()
            .collect();
    let error = resolved("az://models/m", endpoint, &tenant).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, &["AZURE_TENANT_ID"]);
    assert_eq!(directory.requests().len(), 0);
}
