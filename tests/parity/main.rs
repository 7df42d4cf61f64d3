//! `modelmount` beside the program that it replaces: KServe's `storage-initializer`, the real one from PyPI.
//!
//! Both are given the same URI, directory and environment, and what they leave is compared file by file. Where they
//! differ, KServe has a fault that the project does not repeat; such a difference is written out here, both sides of it.
//!
//! | module | sources |
//! | --- | --- |
//! | `s3` | S3 |
//! | `web` | web servers |
//! | `local` | directories |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use modelmount_test_support::model::{self, Files};
use modelmount_test_support::tools;
use tempfile::TempDir;

mod local;
mod s3;
mod web;

/// What KServe's container runs, for one pair.
const INITIALIZER: &str = "import sys; from kserve_storage import Storage; Storage.download(sys.argv[1], sys.argv[2])";

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

/// What became of one download: the files, or what was said.
type Outcome = Result<Files, String>;

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

    /// What KServe's makes of it, and what ours does.
    fn download(&self, uri: &str) -> (Outcome, Outcome) {
        let mut theirs = Command::new(&self.initializer);
        theirs.args(["-c", INITIALIZER]);
        let ours = Command::new(env!("CARGO_BIN_EXE_modelmount"));
        (self.run(theirs, "theirs", uri), self.run(ours, "ours", uri))
    }

    /// Checks that both leave the same, and something.
    #[track_caller]
    fn same(&self, uri: &str) -> Files {
        match self.download(uri) {
            (Ok(theirs), Ok(ours)) => {
                let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(&theirs), names(&ours), "{uri}");
                assert!(theirs == ours, "{uri}: files of the same names differ");
                assert!(!ours.is_empty(), "{uri}");
                ours
            }
            (theirs, ours) => panic!("{uri}: KServe's {theirs:?}, ours {ours:?}"),
        }
    }

    /// Checks that both refuse it, with the code that KServe looks at.
    #[track_caller]
    fn refused(&self, uri: &str) -> String {
        match self.download(uri) {
            (Err(_), Err(ours)) => ours,
            (theirs, ours) => panic!("{uri}: KServe's {theirs:?}, ours {ours:?}"),
        }
    }

    fn run(&self, mut command: Command, name: &str, uri: &str) -> Outcome {
        let destination = self.directory.path().join(name);
        if destination.exists() {
            fs::remove_dir_all(&destination).unwrap();
        }
        command.arg(uri).arg(&destination).env_clear().envs(&self.environment);
        command.env("HOME", self.directory.path()).env("PATH", std::env::var_os("PATH").unwrap());
        let Output { status, stdout, stderr } = command.output().unwrap();
        if status.success() {
            // Links are followed: KServe's are to what is on the machine already.
            return Ok(model::read(&destination).unwrap());
        }
        assert_eq!(status.code(), Some(1), "{name}: {uri}");
        Err(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }
}

fn names(files: &Files) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}
