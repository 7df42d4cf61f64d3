//! Finds the programs that tests run: servers, and the tools that benchmarks compare with.
//!
//! A program that is missing skips the test that wants it, and never silently: the skip is printed past the test
//! harness's capture, noted in the file that `MODELMOUNT_SKIP_FILE` names, and a failure where `CI` is `true`.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

/// Names the directory whose `bin/` is searched first.
pub const TOOLS_VARIABLE: &str = "MODELMOUNT_TOOLS";
/// Names the file to which every skipped test appends a line, `name<TAB>reason`.
pub const SKIPS_VARIABLE: &str = "MODELMOUNT_SKIP_FILE";

/// The program `name`: from `$MODELMOUNT_TOOLS/bin` (by default `~/.cache/modelmount-tools/bin`), else from `PATH`, else
/// from the directories for administrators, which a user's `PATH` often lacks.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let fallback = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    directory()
        .map(|tools| tools.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(fallback)
        .map(|directory| directory.join(name))
        .find(|candidate| is_program(candidate))
}

/// As [`find`]; a program that is missing is reported as the reason for skipping the running test.
///
/// ```no_run
/// # fn test() {
/// let Some(s5cmd) = modelmount_test_support::tools::require("s5cmd") else { return };
/// # }
/// ```
///
/// # Panics
/// When the program is missing and `CI` is `true`: there, everything must run.
pub fn require(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(&format!("{name} not found; run make tools"));
    }
    found
}

/// Reports that the running test is skipped, for `reason`. The test returns after it.
///
/// # Panics
/// When `CI` is `true`.
pub fn skip(reason: &str) {
    // libtest names a test's thread after the test.
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}");
    assert!(env::var("CI").as_deref() != Ok("true"), "{line} (CI=true: nothing may be skipped)");
    // The macros' output is captured and hidden when a test passes, as a skipped one does.
    writeln!(io::stderr().lock(), "{line}").ok();
    if let Some(file) = env::var_os(SKIPS_VARIABLE) {
        let mut file =
            OpenOptions::new().create(true).append(true).open(&file).expect("MODELMOUNT_SKIP_FILE is writable");
        // One write, so that the lines of concurrent tests don't mix.
        file.write_all(format!("{test}\t{reason}\n").as_bytes()).expect("MODELMOUNT_SKIP_FILE is writable");
    }
}

fn directory() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(TOOLS_VARIABLE).or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
        Some(cache.join("modelmount-tools"))
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_and_what_is_no_program_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
        assert!(!is_program(Path::new("/etc/passwd")) && !is_program(Path::new("/")));
    }
}
