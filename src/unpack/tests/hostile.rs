//! What must be refused, and with which words.

use proptest::prelude::*;

use super::make::{Stored, Tar, gzip, header, pax_records, sum, zip, zip_of, zstd};
use super::*;

fn refused(archive: &[u8], hint: &str) {
    let (kind, text) = refusal(archive, &how(Kind::Archive));
    assert_eq!(kind, ErrorKind::FailedPrecondition, "{text}");
    assert!(text.contains(hint), "{text:?} does not say {hint:?}");
}

fn corrupt(archive: &[u8], hint: &str) {
    let (kind, text) = refusal(archive, &how(Kind::Archive));
    assert_eq!(kind, ErrorKind::Corrupt, "{text}");
    assert!(text.contains(hint), "{text:?} does not say {hint:?}");
}

#[test]
fn names_that_lead_out_or_nowhere() {
    for (name, problem) in [
        ("/etc/passwd", "is absolute"),
        ("../up", "a component \".\" or \"..\""),
        ("a/../../up", "a component \".\" or \"..\""),
        (".//a", "is absolute"),
        ("a//b", "an empty component"),
        ("a/./b", "a component \".\""),
        ("a\nb", "a control character"),
        ("..", "a component"),
        ("", "has no name"),
        ("./", "has no name"),
    ] {
        let tar = Tar::new().file(name, b"x").done();
        // A name that ends in a slash is a directory's in old tars, if it has no content.
        refused(&tar, problem);
        refused(&zip(&[(name, b"x")]), problem);
        if name != "./" && !name.is_empty() {
            // A long name, in both ways in which tars have them.
            refused(&Tar::new().pax(&[("path", name)]).file("innocent", b"x").done(), problem);
            let long = Tar::new().member(b"long", b'L', 0, "", format!("{name}\0").as_bytes());
            refused(&long.file("innocent", b"x").done(), problem);
        }
    }
    refused(&Tar::new().member(b"\xff\xfe", b'0', 0o644, "", b"x").done(), "not UTF-8");
    refused(
        &Tar::new().file(&"a".repeat(100), b"").pax(&[("path", &"b".repeat(256))]).file("c", b"").done(),
        "255 bytes",
    );
    let deep = "d/".repeat(64) + "f";
    refused(&Tar::new().pax(&[("path", &deep)]).file("c", b"").done(), "64 components");
    refused(&zip(&[(&deep, b"x")]), "64 components");
    refused(&Tar::new().directory("../up").done(), "a component");
}

#[test]
fn everything_but_files_and_directories() {
    for (kind, hint) in [
        (b'1', "is a hard link"),
        (b'2', "is a symbolic link"),
        (b'3', "is a device"),
        (b'4', "is a device"),
        (b'6', "is a named pipe"),
        (b'S', "is a sparse file"),
        (b'M', "is a piece of a file that goes on in another archive"),
        (b'D', "is neither a file nor a directory"),
        (b'?', "is neither a file nor a directory"),
    ] {
        let tar = Tar::new().file("a", b"x").member(b"the/one", kind, 0o644, "a", b"").done();
        refused(&tar, &format!("\"the/one\" {hint}"));
        refused(&gzip(&tar), hint);
    }
    for mode in [0o4755, 0o2755, 0o6755] {
        refused(&Tar::new().member(b"s", b'0', mode, "", b"x").done(), "\"s\" is a set-user-id or set-group-id file");
        refused(&zip_of(&[Stored { mode: 0o100_000 | mode, ..Stored::new("s", b"x") }]), "\"s\" is a set-user-id");
    }
    refused(&zip_of(&[Stored { mode: 0o120_777, ..Stored::new("l", b"/etc") }]), "\"l\" is a symbolic link");
    refused(&zip_of(&[Stored { mode: 0o020_666, ..Stored::new("d", b"") }]), "neither a file nor a directory");
    refused(&Tar::new().pax(&[("GNU.sparse.major", "1")]).file("s", b"x").done(), "is a sparse file");
    // One reader's content is another's header.
    refused(&Tar::new().claiming("l", b'2', 512).file("hidden", b"x").done(), "content that its type has not");
}

