//! What a user is told when it does not work: the right kind, the URI, what to do, and no secret.

use modelmount::{Credentials, ErrorKind, Policy};
use modelmount_test_support::Proxy;
use modelmount_test_support::hdfs::OWNER;

use super::{Directory, secret, uri, user};
use crate::node::resolve_under;
use crate::single::{CANARY, assert_says, read_whole, refused};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_hadoop() {
    let Some(directory) = Directory::new().await else { return };
    directory.put("m/weights", b"weights").await;
    let (there, owner) = (directory.attributes("m"), user(OWNER));

    let missing = refused(&directory.attributes("no-model"), &owner).await;
    assert_says(&missing, ErrorKind::NotFound, &["webhdfs://", "no-model", "check the path"]);

    directory.hdfs.make_directory(&format!("{}/hollow/a/b", directory.path)).await;
    let empty = refused(&directory.attributes("hollow"), &owner).await;
    assert_says(&empty, ErrorKind::NotFound, &["webhdfs://", "has no files", "check the path"]);

    let mut none = there.clone();
    none.insert("allowPatterns".into(), "*.gguf".into());
    assert_says(&refused(&none, &owner).await, ErrorKind::NotFound, &["webhdfs://", "check the patterns"]);

    let file = refused(&directory.attributes("m/weights/"), &owner).await;
    assert_says(&file, ErrorKind::NotFound, &["is a file"]);

    let wrong = refused(&there, &user("mallory")).await;
    assert_says(&wrong, ErrorKind::PermissionDenied, &["webhdfs://", "mallory", "grant the right to read"]);
    let nobody = refused(&there, &Credentials::none()).await;
    assert_says(&nobody, ErrorKind::Unauthenticated, &["webhdfs://", "Secret", "HADOOP_USER_NAME"]);

    for (secrets, hint) in [
        (&[("KERBEROS_PRINCIPAL", CANARY), ("KERBEROS_KEYTAB", CANARY)][..], "hdfs fetchdt"),
        (&[("TLS_SKIP_VERIFY", "true")], "TLS_CA"),
    ] {
        assert_says(&refused(&there, &secret(secrets)).await, ErrorKind::InvalidArgument, &["webhdfs://", hint]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_end_between_listing_and_reading() {
    let Some(directory) = Directory::new().await else { return };
    directory.put("m/weights", b"weights").await;
    let (source, manifest) = directory.resolve("m").await.unwrap();
    let entry = &manifest.entries()[0];
    source.authorize(entry).await.unwrap();
    // The directory may still be listed, so that the namenode tells the file's status as before.
    directory.hdfs.set_permission(&format!("{}/m/weights", directory.path), "000").await;
    let hints = &["webhdfs://", "grant the right to read"];
    assert_says(&source.authorize(entry).await.unwrap_err(), ErrorKind::PermissionDenied, hints);
    assert_says(&read_whole(&*source, entry).await.unwrap_err(), ErrorKind::PermissionDenied, hints);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_places() {
    let Some(directory) = Directory::new().await else { return };
    let hdfs = &directory.hdfs;
    let rpc = refused(&uri(&format!("hdfs://127.0.0.1:{}/m", hdfs.rpc_port())), &user(OWNER)).await;
    assert_says(&rpc, ErrorKind::InvalidArgument, &["hdfs://127.0.0.1", "RPC port", "9870"]);

    let tls = hdfs.tls_url().replace("https", "webhdfs");
    let error = refused(&uri(&format!("{tls}/m")), &user(OWNER)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");

    // RFC 6761: no resolver may ever know a name below "invalid".
    let nowhere = refused(&uri("hdfs://namenode.modelmount.invalid/m"), &user(OWNER)).await;
    assert_says(&nowhere, ErrorKind::Unavailable, &["namenode.modelmount.invalid"]);

    let proxy = Proxy::start(hdfs.url().replace("http://", "").parse().unwrap()).await;
    let through = uri(&format!("hdfs://{}{}/m", proxy.address(), directory.path));
    let error = resolve_under(Policy::default(), &through, &user(OWNER)).await.map(drop).unwrap_err();
    assert_says(&error, ErrorKind::PermissionDenied, &["hdfs://", "--allow-address"]);
    assert_eq!(proxy.connections(), 0, "refused before a connection is made");
}
