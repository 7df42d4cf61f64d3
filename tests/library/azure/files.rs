//! Files on shares, on an emulator that checks signatures by code of its own.

use std::collections::BTreeMap;

use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::azure_blob::{FAR_FUTURE, LONG_AGO};
use modelmount_test_support::model::Files;
use modelmount_test_support::script::Response;
use modelmount_test_support::{FileShares, Pattern, ScriptedServer};

use super::{CONTAINER, assert_says, attributes, key, paths, resolved, signature};
use crate::node::{Node, assert_snapshot, limits, resolve};

async fn started() -> FileShares {
    let server = FileShares::start().await;
    server.create_share(CONTAINER);
    server.put(CONTAINER, "model/weights", b"weights".to_vec());
    server
}

fn uri(server: &FileShares, path: &str) -> String {
    format!("https://{}.file.core.windows.net/{path}", server.account())
}

/// Pages of three entries, directories twelve deep (KServe stops at five), files larger than a part.
#[tokio::test(flavor = "multi_thread")]
async fn any_depth_and_any_number() {
    let server = started().await;
    let mut files = Files::new();
    for i in 0..20 {
        files.insert(format!("file-{i}"), Pattern::new(i).bytes(0, 10 * i as usize));
        files.insert(format!("d{}/e/{i}", i % 4), Pattern::new(i).bytes(0, 7));
    }
    files.insert("1/2/3/4/5/6/7/8/9/10/11/12/large".to_owned(), Pattern::new(9).bytes(0, 300_001));
    for (path, content) in &files {
        server.put(CONTAINER, &format!("deep/model/{path}"), content.clone());
    }
    server.put(CONTAINER, "deep/model-v2/other", b"no part of it".to_vec());
    server.make_directory(CONTAINER, "deep/model/empty/inner");
    for (path, expected) in [("models/deep/model", files.clone()), ("models/deep/model/d1", below(&files, "d1/"))] {
        let (source, manifest) = resolved(&uri(&server, path), &server.endpoint(), &key(&server.key())).await.unwrap();
        assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), &expected);
    }
    let whole = resolved(&uri(&server, "models"), &server.endpoint(), &key(&server.key())).await.unwrap();
    assert_eq!(whole.1.entries().len(), files.len() + 2);
}

fn below(files: &Files, prefix: &str) -> Files {
    files.iter().filter_map(|(path, content)| Some((path.strip_prefix(prefix)?.to_owned(), content.clone()))).collect()
}

/// What names on a share may have, and URLs or XML have not as it is.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names() {
    let server = started().await;
    let names = [
        "with space",
        "ünï/模型",
        "a+b",
        "100%",
        "per%20cent",
        "hash#tag",
        "a&b=c;d",
        "it's",
        "~(1)!@$,[x]",
        "\u{fffe}",
    ];
    let files: Files = names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect();
    for (path, content) in &files {
        server.put(CONTAINER, &format!("o d%d/{path}"), content.clone());
    }
    let at = uri(&server, "models/o%20d%25d");
    let (source, manifest) = resolved(&at, &server.endpoint(), &key(&server.key())).await.unwrap();
    assert_snapshot(&Node::new(limits(4)).fetch(&source, &manifest).await.unwrap(), &files);
}