#[test]
fn a_file_that_is_also_a_directory() {
    for tar in [
        Tar::new().file("a", b"x").file("a/b", b"y"),
        Tar::new().file("a/b", b"y").file("a", b"x"),
        Tar::new().file("a", b"x").directory("a/"),
        Tar::new().file("a", b"x").directory("a/b"),
    ] {
        refused(&tar.done(), "\"a\" is");
    }
    refused(&zip(&[("a", b"x"), ("a/b", b"y")]), "\"a\" is a file in it and also the directory of \"a/b\"");
}

#[test]
fn what_is_cut_short_or_goes_on() {
    let tar = Tar::new().file("a", &[7; 700]).file("b", b"y").done();
    let packed = gzip(&tar);
    for length in [513, 1100, 1536, 1600, 2048, tar.len() - 1024] {
        corrupt(&tar[..length], "cut short");
    }
    for length in [30, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
        let (kind, text) = refusal(&packed[..length], &how(Kind::Archive));
        assert_eq!(kind, ErrorKind::Corrupt, "{length}: {text}");
    }
    corrupt(&[tar.clone(), Tar::new().file("lost", b"").done()].concat(), "goes on after its end");
    corrupt(&[tar.clone(), b"garbage".to_vec()].concat(), "goes on after its end");
    assert_eq!(all(&[tar.clone(), vec![0; 9000]].concat()).len(), 2, "filled up");
    assert_eq!(refusal(&[packed.clone(), b"garbage".to_vec()].concat(), &how(Kind::Archive)).0, ErrorKind::Corrupt);
    let mut flipped = packed;
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    assert_eq!(refusal(&flipped, &how(Kind::Archive)).0, ErrorKind::Corrupt, "the checksum at its end is compared");
}

#[test]
fn headers_that_are_damaged() {
    let tar = Tar::new().file("a", b"x").file("b", b"y").done();
    let mut flipped = tar;
    flipped[1024] ^= 1;
    corrupt(&flipped, "no valid header");
    for records in [&b"x"[..], b"9 path=a", b"99 path=a\n", b"4 a\n", b"10 size=-1\n", b" path=a\n", b"012 path=ab\n\n"]
    {
        corrupt(&Tar::new().member(b"p", b'x', 0, "", records).file("a", b"").done(), "pax header");
    }
    corrupt(&Tar::new().member(b"g", b'g', 0, "", &pax_records(&[("path", "b")])).file("a", b"").done(), "one name");
    assert_eq!(
        all(&Tar::new().member(b"g", b'g', 0, "", &pax_records(&[("comment", "0123")])).file("a", b"").done()).len(),
        1
    );
    refused(&Tar::new().claiming("p", b'x', 2 << 20).done(), "attributes of 2097152 bytes");
    refused(&Tar::new().claiming("p", b'L', 1 << 40).done(), "attributes of");
    corrupt(&Tar::new().claiming("huge", b'0', (1 << 33) - 1).done(), "in the middle of \"huge\"");
    corrupt(&Tar::new().pax(&[("size", "18446744073709551615")]).file("huge", b"").done(), "in the middle of \"huge\"");
    corrupt(&Tar::new().pax(&[("path", "a")]).open(), "cut short");
}

