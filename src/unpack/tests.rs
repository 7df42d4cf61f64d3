use super::*;

mod hostile;
mod images;
mod make;
mod oracle;

use make::{Tar, gzip};

/// Keeps what it is given.
#[derive(Default)]
struct Kept {
    files: Vec<Vec<u8>>,
    complete: usize,
}

impl Receiver for Kept {
    fn begin(&mut self) -> Result<()> {
        self.files.push(Vec::new());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.files.last_mut().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.complete += 1;
        Ok(())
    }
}

type Files = BTreeMap<String, Vec<u8>>;

fn how(kind: Kind) -> Unpack {
    Unpack { kind, below: None, into: None, selection: Selection::default() }
}

fn layer(below: &str) -> Unpack {
    Unpack::layer(0, Some(RelPath::parse(below).unwrap()))
}

/// The files in an archive; `None` when it is none.
fn unpack(archive: &[u8], how: &Unpack) -> Result<Option<Files>> {
    let mut kept = Kept::default();
    let unpacked = read_members(Cursor::new(archive), how, &mut kept, Memory::Much)?;
    assert_eq!(kept.complete, kept.files.len(), "what was begun is ended when all went well");
    let file = |(path, number): (RelPath, usize)| (path.as_str().to_owned(), kept.files[number].clone());
    Ok(unpacked.map(|unpacked| unpacked.files.into_iter().map(file).collect()))
}

fn all(archive: &[u8]) -> Files {
    unpack(archive, &how(Kind::Archive)).unwrap().unwrap()
}

fn refusal(archive: &[u8], how: &Unpack) -> (ErrorKind, String) {
    let error = unpack(archive, how).map(|files| files.map(|files| files.into_keys().collect::<Vec<_>>()));
    let error = error.expect_err("it should be refused");
    (error.kind(), error.report())
}

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

#[test]
fn names_decide_what_may_be_unpacked() {
    let kind = |archives: &str, name| {
        let archives: Archives = archives.parse().unwrap();
        archives.unpack(&RelPath::parse(name).unwrap()).map(|unpack| unpack.kind)
    };
    for archive in ["m.tar", "M.TAR.GZ", "a/m.tgz", "m.tar.bz2", "m.tar.xz", "m.tar.zst", "m.zip"] {
        assert_eq!(kind("auto", archive), Some(Kind::Archive), "{archive}");
        assert_eq!(kind("never", archive), None, "{archive}");
    }
    for unclear in ["model", "a.b/model", "model-v1.2", ".hidden", "m.something-long-no-extension"] {
        assert_eq!(kind("auto", unclear), Some(Kind::Perhaps), "{unclear}");
    }
    for model in ["m.pt", "m.bin", "m.bin.gz", "m.nemo", "m.mar", "m.safetensors", "m.GGUF"] {
        assert_eq!(kind("auto", model), None, "{model}");
        assert_eq!(kind("always", model), Some(Kind::Archive), "{model}");
    }
    assert!("yes".parse::<Archives>().unwrap_err().to_string().contains("\"never\""));
}

#[test]
fn what_is_no_archive_stays_a_file_or_is_told_by_its_beginning() {
    let page = b"<!DOCTYPE html><html><body>Please log in".as_slice();
    let weights = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9];
    let zeros = [0; 4096];
    for plain in
        [b"".as_slice(), page, &weights, &zeros, &gzip(page), &gzip(b""), &gzip(page)[..15], b"BZh9 is no bzip2"]
    {
        assert_eq!(unpack(plain, &how(Kind::Perhaps)).unwrap(), None);
    }
    for (bytes, hint) in [
        (page, "it begins with \"<!DOCTYPE html><html><bo\""),
        (b"", "it is empty"),
        (&weights, "it begins with the bytes 80 02 8a 0a"),
        (&gzip(page), "what is compressed in it (by gzip) is no tar, and begins with \"<!DOCTYPE"),
        ("modèle é é é é é é é é é é".as_bytes(), "it begins with \"modèle é"),
    ] {
        for kind in [Kind::Archive, Kind::Layer(0)] {
            let (kind, text) = refusal(bytes, &how(kind));
            assert_eq!(kind, ErrorKind::FailedPrecondition);
            assert!(text.contains(hint), "{text}");
        }
    }
}

#[test]
fn an_archive_is_known_by_its_bytes() {
    let tar = Tar::new().file("a", b"x").file("b/c", b"yy").done();
    for archive in [tar.clone(), gzip(&tar), [gzip(&tar[..700]), gzip(&tar[700..])].concat()] {
        for kind in [Kind::Perhaps, Kind::Archive, Kind::Layer(3)] {
            assert_eq!(unpack(&archive, &how(kind)).unwrap().unwrap(), files(&[("a", "x"), ("b/c", "yy")]));
        }
    }
    let zip = make::zip(&[("a", b"x")]);
    assert_eq!(all(&zip), files(&[("a", "x")]));
    assert_eq!(unpack(&zip, &how(Kind::Perhaps)).unwrap().unwrap(), files(&[("a", "x")]));
    assert!(refusal(&zip, &how(Kind::Layer(0))).1.contains("begins with the bytes 50 4b 03 04"), "layers are tars");
    // One without members is one, unless nothing says so.
    assert_eq!(all(&[0; 1024]), Files::new());
    assert_eq!(all(&make::zip(&[])), Files::new());
}

#[test]
fn patterns_select_before_anything_is_refused() {
    let tar = Tar::new().file("./a.json", b"x").symlink("latest", "a.json").file("../b", b"y").done();
    let (kind, text) = refusal(&tar, &how(Kind::Archive));
    assert!(kind == ErrorKind::FailedPrecondition && text.contains("\"latest\" is a symbolic link"), "{text}");
    let selection = Selection::parse(Some("*.json"), None).unwrap();
    let selected = Unpack { selection, ..how(Kind::Archive) };
    assert_eq!(unpack(&tar, &selected).unwrap().unwrap(), files(&[("a.json", "x")]));
}

#[test]
fn of_two_members_with_one_name_the_last_counts() {
    let tar = Tar::new().file("a", b"old").file("./a", b"new").done();
    assert_eq!(all(&tar), files(&[("a", "new")]));
}

#[test]
fn a_key_is_the_same_wherever_the_files_go() {
    let below = || Some(RelPath::parse("models").unwrap());
    let origin = Digest::of("layer");
    let key = |unpack: &Unpack| unpack.key(origin);
    let moved = Unpack::layer(1, below()).moved(&RelPath::parse("base").unwrap()).unwrap();
    assert_eq!(key(&Unpack::layer(1, below())), key(&Unpack::layer(7, below())));
    assert_eq!(key(&Unpack::layer(1, below())), key(&moved));
    let selection = Selection::parse(Some("*.json"), None).unwrap();
    for other in [Unpack::layer(1, None), how(Kind::Archive), Unpack { selection, ..Unpack::layer(1, below()) }] {
        assert_ne!(key(&Unpack::layer(1, below())), key(&other));
    }
    assert_ne!(Unpack::layer(1, below()).key(origin), Unpack::layer(1, below()).key(Digest::of("other")));
}
