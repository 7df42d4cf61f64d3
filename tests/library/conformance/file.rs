//! Directories of this machine.

use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use modelmount::model::MODEL_URI;
use modelmount::{Credentials, ErrorKind, Policy};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use tempfile::TempDir;

use crate::node::resolve_under;

struct FileFixture(TempDir);

#[async_trait]
impl Fixture for FileFixture {
    fn attributes(&self, path: &str) -> Attributes {
        [(MODEL_URI.to_owned(), format!("file://{}/{path}", self.0.path().display()))].into()
    }

    fn credentials(&self) -> Credentials {
        Credentials::none()
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        let target = self.0.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let staged = self.0.path().join("staged");
        std::fs::write(&staged, bytes).unwrap();
        let staged_file = std::fs::File::options().write(true).open(&staged).unwrap();
        staged_file.set_modified(SystemTime::now()).unwrap();
        std::fs::rename(&staged, target).unwrap();
    }

    async fn make_empty_directory(&self, path: &str) -> bool {
        std::fs::create_dir_all(self.0.path().join(path)).unwrap();
        true
    }

    fn policy(&self) -> Policy {
        Policy::new(Vec::new(), vec![self.0.path().to_owned()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_endless_names() {
    let fixture = FileFixture(tempfile::tempdir().unwrap());
    let deep = fixture.0.path().join("m").join([&*"x".repeat(250); 11].join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    for number in 0..7_000 {
        std::fs::write(deep.join(number.to_string()), "").unwrap();
    }
    let error = resolve_under(fixture.policy(), &fixture.attributes("m"), &Credentials::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("16 MiB of names: name a path further down"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_in_a_directory() {
    conformance(&FileFixture(tempfile::tempdir().unwrap())).await;
}

/// A file that is written to in place has a new version, although it is the same file.
#[tokio::test(flavor = "multi_thread")]
async fn file_written_in_place() {
    struct InPlace(FileFixture);

    #[async_trait]
    impl Fixture for InPlace {
        fn attributes(&self, path: &str) -> Attributes {
            self.0.attributes(path)
        }

        fn credentials(&self) -> Credentials {
            Credentials::none()
        }

        async fn put(&self, path: &str, bytes: Vec<u8>) {
            let target: &Path = &self.0.0.path().join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
        }

        fn policy(&self) -> Policy {
            self.0.policy()
        }
    }

    conformance(&InPlace(FileFixture(tempfile::tempdir().unwrap()))).await;
}
