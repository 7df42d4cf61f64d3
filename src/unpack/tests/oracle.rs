//! The same trees out of archives that tar, zip and the compressors made, in all their formats.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use modelmount_test_support::model::{self, Pattern};
use modelmount_test_support::tools::require;

use super::*;

/// What a program makes of bytes; `None` when it is not there.
pub(super) fn compress(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    compress_with(program, &["-c"], bytes)
}

pub(super) fn compress_with(program: &str, arguments: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let program = require(program)?;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let input = fs::File::open(file.path()).unwrap();
    let output = Command::new(program).args(arguments).stdin(input).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    Some(output.stdout)
}

/// A tree with what goes wrong in tars: long names, odd ones, empty files, files of whole blocks, empty directories.
fn tree() -> (tempfile::TempDir, Files) {
    let mut tree = model::small(9);
    tree.extend(model::odd(9));
    tree.insert(format!("{}/{}/{}", "d".repeat(90), "e".repeat(200), "f".repeat(255)), b"deep".to_vec());
    tree.insert(format!("{}/{}", "p".repeat(80), "q".repeat(80)), b"prefix".to_vec());
    tree.insert("block".into(), Pattern::new(1).bytes(0, 512));
    tree.insert("blocks".into(), Pattern::new(2).bytes(0, 200 * 512));
    tree.insert("-dash".into(), b"-".to_vec());
    let directory = tempfile::tempdir().unwrap();
    model::write(&tree, directory.path()).unwrap();
    fs::create_dir(directory.path().join("nothing in it")).unwrap();
    fs::set_permissions(directory.path().join("block"), fs::Permissions::from_mode(0o755)).unwrap();
    (directory, tree)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `None` when tar is not there.
fn tar(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    run(Command::new(require("tar")?).arg("-C").arg(directory).arg("-cf").arg(file.path()).args(arguments).arg("."));
    Some(fs::read(file.path()).unwrap())
}

#[test]
fn what_gnu_tar_makes() {
    let (directory, tree) = tree();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=posix", "--xattrs", "--acls"],
        &["--format=gnu", "--owner=very-long-owner-name:3000000", "--blocking-factor=1"],
        &["--format=pax", "--label=the label", "--sort=name"],
        &["--format=oldgnu", "--no-recursion", "block", "blocks", "empty"],
    ] {
        let Some(archive) = tar(directory.path(), arguments) else { return };
        let expected = if arguments.contains(&"--no-recursion") {
            tree.iter().filter(|(path, _)| matches!(path.as_str(), "block" | "blocks" | "empty")).map(clone).collect()
        } else {
            tree.clone()
        };
        assert!(all(&archive) == expected, "{arguments:?}: {:?}", all(&archive).keys());
    }
    for arguments in [["--format=ustar"], ["--format=v7"]] {
        // These have no room for long names.
        fs::remove_dir_all(directory.path().join("d".repeat(90))).unwrap_or(());
        if arguments == ["--format=v7"] {
            fs::remove_dir_all(directory.path().join("p".repeat(80))).unwrap();
        }
        let Some(archive) = tar(directory.path(), &arguments) else { return };
        let there = |path: &str| directory.path().join(path).exists();
        let expected: Files = tree.iter().filter(|(path, _)| there(path)).map(clone).collect();
        assert!(all(&archive) == expected, "{arguments:?}: {:?}", all(&archive).keys());
        assert_eq!(unpack(&archive, &how(Kind::Perhaps)).unwrap().unwrap().len(), expected.len());
    }
}

fn clone((path, bytes): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (path.clone(), bytes.clone())
}

