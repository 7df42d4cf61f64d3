//! Layers of images: what lies below a directory, and what one layer does to those under it.

use super::make::Tar;
use super::*;

/// The files of layers laid over one another.
fn stacked(layers: &[Tar], how: &Unpack) -> Vec<(String, usize)> {
    let read = |(index, tar): (usize, &Tar)| {
        let bytes = Tar::clone(tar).done();
        read_members(Cursor::new(bytes), how, &mut Kept::default(), Memory::Much).unwrap().unwrap().map(|_| index)
    };
    let layers: Vec<_> = layers.iter().enumerate().map(read).collect();
    stack(&layers).into_iter().map(|(path, layer)| (path.as_str().to_owned(), layer)).collect()
}

fn below() -> Unpack {
    layer("models")
}

#[test]
fn only_what_lies_below_is_taken_and_all_else_ignored() {
    let tar = Tar::new()
        .symlink("bin", "usr/bin")
        .member(b"dev/null", b'3', 0o666, "", b"")
        .member(b"usr/bin/su", b'0', 0o4755, "", b"x")
        .file("models-v2/a", b"not below")
        .file("model", b"not below")
        .member(b"\xff", b'0', 0o644, "", b"")
        .directory("models/")
        .file("models/a", b"1")
        .file("./models/b/c", b"2")
        .file("/models/d", b"3")
        .file("srv/models/e", b"not below")
        .open();
    let taken = unpack(&tar, &below()).unwrap().unwrap();
    assert_eq!(taken, files(&[("a", "1"), ("b/c", "2"), ("d", "3")]), "and a layer may lack the mark at its end");
}

#[test]
fn what_lies_below_is_as_strict_as_an_archive() {
    for (tar, hint) in [
        (Tar::new().symlink("models/a", "/etc/passwd"), "\"models/a\" is a symbolic link"),
        (Tar::new().symlink("models", "data"), "\"models\" is no directory"),
        (Tar::new().file("models/../../etc/passwd", b"x"), "can't be laid out"),
        (Tar::new().member(b"models/d", b'3', 0o644, "", b""), "is a device"),
        (Tar::new().member(b"models/s", b'0', 0o4755, "", b""), "set-user-id"),
        (Tar::new().hard_link("models/h", "etc/passwd"), "a hard link to a file that is not in the model"),
        (Tar::new().file("models/.wh.", b""), "removes nothing"),
        (Tar::new().file("models/.wh...", b""), "removes what can't be there"),
    ] {
        let (kind, text) = refusal(&tar.done(), &below());
        assert!(kind == ErrorKind::FailedPrecondition && text.contains(hint), "{text}");
    }
    let deep = layer("srv/models");
    assert!(refusal(&Tar::new().symlink("srv", "data").done(), &deep).1.contains("is no directory"));
}

#[test]
fn a_hard_link_within_the_layer_is_the_same_file() {
    let tar = Tar::new().file("models/a", b"1").hard_link("models/b", "models/a").hard_link("x", "models/a").done();
    assert_eq!(unpack(&tar, &below()).unwrap().unwrap(), files(&[("a", "1"), ("b", "1")]));
}

#[test]
fn upper_layers_replace_and_remove() {
    let base =
        || Tar::new().file("models/a", b"").file("models/d/b", b"").file("models/d/e/c", b"").file("models/dd", b"");
    let a = |name: &str, layer| (name.to_owned(), layer);
    for (upper, left) in [
        (Tar::new(), vec![a("a", 0), a("d/b", 0), a("d/e/c", 0), a("dd", 0)]),
        (Tar::new().file("models/a", b"new"), vec![a("a", 1), a("d/b", 0), a("d/e/c", 0), a("dd", 0)]),
        (Tar::new().file("models/.wh.a", b""), vec![a("d/b", 0), a("d/e/c", 0), a("dd", 0)]),
        (Tar::new().file("models/.wh.d", b""), vec![a("a", 0), a("dd", 0)]),
        (Tar::new().file("models/d/.wh.e", b""), vec![a("a", 0), a("d/b", 0), a("dd", 0)]),
        (
            Tar::new().file("models/d/.wh..wh..opq", b"").file("models/d/n", b""),
            vec![a("a", 0), a("d/n", 1), a("dd", 0)],
        ),
        (Tar::new().file("models/.wh..wh..opq", b"").file("models/n", b""), vec![a("n", 1)]),
        (Tar::new().file(".wh..wh..opq", b""), vec![]),
        (Tar::new().file(".wh.models", b"").file("models/n", b""), vec![a("n", 1)]),
        (
            Tar::new().file(".wh.model", b"").file("x/.wh..wh..opq", b""),
            vec![a("a", 0), a("d/b", 0), a("d/e/c", 0), a("dd", 0)],
        ),
        (
            Tar::new().file("models/.wh..wh.plnk/1.2", b"").file("models/d", b"file"),
            vec![a("a", 0), a("d", 1), a("dd", 0)],
        ),
        (Tar::new().directory("models/a/"), vec![a("d/b", 0), a("d/e/c", 0), a("dd", 0)]),
        (Tar::new().file("models/a/x", b""), vec![a("a/x", 1), a("d/b", 0), a("d/e/c", 0), a("dd", 0)]),
        // What a layer removes is below it, never its own, in whatever order they stand.
        (
            Tar::new().file("models/a", b"").file("models/.wh.a", b""),
            vec![a("a", 1), a("d/b", 0), a("d/e/c", 0), a("dd", 0)],
        ),
    ] {
        assert_eq!(stacked(&[base(), upper], &below()), left);
    }
    let three = [base(), Tar::new().file("models/.wh.a", b""), Tar::new().file("models/a", b"")];
    assert_eq!(stacked(&three, &below())[0], a("a", 2));
}

#[test]
fn in_an_archive_a_whiteout_is_a_file_like_any_other() {
    assert_eq!(all(&Tar::new().file(".wh.a", b"x").done()), files(&[(".wh.a", "x")]));
}
