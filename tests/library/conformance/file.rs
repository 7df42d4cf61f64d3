//! Directories of this machine.

use std::path::Path;
use std::time::SystemTime;

use async_trait::async_trait;
use modelmount::model::MODEL_URI;
use modelmount::{Credentials, Policy};
use modelmount_test_support::conformance::{Attributes, Fixture, conformance};
use tempfile::TempDir;

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
