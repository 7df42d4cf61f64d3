//! Who asks whom: users, those who stand in for others, namenodes that stand by, certificates.

use modelmount::source::Portion;
use modelmount::{Credentials, ErrorKind};
use modelmount_test_support::Proxy;
use modelmount_test_support::hdfs::OWNER;
use modelmount_test_support::model;

use super::{Directory, secret, uri, uri_at, user, with_certificate};
use crate::single::{assert_says, read, read_all, read_whole, refused, resolve};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_stands_in_for_the_user_that_it_may_stand_in_for() {
    let Some(directory) = Directory::new().await else { return };
    directory.put("m/weights", b"weights").await;
    let there = directory.attributes("m");
    let service = |proxied: &str| secret(&[("HADOOP_USER_NAME", "service"), ("USER_PROXY", proxied)]);
    resolve(&there, &service(OWNER)).await.unwrap();
    let error = refused(&there, &service("bob")).await;
    assert_says(&error, ErrorKind::PermissionDenied, &["webhdfs://", "impersonate", "grant"]);
    let error = refused(&there, &user("service")).await;
    assert_says(&error, ErrorKind::PermissionDenied, &["grant the right to read"]);
}

/// KServe's Secret, with KServe's form of URI.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_kserve_names_namenode_and_root() {
    let Some(directory) = Directory::new().await else { return };
    let files = model::small(1);
    for (path, bytes) in &files {
        directory.put(&format!("models/m/{path}"), bytes).await;
    }
    let root = format!("{}/", directory.path);
    let credentials = secret(&[
        ("HDFS_NAMENODE", &directory.hdfs.url()),
        ("HDFS_ROOTPATH", &root),
        ("HADOOP_USER_NAME", OWNER),
        ("N_THREADS", "2"),
        ("TLS_SKIP_VERIFY", "false"),
        ("HEADERS", r#"{"X-Test": "1"}"#),
    ]);
    let (source, manifest) = resolve(&uri("hdfs://models/m"), &credentials).await.unwrap();
    assert_eq!(read_all(&*source, &manifest).await.unwrap(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namenode_that_stands_by_or_is_gone_is_passed_over() {
    let Some(directory) = Directory::new().await else { return };
    directory.put("m/weights", b"weights").await;
    let path = format!("hdfs://{}/m", &directory.path[1..]);
    let gone = Proxy::start(directory.hdfs.url().replace("http://", "").parse().unwrap()).await;
    gone.refuse(true).await;
    let (active, standby) = (directory.hdfs.url(), directory.hdfs.standby_url());
    let (_, direct) = resolve(&uri_at(&path, &active), &user(OWNER)).await.unwrap();
    for namenodes in [format!("{standby},{active}"), format!("{};{active}", gone.url())] {
        let (source, manifest) = resolve(&uri_at(&path, &namenodes), &user(OWNER)).await.unwrap();
        assert_eq!(manifest.entries()[0].validator, direct.entries()[0].validator);
        let read = read_whole(&*source, &manifest.entries()[0]).await.unwrap();
        assert_eq!(read, b"weights", "{namenodes}");
    }
    let error = refused(&uri_at(&path, &standby), &user(OWNER)).await;
    assert_says(&error, ErrorKind::Unavailable, &["hdfs://", &standby, "standby"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    let Some(directory) = Directory::new().await else { return };
    directory.put("m/weights", b"weights").await;
    let there = directory.attributes_with_tls("m");
    resolve(&there, &with_certificate(&directory.hdfs, OWNER)).await.unwrap();
    // Nobody that the machine trusts has signed the server's certificate.
    let error = refused(&there, &user(OWNER)).await;
    assert_says(&error, ErrorKind::Unavailable, &["hdfs://", "can't connect", "certificate"]);
    // And the server wants to see one.
    let ca = &directory.hdfs.certificates().ca_pem;
    let error = refused(&there, &secret(&[("HADOOP_USER_NAME", OWNER), ("TLS_CA", ca)])).await;
    assert_says(&error, ErrorKind::Unavailable, &["hdfs://"]);
}

/// Models of one test are listed over several pages: a page of this server has 3 entries.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_a_directory_is_read() {
    let Some(directory) = Directory::new().await else { return };
    let names = ["a", "b", "c", "d", "é", "模", "~", "Z"];
    for name in names {
        directory.put(&format!("m/{name}"), name.as_bytes()).await;
    }
    let (_, manifest) = directory.resolve("m").await.unwrap();
    let mut found: Vec<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    let mut expected = names.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_across_blocks_are_exact() {
    let Some(directory) = Directory::new().await else { return };
    // A block has 1 MiB.
    let content = model::Pattern::new(1).bytes(0, (3 << 20) + 17);
    directory.put("m/weights", &content).await;
    let (source, manifest) = directory.resolve("m").await.unwrap();
    let entry = &manifest.entries()[0];
    for range in
        [0..content.len(), (1 << 20) - 1..(1 << 20) + 1, (2 << 20)..(3 << 20) + 1, content.len() - 1..content.len()]
    {
        let portion = Portion::Range(range.start as u64..range.end as u64);
        let read = read(&*source, entry, portion).await.unwrap();
        assert!(read == content[range.clone()], "{range:?}");
    }
    let nobody = Credentials::none();
    let error = refused(&directory.attributes("m"), &nobody).await;
    assert_says(&error, ErrorKind::Unauthenticated, &["HADOOP_USER_NAME", "HDFS_DELEGATION_TOKEN"]);
}
