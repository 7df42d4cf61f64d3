//! Directories, as a claim that KServe has mounted.

use std::fs;

use crate::{Both, differs, environment, names};

#[test]
fn directories_and_files() {
    let Some(both) = Both::new(environment([])) else { return };
    let model = tempfile::tempdir().unwrap();
    fs::create_dir(model.path().join("deep")).unwrap();
    fs::write(model.path().join("config.json"), "{}").unwrap();
    fs::write(model.path().join("deep/weights"), "weights").unwrap();
    let path = model.path().display();
    assert_eq!(names(&both.same(&format!("file://{path}"))), ["config.json", "deep/weights"]);
    // What KServe is given for a claim.
    assert_eq!(names(&both.same(&path.to_string())), ["config.json", "deep/weights"]);
    assert_eq!(names(&both.same(&format!("file://{path}/config.json"))), ["config.json"]);
    both.refused(&format!("file://{path}/none"));

    // It leaves out what a shell's star leaves out.
    differs("hidden files");
    fs::write(model.path().join(".hidden"), "part of it").unwrap();
    let (theirs, ours) = both.download(&format!("file://{path}"));
    assert_eq!(names(&theirs.unwrap()), ["config.json", "deep/weights"]);
    assert_eq!(names(&ours.unwrap()), [".hidden", "config.json", "deep/weights"]);
}
