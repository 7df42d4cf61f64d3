//! What must hold of a git server's answers, and of URIs of repositories.

use super::delta;
use super::item;
use super::lfs::{self, Answer, Pointer};
use super::location::{self, Location};
use super::message::{abilities, candidates, references, sizes};
use super::object::{Format, Id, Kind, id_of, parse_commit, parse_tag, parse_tree};
use super::pack::{Body, Event, Objects, Parser};
use super::packet::{self, Packet, Packets};
use super::tree::{Commit, Found};
use crate::source::fuzzing::{Checks, Written, laid_out, refused};

pub(in crate::source) const CHECKS: Checks = &[
    (b'm', messages),
    (b'p', pack),
    (b'd', difference),
    (b't', tree),
    (b'c', commit),
    (b'w', walk),
    (b'l', pointer),
    (b'a', lfs_answer),
    (b'u', location),
];

/// A whole answer, and the same in pieces.
fn messages(bytes: &[u8]) -> bool {
    let packets = match packet::parse(bytes) {
        Ok(packets) => packets,
        Err(problem) => return refused(&problem),
    };
    let (mut pieces, mut taken) = (Packets::default(), Vec::new());
    for piece in bytes.chunks(3) {
        pieces.push(piece);
        while let Ok(Some(packet)) = pieces.next() {
            taken.push(packet);
        }
    }
    assert!(taken == packets && pieces.is_empty());
    let data = packets.iter().map(|packet| if let Packet::Data(data) = packet { data.len() } else { 0 });
    assert!(data.sum::<usize>() <= bytes.len());
    let answers = [
        abilities(&packets).map(|_| true),
        references(&packets, &candidates(Some("main"))).map(|found| found.is_some()),
        sizes(&packets).map(|sizes| !sizes.is_empty()),
    ];
    // Each of them is looked at.
    answers.map(|answer| answer.unwrap_or_else(|problem| refused(&problem))).contains(&true)
}

/// Most that is kept of a pack here, in bytes.
const ROOM: u64 = 1 << 20;

/// The length of the pieces in which it arrives, and a pack. The pieces make no difference; no object has another size
/// than its header says; what is kept fits.
fn pack(input: &[u8]) -> bool {
    let Some((&piece, pack)) = input.split_first() else { return false };
    let whole = read(pack, pack.len());
    let pieces = read(pack, usize::from(piece));
    let (objects, ids) = match (whole, pieces) {
        (Ok((objects, ids)), Ok((_, others))) => {
            assert_eq!(ids, others);
            (objects, ids)
        }
        (Err(problem), Err(other)) => {
            assert_eq!(problem, other);
            return refused(&problem);
        }
        (whole, pieces) => panic!("whole: {:?}, in pieces: {:?}", whole.err(), pieces.err()),
    };
    let trees = ids.iter().filter_map(|id| match objects.get(id) {
        Some((Kind::Commit, bytes)) => parse_commit(bytes),
        Some((Kind::Tag, bytes)) => parse_tag(bytes),
        _ => None,
    });
    for root in trees {
        files(&Commit::new(&objects, Format::Sha1, root), "");
    }
    !ids.is_empty()
}

/// The objects of a pack that are whole, and all that were kept.
fn read(pack: &[u8], piece: usize) -> Result<(Objects, Vec<Id>), String> {
    let mut parser = Parser::new(Format::Sha1);
    let mut objects = Objects::new(Format::Sha1, ROOM);
    let (mut current, mut ids, mut kept) = (None, Vec::new(), 0);
    for piece in pack.chunks(piece.max(1)) {
        parser.push(piece, &mut |event| {
            match &event {
                Event::Begin { body, size, .. } => current = Some((body.clone(), *size, Vec::new())),
                Event::Bytes(bytes) => {
                    if let Some((.., content)) = &mut current {
                        content.extend_from_slice(bytes);
                    }
                }
                Event::End => {
                    let Some((body, size, content)) = current.take() else { panic!("an end without a beginning") };
                    assert_eq!(size, content.len() as u64);
                    kept += size;
                    if let Body::Whole(kind) = body {
                        ids.extend(id_of(Format::Sha1, kind, &content));
                    }
                }
            }
            objects.take(event)
        })?;
    }
    assert!(kept <= ROOM, "{kept} bytes are kept");
    if parser.is_complete() { Ok((objects, ids)) } else { Err("its pack breaks off".to_owned()) }
}

/// The length of a base, the base, and a difference to it.
fn difference(input: &[u8]) -> bool {
    let Some((&length, rest)) = input.split_first() else { return false };
    let (base, delta) = rest.split_at(usize::from(length).min(rest.len()));
    let made = delta::apply(base, delta);
    if let Some(made) = &made {
        // One byte inserts at most 127 others, or copies at most the base.
        assert!(made.len() <= delta.len() * base.len().max(127), "{} bytes", made.len());
    }
    made.is_some()
}

