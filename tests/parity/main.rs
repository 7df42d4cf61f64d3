//! `modelmount` beside the program that it replaces: KServe's `storage-initializer`, the real one from PyPI.
//!
//! Both are given the same URIs, directories and environment, and what they leave is compared file by file. Where they
//! differ, KServe has a fault that the project does not repeat. Such a difference is written out here, both sides of
//! it, with the name that it has in the table of `docs/kserve.md`: see [`differs`].
//!
//! | module | sources |
//! | --- | --- |
//! | `azure` | Azure Blob Storage and Azure Files |
//! | `container` | none: arguments, exit codes, what is left of failures |
//! | `gcs` | Google Cloud Storage |
//! | `git` | git |
//! | `hdfs` | HDFS |
//! | `huggingface` | Hugging Face |
//! | `local` | directories |
//! | `modelscope` | ModelScope |
//! | `oci` | registries |
//! | `s3` | S3 |
//! | `web` | web servers |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use modelmount_test_support::model::{self, Files};
use modelmount_test_support::{Hosts, tools};
use tempfile::TempDir;

mod azure;
mod container;
mod gcs;
mod git;
mod hdfs;
mod huggingface;
mod local;
mod modelscope;
mod oci;
mod s3;
mod web;

/// What KServe's container runs. Of Kerberos, which no test here has, its client of HDFS wants no more than that it can
/// be imported.
const INITIALIZER: &str = "
import sys
from unittest.mock import MagicMock
for name in 'krbcontext', 'krbcontext.context', 'requests_kerberos':
    sys.modules[name] = MagicMock()
from kserve_storage import Storage
Storage.download_files(sys.argv[1::2], sys.argv[2::2])
";

/// What both always have: so that nobody looks for a cloud's machine around them, or tells its maker of their work.
const SURROUNDINGS: &[(&str, &str)] = &[
    ("NO_GCE_CHECK", "true"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_XET", "1"),
    ("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", "false"),
];

/// The table that has all differences.
const TABLE: &str = include_str!("../../docs/kserve.md");

/// Environment of both.
type Environment = BTreeMap<String, String>;

fn environment<const N: usize>(variables: [(&str, &str); N]) -> Environment {
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The two programs.
struct Both {
    initializer: PathBuf,
    environment: Environment,
    directory: TempDir,
}

/// What became of one download: the files, or why there is none.
type Outcome = Result<Files, Refusal>;

/// How a program failed.
#[derive(Debug)]
struct Refusal {
    said: String,
    /// What it had put into the destination by then.
    left: Files,
}

impl Both {
    /// `None`, reported as a skip, when kserve-storage is not installed.
    fn new(environment: Environment) -> Option<Self> {
        // The interpreter itself: a shell between would drop variables whose names are none to it.
        let initializer = tools::require("kserve-storage")?.parent()?.parent()?.join("kserve/bin/python3");
        Some(Self { initializer, environment, directory: tempfile::tempdir().unwrap() })
    }

    /// The same, with another variable.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same, where https hosts are those, by KServe's bundle of the operator's authorities.
    fn among(self, hosts: &Hosts) -> Self {
        let mount = self.directory.path().join("authorities");
        fs::create_dir(&mount).unwrap();
        fs::write(mount.join("cabundle.crt"), hosts.ca_pem()).unwrap();
        // Some clients look for the one name, and some for the other.
        self.with("HTTPS_PROXY", &hosts.proxy())
            .with("https_proxy", &hosts.proxy())
            .with("CA_BUNDLE_CONFIGMAP_NAME", "authorities")
            .with("CA_BUNDLE_VOLUME_MOUNT_POINT", mount.to_str().unwrap())
    }

    /// What KServe's makes of it, and what ours does.
    fn download(&self, uri: &str) -> (Outcome, Outcome) {
        self.download_all(&[(uri, "")])
    }

    /// The same for several URIs, each with its directory below the destination.
    fn download_all(&self, pairs: &[(&str, &str)]) -> (Outcome, Outcome) {
        let mut theirs = Command::new(&self.initializer);
        theirs.args(["-c", INITIALIZER]);
        let ours = Command::new(env!("CARGO_BIN_EXE_modelmount"));
        (self.run(theirs, "theirs", pairs), self.run(ours, "ours", pairs))
    }

    /// Checks that both leave the same, and something.
    #[track_caller]
    fn same(&self, uri: &str) -> Files {
        self.same_all(&[(uri, "")])
    }

    #[track_caller]
    fn same_all(&self, pairs: &[(&str, &str)]) -> Files {
        match self.download_all(pairs) {
            (Ok(theirs), Ok(ours)) => {
                let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(&theirs), names(&ours), "{pairs:?}");
                assert!(theirs == ours, "{pairs:?}: files of the same names differ");
                assert!(!ours.is_empty(), "{pairs:?}");
                ours
            }
            (theirs, ours) => panic!("{pairs:?}: KServe's {theirs:?}, ours {ours:?}"),
        }
    }

    /// Checks that both leave the same, and something, but for files that only KServe's leaves: the difference of `row`.
    #[track_caller]
    fn same_but(&self, row: &str, only_theirs: impl Fn(&str) -> bool, uri: &str) -> Files {
        differs(row);
        let (theirs, ours) = self.download(uri);
        let (mut theirs, ours) = (theirs.unwrap(), ours.unwrap());
        let all = theirs.len();
        theirs.retain(|path, _| !only_theirs(path));
        assert!(theirs.len() < all, "{uri}: KServe's leaves nothing of its own");
        assert_eq!(names(&theirs), names(&ours), "{uri}");
        assert!(theirs == ours && !ours.is_empty(), "{uri}");
        ours
    }

    /// Checks that both refuse it, with the code that KServe looks at, and that ours leaves nothing.
    #[track_caller]
    fn refused(&self, uri: &str) -> String {
        match self.download(uri) {
            (Err(_), Err(ours)) => {
                assert!(ours.left.is_empty(), "{uri}: {:?} is left", names(&ours.left));
                ours.said
            }
            (theirs, ours) => panic!("{uri}: KServe's {theirs:?}, ours {ours:?}"),
        }
    }

    fn run(&self, mut command: Command, name: &str, pairs: &[(&str, &str)]) -> Outcome {
        let destination = self.directory.path().join(name);
        let scratch = self.directory.path().join("tmp");
        for directory in [&destination, &scratch] {
            if directory.exists() {
                fs::remove_dir_all(directory).unwrap();
            }
        }
        fs::create_dir(&scratch).unwrap();
        for (uri, below) in pairs {
            command.arg(uri).arg(destination.join(below));
        }
        command.env_clear().envs(SURROUNDINGS.iter().copied()).envs(&self.environment).env("TMPDIR", &scratch);
        command.env("HOME", self.directory.path()).env("PATH", std::env::var_os("PATH").unwrap());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let mut files = if destination.exists() { read(&destination) } else { Files::new() };
        if status.success() {
            return Ok(files);
        }
        // Kept for the next attempt, which goes on there.
        files.retain(|path, _| !path.split('/').any(|part| part == ".modelmount-pull"));
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(1), "{name}: {pairs:?}: {said}");
        Err(Refusal { said, left: files })
    }
}

