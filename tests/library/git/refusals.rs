//! What a user is told when it does not work; what is sent to whom; and servers that lie.

use modelmount::{Credentials, ErrorKind, Policy};
use modelmount_test_support::git::{Options, PASSWORD};
use modelmount_test_support::script::Response;
use modelmount_test_support::{GitServer, ScriptedServer};

use super::{at, credentials, password, uri};
use crate::node::resolve_under;
use crate::single::{CANARY, assert_says, read_whole, refused, resolve};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_git() {
    let Some(server) = GitServer::start(Options { private: true, ..Options::default() }).await else { return };
    let (url, good) = (server.url(), credentials());
    let empty = refused(&uri(&format!("git+{url}/model.git")), &good).await;
    assert_says(&empty, ErrorKind::NotFound, &["git+http://", "no commit yet"]);
    server.put("m/weights", b"weights");

    let missing = refused(&uri(&format!("git+{url}/other.git")), &good).await;
    assert_says(&missing, ErrorKind::NotFound, &["other.git", "check the URI"]);
    let revision = refused(&at(&url, "v7", "m"), &good).await;
    assert_says(&revision, ErrorKind::NotFound, &["git+http://", "\"v7\"", "check the revision"]);
    let commit = refused(&at(&url, &"7".repeat(40), "m"), &good).await;
    assert_says(&commit, ErrorKind::NotFound, &["git+http://", "not our ref"]);
    let path = refused(&at(&url, "main", "no/m"), &good).await;
    assert_says(&path, ErrorKind::NotFound, &["git+http://", "no/m", "check the path"]);
    let mut none = at(&url, "main", "m");
    none.insert("allowPatterns".into(), "*.gguf".into());
    assert_says(&refused(&none, &good).await, ErrorKind::NotFound, &["git+http://", "check the patterns"]);

    let wrong = refused(&at(&url, "main", "m"), &password(CANARY)).await;
    assert_says(&wrong, ErrorKind::Unauthenticated, &["git+http://", &url, "not accepted"]);
    let nobody = refused(&at(&url, "main", "m"), &Credentials::none()).await;
    assert_says(&nobody, ErrorKind::Unauthenticated, &["git+http://", "Secret", "GIT_PASSWORD"]);
    let elsewhere = refused(&uri("https://git.modelmount.invalid/m.git"), &good).await;
    assert_says(&elsewhere, ErrorKind::Unavailable, &["git.modelmount.invalid"]);

    let error = resolve_under(Policy::default(), &at(&url, "main", "m"), &good).await.map(drop).unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["git+http://", "--allow-address"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_end_between_listing_and_reading() {
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.put("weights", b"weights");
    server.put_lfs("large", b"large");
    let (source, manifest) = resolve(&at(&server.url(), "main", ""), &credentials()).await.unwrap();
    for entry in manifest.entries() {
        source.authorize(entry).await.unwrap();
        for (status, kind) in [(403, ErrorKind::PermissionDenied), (401, ErrorKind::Unauthenticated)] {
            server.refuse_with(status);
            assert_says(&source.authorize(entry).await.unwrap_err(), kind, &["git+http://"]);
            assert_says(&read_whole(&*source, entry).await.unwrap_err(), kind, &["git+http://"]);
        }
        server.refuse_with(0);
    }
    server.set_object(b"large", None);
    let gone = manifest.entries().iter().find(|entry| entry.path.as_str() == "large").unwrap();
    assert_says(&source.authorize(gone).await.unwrap_err(), ErrorKind::NotFound, &["git+http://", "Git LFS"]);
    assert_says(&read_whole(&*source, gone).await.unwrap_err(), ErrorKind::Changed, &["git+http://", "large"]);
}

/// Credentials are for the origin that the URI names: neither redirects nor Git LFS lead them away.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_with_their_origin() {
    let Some(server) = GitServer::start(Options { private: true, ..Options::default() }).await else { return };
    server.put("weights", b"weights");
    server.put_lfs("large", b"large");
    for repository in ["model", "moved", "away"] {
        let there = uri(&format!("git+{}/{repository}.git", server.url()));
        let (source, manifest) = resolve(&there, &credentials()).await.unwrap();
        for entry in manifest.entries() {
            // The other origin has no Git LFS.
            if (repository, entry.path.as_str()) != ("away", "large") {
                read_whole(&*source, entry).await.unwrap();
            }
        }
    }
    assert!(server.requests().iter().all(|request| request.header("authorization").is_some()));
    let elsewhere = server.other_requests();
    assert!(elsewhere.iter().any(|request| request.target.ends_with("/git-upload-pack")));
    assert!(elsewhere.iter().any(|request| request.target.starts_with("/lfs/")));
    for request in elsewhere {
        assert!(request.header("authorization").is_none(), "{request:?}");
        assert!(!format!("{request:?}").contains(PASSWORD));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_list_says_what_to_do() {
    let Some(server) = GitServer::start(Options { filter: false, ..Options::default() }).await else { return };
    server.put("weights", &vec![0; 70 << 20]);
    let error = refused(&at(&server.url(), "main", ""), &Credentials::none()).await;
    assert_says(&error, ErrorKind::ResourceExhausted, &["git+http://", "uploadpack.allowFilter", "Git LFS"]);
}

/// A megabyte of zeros is a kilobyte in a pack.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_inflates_to_a_thousand_times_its_size_arrives_in_pieces() {
    use futures_util::TryStreamExt;
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.put("zeros", &vec![0; 40 << 20]);
    let (source, manifest) = resolve(&at(&server.url(), "main", ""), &Credentials::none()).await.unwrap();
    let mut stream = source.read(&manifest.entries()[0], modelmount::source::Portion::Whole).await.unwrap();
    let mut size = 0;
    while let Some(piece) = stream.try_next().await.unwrap() {
        assert!(piece.len() <= 1 << 20);
        size += piece.len();
    }
    assert_eq!(size, 40 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_servers_are_told_from_git() {
    for (response, kind, hint) in [
        (
            Response::new(200).header("content-type", "text/html").body("<html>"),
            ErrorKind::InvalidArgument,
            "no git repository",
        ),
        (
            Response::new(200)
                .header("content-type", "application/x-git-upload-pack-advertisement")
                .body("001e# service=git-upload-pack\n0000000eversion 1\n0000"),
            ErrorKind::Unavailable,
            "version 2",
        ),
        (
            Response::new(200).header("content-type", "application/x-git-upload-pack-advertisement").body("zzzz"),
            ErrorKind::Unavailable,
            "not git's protocol",
        ),
        (Response::new(503), ErrorKind::Unavailable, "status 503"),
        (Response::new(302).header("location", "file:///etc/passwd"), ErrorKind::PermissionDenied, "file: URL"),
        (Response::new(302).header("location", "/model.git/info/refs"), ErrorKind::Unavailable, "redirects more than"),
    ] {
        let server = ScriptedServer::start(move |_| response.clone()).await;
        assert_says(
            &refused(&at(&server.url(), "main", "m"), &Credentials::none()).await,
            kind,
            &["git+http://", hint],
        );
    }
}

/// A server that sends another file than was asked for is found out before the last byte is given out.
#[tokio::test(flavor = "multi_thread")]
async fn another_blob_is_never_taken_for_the_one_that_was_asked_for() {
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.write("a", b"the first");
    server.write("b", b"the other");
    server.commit();
    let upstream = server.url();
    let id = |path: &str| server.git(&["rev-parse", &format!("HEAD:{path}")]).trim().to_owned();
    let (a, b) = (id("a"), id("b"));
    // Passes everything on, and asks for b wherever a is wanted.
    let liar = ScriptedServer::start(move |request| {
        let (upstream, request, a, b) = (upstream.clone(), request.clone(), a.clone(), b.clone());
        tokio::task::block_in_place(move || {
            tokio::runtime::Handle::current().block_on(async move {
                let client = modelmount_test_support::http::client();
                let body = String::from_utf8_lossy(&request.body).replace(&a, &b);
                let mut passed =
                    client.request(request.method.parse().unwrap(), format!("{upstream}{}", request.target));
                for name in ["content-type", "git-protocol"] {
                    if let Some(value) = request.header(name) {
                        passed = passed.header(name, value);
                    }
                }
                let answer = passed.body(body).send().await.unwrap();
                let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
                Response::new(answer.status().as_u16()).header("content-type", kind).body(answer.bytes().await.unwrap())
            })
        })
    })
    .await;
    let (source, lied) = resolve(&at(&liar.url(), "main", ""), &Credentials::none()).await.unwrap();
    let error = read_whole(&*source, &lied.entries()[0]).await.unwrap_err();
    assert_says(&error, ErrorKind::Corrupt, &["git+http://", "object id"]);
    assert_eq!(read_whole(&*source, &lied.entries()[1]).await.unwrap(), b"the other");
}