/// Older services list no ETags: each file is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn listings_without_versions() {
    let server = started().await;
    let (at, endpoint, key) = (uri(&server, "models/model"), server.endpoint(), key(&server.key()));
    let (_, told) = resolved(&at, &endpoint, &key).await.unwrap();
    server.change(|behaviour| behaviour.etags = false);
    let (_, asked) = resolved(&at, &endpoint, &key).await.unwrap();
    assert_eq!(told.id(), asked.id());
    assert!(asked.tells_versions());
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_and_tokens() {
    let server = started().await;
    let (at, endpoint) = (uri(&server, "models/model"), server.endpoint());
    let good = server.signature("rl", FAR_FUTURE);
    for (uri, credentials) in [(at.clone(), signature(&good)), (format!("{at}?{good}"), Credentials::none())] {
        let (source, manifest) = resolved(&uri, &endpoint, &credentials).await.unwrap();
        let expected = BTreeMap::from([("weights".to_owned(), b"weights".to_vec())]);
        assert_snapshot(&Node::new(limits(1)).fetch(&source, &manifest).await.unwrap(), &expected);
        assert!(!format!("{source:?} {manifest:?}").contains("sig="), "{source:?}");
    }
    let expired = resolved(&at, &endpoint, &signature(&server.signature("rl", LONG_AGO))).await.unwrap_err();
    assert_says(&expired, ErrorKind::Unauthenticated, &[&at, "credentials"]);
    let read_only = resolved(&at, &endpoint, &signature(&server.signature("r", FAR_FUTURE))).await.unwrap_err();
    assert_says(&read_only, ErrorKind::PermissionDenied, &[&at, "permissions r and l"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let server = started().await;
    let (endpoint, good) = (server.endpoint(), key(&server.key()));
    let at = async |path: &str, credentials: &Credentials| {
        resolved(&uri(&server, path), &endpoint, credentials).await.unwrap_err()
    };
    let missing = at("models/no-model", &good).await;
    assert_says(&missing, ErrorKind::NotFound, &[&uri(&server, "models/no-model"), &endpoint, "check the URI"]);
    let share = at("no-such-share/m", &good).await;
    assert_says(&share, ErrorKind::NotFound, &["share \"no-such-share\"", &endpoint]);
    let wrong = at("models/model", &key("Q0FOQVJZAAAA")).await;
    assert_says(&wrong, ErrorKind::Unauthenticated, &["models/model", "AZURE_STORAGE_ACCESS_KEY"]);
    let anonymous = at("models/model", &Credentials::none()).await;
    assert_says(&anonymous, ErrorKind::Unauthenticated, &["models/model", "anonymous", "nodePublishSecretRef"]);
    server.make_directory(CONTAINER, "hollow");
    let hollow = at("models/hollow", &good).await;
    assert_says(&hollow, ErrorKind::NotFound, &["models/hollow", "no object there"]);
    let mut patterns = attributes(&uri(&server, "models/model"), &endpoint);
    patterns.insert("allowPatterns".to_owned(), "*.gguf".to_owned());
    assert_says(&resolve(&patterns, &good).await.unwrap_err(), ErrorKind::NotFound, &["allowPatterns"]);

    let (source, manifest) = resolved(&uri(&server, "models/model"), &endpoint, &good).await.unwrap();
    server.change(|behaviour| behaviour.readable = false);
    let error = Node::new(limits(1)).fetch(&source, &manifest).await.unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["models/model", "Storage File Data Privileged Reader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_asked_again() {
    let server = started().await;
    server.change(|behaviour| behaviour.busy = 2);
    let (_, manifest) =
        resolved(&uri(&server, "models/model/"), &server.endpoint(), &key(&server.key())).await.unwrap();
    assert_eq!(paths(&manifest), ["weights"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_its_writer_declared_is_corrupt() {
    let server = started().await;
    // The MD5 of "123456789".
    let md5 = Some("JfnnlDI7RTiF9RgfG2JNCw==");
    server.put_with_md5(CONTAINER, "declared/good", b"123456789".to_vec(), md5);
    server.put_with_md5(CONTAINER, "declared/bad", b"12345678x".to_vec(), md5);
    for (name, is_good) in [("good", true), ("bad", false)] {
        let at = uri(&server, &format!("models/declared/{name}"));
        let (source, manifest) = resolved(&at, &server.endpoint(), &key(&server.key())).await.unwrap();
        match Node::new(limits(1)).fetch(&source, &manifest).await {
            Ok(_) => assert!(is_good, "{name}"),
            Err(error) => assert_eq!((error.kind(), is_good), (ErrorKind::Corrupt, false), "{error:?}"),
        }
    }
}

/// Pages with nothing on them but the name of the next, of shares and of containers: nothing but their number would end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_an_end() {
    let server = ScriptedServer::start(|request| match request.target.contains("comp=list") {
        true => Response::new(200).body(format!(
            "<EnumerationResults><Entries></Entries><Blobs></Blobs><NextMarker>{}</NextMarker></EnumerationResults>",
            request.number
        )),
        false => Response::new(404).header("x-ms-error-code", "ResourceNotFound"),
    })
    .await;
    for at in ["https://acct.file.core.windows.net/models/m", "https://acct.blob.core.windows.net/models/m"] {
        let error = resolved(at, &server.url(), &key("Q0FOQVJZAAAA")).await.unwrap_err();
        assert_says(&error, ErrorKind::ResourceExhausted, &[at, "does not come to an end"]);
    }
}

/// Pages that repeat, names that lead elsewhere, directories without end, and things that are no listing.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_servers_get_an_error() {
    let listing = |entries: &str, next: &str| {
        format!("<EnumerationResults><Entries>{entries}</Entries><NextMarker>{next}</NextMarker></EnumerationResults>")
    };
    let file = |name: &str| {
        format!(
            "<File><Name>{name}</Name><Properties><Content-Length>1</Content-Length><Etag>1</Etag></Properties></File>"
        )
    };
    for (page, kind) in [
        (listing("", "again"), ErrorKind::InvalidArgument),
        (listing(&file("../../etc/passwd"), ""), ErrorKind::FailedPrecondition),
        (listing(&file(".."), ""), ErrorKind::FailedPrecondition),
        (listing("<Directory><Name>a</Name></Directory>", ""), ErrorKind::FailedPrecondition),
        (listing(&file(&"x".repeat(1 << 20)).repeat(17), ""), ErrorKind::ResourceExhausted),
        ("<html>CANARY Sign in</html>".to_owned(), ErrorKind::InvalidArgument),
    ] {
        let text = page.clone();
        let server = ScriptedServer::start(move |request| match request.target.contains("comp=list") {
            true => Response::new(200).body(text.clone()),
            false => Response::new(404).header("x-ms-error-code", "ResourceNotFound"),
        })
        .await;
        let at = "https://acct.file.core.windows.net/models/m";
        let error = resolved(at, &server.url(), &key("Q0FOQVJZAAAA")).await.unwrap_err();
        assert_says(&error, kind, &[at]);
        assert!(server.requests().len() < 300, "{page:.1000}: {} requests", server.requests().len());
    }
}