/// The files of a destination. Links are followed: KServe's are to what is on the machine already.
fn read(destination: &Path) -> Files {
    model::read(destination).unwrap()
}

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

/// Files below `prefix`, without it.
fn below(files: &Files, prefix: &str) -> Files {
    let inside = files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(prefix)?.to_owned(), bytes.clone())));
    inside.collect()
}

/// A gzip-compressed tar of these files, which lies in `directory`.
fn packed(files: &Files, directory: &Path) -> Vec<u8> {
    let (content, archive) = (directory.join("content"), directory.join("packed.tar.gz"));
    model::write(files, &content).unwrap();
    let status = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&content).arg(".").status().unwrap();
    assert!(status.success());
    fs::remove_dir_all(content).unwrap();
    fs::read(archive).unwrap()
}

/// Says that what follows is meant to differ, and checks that the documentation says so too.
#[track_caller]
fn differs(row: &str) {
    assert!(TABLE.contains(&format!("\n| {row} | ")), "docs/kserve.md has no row {row:?}");
}

/// No difference is told of that nobody has seen.
#[test]
fn every_difference_of_the_table_is_shown_by_a_test() {
    let tests = [
        include_str!("azure.rs"),
        include_str!("container.rs"),
        include_str!("gcs.rs"),
        include_str!("git.rs"),
        include_str!("hdfs.rs"),
        include_str!("huggingface.rs"),
        include_str!("local.rs"),
        include_str!("modelscope.rs"),
        include_str!("oci.rs"),
        include_str!("s3.rs"),
        include_str!("web.rs"),
    ]
    .concat();
    let (_, table) = TABLE.split_once("| difference |").unwrap();
    let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows: Vec<_> = rows.map(|(row, _)| row).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let shown = ["differs(", "same_but("].iter().any(|call| tests.contains(&format!("{call}{row:?}")));
        assert!(shown, "{row:?} is shown by no test");
    }
}