#[test]
fn version_7_and_its_signed_sums() {
    let mut block = header(b"old", b'0', 0o644, "", 1);
    block[257..265].fill(0);
    block[156] = 0;
    sum(&mut block);
    let tar = [&block[..], b"x", &[0; 511], &[0; 1024]].concat();
    assert_eq!(unpack(&tar, &how(Kind::Perhaps)).unwrap().unwrap(), files(&[("old", "x")]));
    // A name in Latin-1, summed as signed characters.
    let mut block = header("é".as_bytes(), b'0', 0o644, "", 0);
    let signed: i32 = block.iter().map(|byte| i32::from(byte.cast_signed())).sum::<i32>()
        - block[148..156].iter().map(|byte| i32::from(byte.cast_signed())).sum::<i32>()
        + 8 * 32;
    block[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(all(&[&block[..], &[0; 1024]].concat()), files(&[("é", "")]));
}

#[test]
fn bombs() {
    // 2 GiB of zeros, of which deflate makes 2 MiB.
    let header = gzip(&header(b"zeros", b'0', 0o644, "", 2 << 30));
    let zeros = gzip(&vec![0; 16 << 20]).repeat(128);
    let bomb = [header, zeros, gzip(&[0; 1024])].concat();
    struct Sink(u64);
    impl Receiver for Sink {
        fn begin(&mut self) -> Result<()> {
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            self.0 += bytes.len() as u64;
            Ok(())
        }
        fn end(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(0);
    let error = read_members(Cursor::new(bomb), &how(Kind::Archive), &mut sink, Memory::Much).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.report().contains("more than 1000 times its size"), "{error:?}");
    assert!(sink.0 < (1 << 30) + (1 << 20), "{} bytes were made before it was noticed", sink.0);
}

/// Members that lie beside the model are not held in memory, and may be more.
#[test]
fn many_members() {
    let many = (0..100_001).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), b"")).done();
    refused(&many, "more than 100,000 files");
    assert!(unpack(&many, &layer("models")).unwrap().unwrap().is_empty());
    let component = "x".repeat(250);
    let long = Tar::new().pax(&[("path", &[component.as_str(); 11].join("/"))]).file("f", b"").done();
    let long = [long[..long.len() - 1024].repeat(6_100), vec![0; 1024]].concat();
    refused(&long, "more than 16 MiB of names");
}

/// What takes more memory than most is told from what no memory helps.
#[test]
fn what_takes_much_memory() {
    let read = |archive: &[u8], memory| {
        let read = read_members(Cursor::new(archive), &how(Kind::Perhaps), &mut Kept::default(), memory);
        read.map(|unpacked| unpacked.map(|unpacked| unpacked.files.len()))
    };
    let tar = Tar::new().file("a", b"x").done();
    let (first, second) = tar.split_at(700);
    let little = [zstd(23, &tar), [zstd(10, first), zstd(23, second)].concat(), gzip(&tar), zip(&[("a", b"x")])];
    for archive in little {
        assert_eq!(read(&archive, Memory::Little).unwrap(), Some(1));
    }
    let mut much = vec![zstd(24, &tar), zstd(27, &tar), [zstd(10, first), zstd(24, second)].concat()];
    much.extend(oracle::compress_with("xz", &["-c", "--lzma2=dict=16MiB"], &tar));
    for archive in much {
        assert!(is_outgrown(&read(&archive, Memory::Little).unwrap_err()));
        assert_eq!(read(&archive, Memory::Much).unwrap(), Some(1));
    }
    for memory in [Memory::Little, Memory::Much] {
        let error = read(&zstd(10, first), memory).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && !is_outgrown(&error), "{error:?}");
    }
    assert_eq!(read(&zstd(28, &tar), Memory::Much).unwrap(), None);

    // A zip's directory is read whole.
    let end = |size: u32| {
        let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
        end.extend([size.to_le_bytes(), 4u32.to_le_bytes()].concat());
        [&b"PK\x03\x04"[..], &vec![0; size as usize], &end, &[0, 0]].concat()
    };
    assert!(is_outgrown(&read(&end(3 << 20), Memory::Little).unwrap_err()));
    corrupt(&end(3 << 20), "directory can't be read");
    refused(&end(40 << 20), "in a directory of 40.0 MiB; only 500000 in one of 32.0 MiB can be read");
}