fn tree(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for format in [Format::Sha1, Format::Sha256] {
        match parse_tree(bytes, format) {
            Ok(entries) => {
                let mut length = 0;
                for entry in &entries {
                    assert!(!entry.name.contains(['/', '\0']) && !matches!(entry.name.as_str(), "" | "." | ".."));
                    assert_eq!(entry.id.format(), format);
                    length += entry.name.len() + format.len();
                }
                assert!(length <= bytes.len());
                accepted = true;
            }
            Err(problem) => {
                refused(&problem);
            }
        }
    }
    accepted
}

fn commit(bytes: &[u8]) -> bool {
    let found = parse_commit(bytes).or_else(|| parse_tag(bytes));
    assert!(found.as_ref().is_none_or(|id| Id::from_hex(&id.to_string()).as_ref() == Some(id)));
    found.is_some()
}

/// The files of a commit that is described on lines: the path that is looked up; then objects, in an order in which each
/// names those before it by their numbers: `b CONTENT`, and `t MODE NAME NUMBER MODE NAME NUMBER …`. The last is the root.
fn walk(input: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(input).ok() else { return false };
    let mut lines = text.lines();
    let Some(path) = lines.next() else { return false };
    let mut objects = Objects::new(Format::Sha1, ROOM);
    let mut ids: Vec<Id> = Vec::new();
    for (number, line) in lines.enumerate() {
        let Some((kind, content)) = line.split_once(' ') else { return false };
        let (kind, content) = match kind {
            "b" => (Kind::Blob, content.as_bytes().to_vec()),
            _ => match tree_of(content, &ids) {
                Some(tree) => (Kind::Tree, tree),
                None => return false,
            },
        };
        let size = content.len() as u64;
        let begin = Event::Begin { offset: number as u64, body: Body::Whole(kind), size };
        for event in [begin, Event::Bytes(&content), Event::End] {
            if let Err(problem) = objects.take(event) {
                return refused(&problem);
            }
        }
        ids.extend(id_of(Format::Sha1, kind, &content));
    }
    let Some(root) = ids.pop() else { return false };
    files(&Commit::new(&objects, Format::Sha1, root), path)
}

fn tree_of(content: &str, ids: &[Id]) -> Option<Vec<u8>> {
    let words: Vec<&str> = content.split(' ').collect();
    let mut tree = Vec::new();
    for entry in words.chunks(3) {
        let [mode, name, number] = entry else { return None };
        let id = ids.get(number.parse::<usize>().ok()?)?.to_string();
        tree.extend(format!("{mode} {name}\0").bytes());
        tree.extend((0..id.len()).step_by(2).filter_map(|at| u8::from_str_radix(&id[at..at + 2], 16).ok()));
    }
    Some(tree)
}

fn files(commit: &Commit<'_>, path: &str) -> bool {
    match commit.find(path) {
        Ok(Found::Nothing) => false,
        Ok(Found::File(file)) => laid_out(vec![item("file".to_owned(), file)], true),
        Ok(Found::Directory(files)) => {
            laid_out(files.into_iter().map(|(path, file)| item(path, file)).collect(), false)
        }
        Err(problem) => refused(&problem),
    }
}

fn pointer(content: &[u8]) -> bool {
    let Some(pointer) = Pointer::parse(content) else { return false };
    let written =
        format!("version https://git-lfs.github.com/spec/v1\noid {}\nsize {}\n", pointer.digest, pointer.size);
    assert_eq!(Pointer::parse(written.as_bytes()), Some(pointer));
    true
}

fn lfs_answer(json: &[u8]) -> bool {
    let pointer = Pointer { digest: crate::Digest::of("model"), size: 5 };
    match lfs::answer(json, &pointer) {
        Ok(Answer::Download(download)) => {
            assert!(matches!(download.url.scheme(), "http" | "https"), "{}", download.url);
            for (name, value) in &download.headers {
                assert!(
                    value.is_sensitive() && !matches!(name.as_str(), "host" | "range" | "content-length"),
                    "{name}"
                );
            }
            true
        }
        Ok(Answer::Refused(_)) => false,
        Err(problem) => refused(&problem),
    }
}

fn location(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    if !location::claims(&written.uri) {
        return false;
    }
    match Location::read(&written.uri, &written.options) {
        Ok(Location { url, revision, path, .. }) => {
            assert!(matches!(url.scheme(), "http" | "https") && url.has_host(), "{url}");
            assert!(url.username().is_empty() && url.password().is_none(), "{url}");
            assert!(url.query().is_none() && url.fragment().is_none() && !url.path().ends_with('/'), "{url}");
            assert!(path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
            // It becomes a line of a question.
            assert!(revision.is_none_or(|revision| !revision.contains(char::is_whitespace)));
            true
        }
        Err(error) => written.refused(&error),
    }
}
