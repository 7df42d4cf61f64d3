//! What a real Hadoop does not do on demand: redirects to the wrong places, listings that lie, tokens that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::ScriptedServer;
use modelmount_test_support::script::{Request, Response};

use super::{secret, uri, uri_at, user};
use crate::single::{CANARY, assert_says, read_whole, refused, resolve};

fn file(name: &str, id: u64, length: usize) -> String {
    format!(r#"{{"fileId":{id},"length":{length},"modificationTime":1,"pathSuffix":"{name}","type":"FILE"}}"#)
}

fn directory(name: &str) -> String {
    format!(r#"{{"length":0,"modificationTime":1,"pathSuffix":"{name}","type":"DIRECTORY"}}"#)
}

fn statuses(entries: &[String]) -> String {
    format!(r#"{{"FileStatuses":{{"FileStatus":[{}]}}}}"#, entries.join(","))
}

fn status(status: &str) -> Response {
    Response::new(200).body(format!(r#"{{"FileStatus":{status}}}"#))
}

fn exception(code: u16, name: &str, message: &str) -> Response {
    let body = format!(r#"{{"RemoteException":{{"exception":"{name}","javaClassName":"x","message":"{message}"}}}}"#);
    Response::new(code).body(body)
}

fn operation(request: &Request) -> &str {
    let query = request.target.split_once('?').unwrap().1;
    query.split('&').find_map(|pair| pair.strip_prefix("op=")).unwrap()
}

fn attributes(server: &ScriptedServer, path: &str) -> modelmount_test_support::conformance::Attributes {
    uri(&format!("hdfs://{}{path}", server.address()))
}

/// The token says who asks, to the namenode; to the datanode says what the namenode gave.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_where_they_belong() {
    let datanode = ScriptedServer::start(|_| Response::new(200).body("hello")).await;
    let location = format!("{}/webhdfs/v1/m?op=OPEN&delegation=BLOCKTOKEN", datanode.url());
    let namenode = ScriptedServer::start(move |request| match operation(request) {
        "OPEN" => Response::new(307).header("location", location.clone()),
        _ => status(&file("", 7, 5)),
    })
    .await;
    let secrets = secret(&[
        ("HDFS_DELEGATION_TOKEN", CANARY),
        ("HEADERS", r#"{"X-Gateway": "one"}"#),
        ("username", "u"),
        ("password", CANARY),
    ]);
    let (source, manifest) = resolve(&attributes(&namenode, "/m"), &secrets).await.unwrap();
    assert_eq!(read_whole(&*source, &manifest.entries()[0]).await.unwrap(), b"hello");
    for asked in namenode.requests() {
        assert!(asked.target.ends_with(&format!("&delegation={CANARY}")), "{asked:?}");
        assert_eq!(asked.header("x-gateway"), Some("one"));
        assert!(asked.header("authorization").unwrap().starts_with("Basic "));
    }
    let [read] = &datanode.requests()[..] else { panic!("one read") };
    assert_eq!(read.target, "/webhdfs/v1/m?op=OPEN&delegation=BLOCKTOKEN");
    assert!(read.header("x-gateway").is_none() && read.header("authorization").is_none(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_kerberized_cluster() {
    for (answer, secrets, kind, hint) in [
        (
            Response::new(401).header("www-authenticate", "Negotiate").body("<html>"),
            Credentials::none(),
            ErrorKind::Unauthenticated,
            "hdfs fetchdt",
        ),
        (
            exception(403, "InvalidToken", &format!("token {CANARY} can't be found in cache")),
            secret(&[("HDFS_DELEGATION_TOKEN", CANARY)]),
            ErrorKind::Unauthenticated,
            "put a new one into the Secret: token [redacted] can't be found",
        ),
        (
            exception(401, "SecurityException", "Failed to obtain user group information"),
            secret(&[("HDFS_DELEGATION_TOKEN", CANARY)]),
            ErrorKind::Unauthenticated,
            "not accepted",
        ),
        (exception(403, "SafeModeException", "it starts"), user("a"), ErrorKind::Unavailable, "come back later"),
        (Response::new(200).body("<html>Log in"), user("a"), ErrorKind::Unavailable, "not what WebHDFS says"),
        (Response::new(404).body("<html>"), user("a"), ErrorKind::InvalidArgument, "check host and port"),
    ] {
        let server = ScriptedServer::start(move |_| answer.clone()).await;
        assert_says(&refused(&attributes(&server, "/m"), &secrets).await, kind, &["hdfs://", hint]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_lead_to_datanodes_or_to_an_error() {
    for (location, kind, hint) in [
        ("file:///etc/passwd", ErrorKind::PermissionDenied, "file: URL"),
        ("/webhdfs/v1/m?op=OPEN", ErrorKind::Unavailable, "redirected more than"),
        ("http://[", ErrorKind::PermissionDenied, "no valid place"),
    ] {
        let server = ScriptedServer::start(move |request| match operation(request) {
            "OPEN" => Response::new(307).header("location", location),
            _ => status(&file("", 7, 5)),
        })
        .await;
        let (source, manifest) = resolve(&attributes(&server, "/m"), &user("a")).await.unwrap();
        assert_says(&read_whole(&*source, &manifest.entries()[0]).await.unwrap_err(), kind, &["hdfs://", hint]);
    }
}

/// HDFS reads by name: what was put in a file's place after the first look is found by the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_while_it_is_read_is_changed() {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let server = ScriptedServer::start(move |request| match operation(request) {
        // When it is listed and before it is read the first file, afterwards the second.
        "GETFILESTATUS" => status(&file("", if seen.fetch_add(1, Ordering::SeqCst) < 2 { 7 } else { 8 }, 5)),
        _ => Response::new(200).body("other"),
    })
    .await;
    let (source, manifest) = resolve(&attributes(&server, "/m"), &user("a")).await.unwrap();
    let error = read_whole(&*source, &manifest.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::Changed, &["hdfs://", "has changed"]);
    assert_eq!(looks.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_another_length_are_an_error() {
    for (body, hint) in [("hell", "fewer"), ("hello!", "more")] {
        let server = ScriptedServer::start(move |request| match operation(request) {
            "OPEN" => Response::new(200).body(body),
            _ => status(&file("", 7, 5)),
        })
        .await;
        let (source, manifest) = resolve(&attributes(&server, "/m"), &user("a")).await.unwrap();
        let error = read_whole(&*source, &manifest.entries()[0]).await.unwrap_err();
        assert_says(&error, ErrorKind::Unavailable, &[hint]);
    }
}

/// Gateways and old namenodes list a directory in one answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_pages_is_asked_for_all_at_once() {
    let directory = r#"{"length":0,"modificationTime":1,"pathSuffix":"","type":"DIRECTORY"}"#;
    let all = format!(r#"{{"FileStatuses":{{"FileStatus":[{},{}]}}}}"#, file("a", 1, 1), file("b", 2, 1));
    let first = format!(
        r#"{{"DirectoryListing":{{"partialListing":{{"FileStatuses":{{"FileStatus":[{}]}}}},"remainingEntries":1}}}}"#,
        file("a", 1, 1)
    );
    for answer in [
        exception(400, "IllegalArgumentException", r#"Invalid value for webhdfs parameter \"op\": No enum constant"#),
        exception(500, "UnsupportedOperationException", "no"),
        // One that does not understand where to go on.
        Response::new(200).body(first),
    ] {
        let all = all.clone();
        let server = ScriptedServer::start(move |request| match operation(request) {
            "GETFILESTATUS" => status(directory),
            "LISTSTATUS_BATCH" => answer.clone(),
            _ => Response::new(200).body(all.clone()),
        })
        .await;
        let (_, manifest) = resolve(&attributes(&server, "/m"), &user("a")).await.unwrap();
        assert_eq!(manifest.entries().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_listings_end_in_an_error() {
    let link =
        r#"{"length":0,"modificationTime":1,"pathSuffix":"l","type":"SYMLINK","symlink":"/etc/passwd"}"#.to_owned();
    let long = "x".repeat(250);
    for (entry, kind, hint) in [
        (file("../../etc/passwd", 1, 1), ErrorKind::Unavailable, "entry with the name"),
        (file("..", 1, 1), ErrorKind::Unavailable, "entry with the name"),
        (directory(&long), ErrorKind::Unavailable, "never end"),
        (link, ErrorKind::FailedPrecondition, "symbolic link"),
    ] {
        let top = directory("");
        let listing = statuses(&[entry]);
        let server = ScriptedServer::start(move |request| match operation(request) {
            "GETFILESTATUS" => status(&top),
            "LISTSTATUS_BATCH" => exception(500, "UnsupportedOperationException", "no"),
            _ => Response::new(200).body(listing.clone()),
        })
        .await;
        assert_says(&refused(&attributes(&server, "/m"), &user("a")).await, kind, &["hdfs://", hint]);
    }
}

/// In one directory, with pages and without, and in many.
#[tokio::test(flavor = "multi_thread")]
async fn listings_of_endless_names() {
    let page = |entries: &[String]| {
        format!(r#"{{"DirectoryListing":{{"partialListing":{},"remainingEntries":1}}}}"#, statuses(entries))
    };
    let names =
        |many: u64| (0..many).map(|id| file(&format!("{id}{}", "x".repeat(1 << 20)), id, 1)).collect::<Vec<_>>();
    let long = "x".repeat(200);
    for (paged, top, inner) in [
        (true, page(&names(17)), String::new()),
        (false, statuses(&names(17)), String::new()),
        (false, statuses(&[directory("a"), directory(&long)]), statuses(&names(9))),
    ] {
        let root = directory("");
        let server = ScriptedServer::start(move |request| match operation(request) {
            "GETFILESTATUS" => status(&root),
            "LISTSTATUS_BATCH" if !paged => exception(500, "UnsupportedOperationException", "no"),
            _ if request.target.contains("/v1/m?") => Response::new(200).body(top.clone()),
            _ => Response::new(200).body(inner.clone()),
        })
        .await;
        let error = refused(&attributes(&server, "/m"), &user("a")).await;
        assert_says(&error, ErrorKind::ResourceExhausted, &["hdfs://", "16 MiB of names: name a path further down"]);
    }
}

/// No more is held in memory than that it is too much.
#[tokio::test(flavor = "multi_thread")]
async fn a_level_of_many_directories_is_not_listed_to_its_end() {
    let (root, top) = (directory(""), statuses(&(0..200).map(|i| directory(&i.to_string())).collect::<Vec<_>>()));
    let wide = statuses(&(0..10).map(|id| file(&format!("{id}{}", "x".repeat(100_000)), id, 1)).collect::<Vec<_>>());
    let server = ScriptedServer::start(move |request| match operation(request) {
        "GETFILESTATUS" => status(&root),
        "LISTSTATUS_BATCH" => exception(500, "UnsupportedOperationException", "no"),
        _ if request.target.contains("/v1/m?") => Response::new(200).body(top.clone()),
        _ => Response::new(200).body(wide.clone()),
    })
    .await;
    let error = refused(&attributes(&server, "/m"), &user("a")).await;
    assert_says(&error, ErrorKind::ResourceExhausted, &["16 MiB of names"]);
    let listed = server.requests().iter().filter(|request| operation(request) == "LISTSTATUS").count();
    assert!(listed < 100, "{listed} directories were listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_answers_by_itself_below_its_own_path() {
    let server = ScriptedServer::start(|request| {
        assert!(request.target.starts_with("/gateway/default/webhdfs/v1/models/m?"), "{request:?}");
        match operation(request) {
            "OPEN" => Response::new(200).body("hello"),
            _ => status(r#"{"length":5,"modificationTime":1,"pathSuffix":"","type":"FILE"}"#),
        }
    })
    .await;
    let there = uri_at("hdfs://models/m", &format!("{}/gateway/default", server.url()));
    let (source, manifest) = resolve(&there, &secret(&[("username", "u"), ("password", "p")])).await.unwrap();
    assert_eq!(read_whole(&*source, &manifest.entries()[0]).await.unwrap(), b"hello");
}