#[test]
fn zips_that_contradict_themselves() {
    let one = || Stored::new("a", b"content");
    refused(&zip_of(&[Stored { local_name: "b", ..one() }]), "contradict");
    refused(&zip_of(&[one(), Stored { offset: Some(0), ..one() }]), "\"a\" is there twice");
    refused(&zip_of(&[one(), Stored { name: "b", offset: Some(0), ..one() }]), "lies over another");
    refused(&zip_of(&[Stored { flags: 1, ..one() }]), "\"a\" is encrypted");
    refused(&zip_of(&[Stored { flags: 1 << 6, ..one() }]), "\"a\" is encrypted");
    refused(&zip_of(&[Stored { method: 12, ..one() }]), "method 12");
    corrupt(&zip_of(&[Stored { crc: 7, ..one() }]), "another checksum");
    corrupt(&zip_of(&[Stored { size: 8, ..one() }]), "is shorter");
    corrupt(&zip_of(&[Stored { size: 6, ..one() }]), "is longer");

    let zip = zip_of(&[one()]);
    for length in 4..zip.len() {
        let (kind, text) = refusal(&zip[..length], &how(Kind::Archive));
        assert_eq!(kind, ErrorKind::Corrupt, "{length} bytes: {text}");
    }
    corrupt(&[zip.clone(), b"x".to_vec()].concat(), "end is missing");
    // Two archives in one: which of them it is would depend on the reader.
    corrupt(&[zip.clone(), zip.clone()].concat(), "not where it says");
    let end = zip.len() - 22;
    let damage = |at: usize, byte: u8| {
        let mut damaged = zip.clone();
        damaged[at] = byte;
        damaged
    };
    corrupt(&damage(end + 10, 2), "several pieces");
    corrupt(&damage(end + 4, 1), "several pieces");
    corrupt(&damage(end + 12, 40), "not where it says");
    corrupt(&damage(end + 16, 1), "not where it says");
    let central = end - 47;
    corrupt(&damage(central, b'X'), "directory can't be read");
    corrupt(&damage(central + 42, 3), "not where its directory says");
    // Its content reaches into the directory.
    refused(&damage(central + 20, 90), "contradict");
}

/// The error of a source comes out as it went in, whatever library it passed through.
#[test]
fn errors_of_the_source_are_kept() {
    struct Failing(Cursor<Vec<u8>>, u64);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() >= self.1 {
                return Err(std::io::Error::other(Error::new(ErrorKind::Changed, "the source's own words")));
            }
            let most = buffer.len().min((self.1 - self.0.position()) as usize);
            self.0.read(&mut buffer[..most])
        }
    }
    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let tar = Tar::new().file("a", &[1; 5000]).done();
    let mut archives = vec![tar.clone(), gzip(&tar), zip(&[("a", &[1; 5000])])];
    for program in ["bzip2", "xz", "zstd"] {
        archives.extend(oracle::compress(program, &tar));
    }
    for archive in archives {
        for at in [0, 20, archive.len() as u64 - 10] {
            for kind in [Kind::Archive, Kind::Perhaps] {
                let failing = Failing(Cursor::new(archive.clone()), at);
                let error = read_members(failing, &how(kind), &mut Kept::default(), Memory::Much).unwrap_err();
                assert_eq!((error.kind(), error.report().as_str()), (ErrorKind::Changed, "the source's own words"));
            }
        }
    }
}

proptest! {
    /// No bytes make it panic, and what comes out has a name.
    #[test]
    fn nothing_panics(
        start in 0usize..5,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let tar = || Tar::new().pax(&[("path", "long/name")]).file("a", b"x").directory("d").file("d/b", &[3; 600]);
        let mut bytes = match start {
            0 => tar().done(),
            1 => gzip(&tar().done()),
            2 => zip(&[("a", b"x"), ("d/b", &[3; 600])]),
            3 => tar().member(b"l", b'L', 0, "", b"n\0").symlink("s", "t").hard_link("h", "a").done(),
            _ => Vec::new(),
        };
        for (index, byte) in edits {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len() + 1) / 4);
        for kind in [Kind::Archive, Kind::Perhaps, Kind::Layer(0)] {
            let _ = read_members(Cursor::new(&bytes), &how(kind), &mut Kept::default(), Memory::Much);
        }
    }

    /// What has no checksum still has no panic: headers are made valid again after they were changed.
    #[test]
    fn any_header_is_read_or_refused(fields in proptest::collection::vec((0usize..512, any::<u8>()), 0..20), size in 0u64..2000) {
        let mut block = header(b"name", b'0', 0o644, "", size);
        for (at, byte) in fields {
            block[at] = byte;
        }
        sum(&mut block);
        let tar = [&block[..], &[9; 2048], &[0; 1024]].concat();
        let _ = read_members(Cursor::new(&tar), &how(Kind::Archive), &mut Kept::default(), Memory::Much);
    }
}