#[test]
fn what_the_compressors_make() {
    let (directory, tree) = tree();
    let Some(plain) = tar(directory.path(), &[]) else { return };
    let half = plain.len() / 2;
    for (program, options) in [
        ("gzip", &["-1", "-9"][..]),
        ("bzip2", &["-1", "-9"]),
        ("xz", &["-0", "-6", "--check=sha256", "--check=none", "--block-size=10000"]),
        ("zstd", &["-1", "-19", "--no-check", "--long"]),
    ] {
        for option in options {
            let arguments = ["-c", option];
            let Some(packed) = compress_with(program, &arguments, &plain) else { return };
            assert!(all(&packed) == tree, "{program} {option}");
            let two = [&plain[..half], &plain[half..]].map(|half| compress_with(program, &arguments, half).unwrap());
            assert!(all(&two.concat()) == tree, "{program} {option}, two streams in a row");
        }
        let packed = compress(program, &plain).unwrap();
        for (damaged, what) in [
            (packed[..packed.len() - 3].to_vec(), "cut short"),
            (packed[..packed.len() / 2].to_vec(), "cut short in the middle"),
            ([&packed[..], b"garbage"].concat(), "going on"),
        ] {
            let (kind, text) = refusal(&damaged, &how(Kind::Archive));
            assert_eq!(kind, ErrorKind::Corrupt, "{program}, {what}: {text}");
        }
        let mut flipped = packed;
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        assert!(unpack(&flipped, &how(Kind::Archive)).is_err(), "{program}, one bit flipped");
    }
    // A frame that is to be skipped, as zstd:chunked has them.
    let Some(packed) = compress("zstd", &plain) else { return };
    let skipped = [b"\x51\x2a\x4d\x18\x05\0\0\0hello".as_slice(), &packed, b"\x50\x2a\x4d\x18\0\0\0\0"].concat();
    assert!(all(&skipped) == tree);
}

/// Memory is bounded: a stream that demands more is refused.
#[test]
fn windows_that_are_too_large() {
    let Some(packed) = compress_with("zstd", &["-c", "-1", "--long=31", "--no-content-size"], &[0; 1 << 20]) else {
        return;
    };
    assert!(unpack(&packed, &how(Kind::Archive)).is_err());
    let Some(packed) = compress_with("xz", &["-c", "--lzma2=dict=512MiB"], &[0; 1 << 20]) else { return };
    let (kind, text) = refusal(&packed, &how(Kind::Archive));
    assert!(kind == ErrorKind::Corrupt && text.contains("mem"), "{text}");
}

#[test]
fn what_zip_makes() {
    let (directory, tree) = tree();
    let Some(program) = require("zip") else { return };
    for arguments in [&["-0"][..], &["-9"], &["-6", "--force-zip64"], &["-X", "-D"], &["-5", "--archive-comment"]] {
        let file = directory.path().with_extension("zip");
        let mut command = Command::new(&program);
        command.current_dir(directory.path()).arg("-q").arg("-r").args(arguments).arg(&file).arg(".");
        command.stdin(Stdio::null());
        run(&mut command);
        let archive = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(all(&archive) == tree, "{arguments:?}: {:?}", all(&archive).keys());
    }
    // Written to a pipe: sizes follow the content.
    let output = Command::new(&program).current_dir(directory.path()).args(["-q", "-r", "-", "."]).output().unwrap();
    assert!(all(&output.stdout) == tree);
}

/// The three of them agree on what is in a link.
#[test]
fn links_are_found_in_archives_of_real_programs() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
    let Some(archive) = tar(directory.path(), &[]) else { return };
    assert!(refusal(&archive, &how(Kind::Archive)).1.contains("\"./link\" is a symbolic link"));
    let Some(zip) = require("zip") else { return };
    let file = directory.path().with_extension("zip");
    run(Command::new(zip).current_dir(directory.path()).args(["-q", "-r", "-y"]).arg(&file).arg("."));
    let (_, text) = refusal(&fs::read(&file).unwrap(), &how(Kind::Archive));
    fs::remove_file(file).unwrap();
    assert!(text.contains("\"link\" is a symbolic link"), "{text}");
    fs::remove_file(directory.path().join("link")).unwrap();
    fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
    let Some(archive) = tar(directory.path(), &["--sort=name"]) else { return };
    assert!(refusal(&archive, &how(Kind::Archive)).1.contains("is a hard link"));
    fs::File::create(directory.path().join("s")).unwrap().set_len(1 << 20).unwrap();
    let Some(archive) = tar(directory.path(), &["--sparse", "--exclude=./b"]) else { return };
    assert!(refusal(&archive, &how(Kind::Archive)).1.contains("\"./s\" is a sparse file"));
    let Some(archive) = tar(directory.path(), &["--sparse", "--format=pax", "--exclude=./b"]) else { return };
    assert!(refusal(&archive, &how(Kind::Archive)).1.contains("is a sparse file"));
}
