//! What is said in protocol version 2 (gitprotocol-v2): questions as text, answers as packets.

use std::collections::HashMap;

use super::lfs::MAX_POINTER;
use super::object::{Format, Id};
use super::packet::{DELIMITER, FLUSH, Packet, text, write};

/// What a server can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) format: Format,
    /// It leaves out what is not asked for.
    pub(super) filter: bool,
    /// It tells sizes of objects.
    pub(super) sizes: bool,
}

/// What the server advertises.
pub(super) fn abilities(packets: &[Packet]) -> Result<Abilities, String> {
    let lines: Vec<String> = lines(packets)?;
    if !lines.iter().any(|line| line == "version 2") {
        return Err("it does not speak version 2 of git's protocol, which git has had since 2018".to_owned());
    }
    let value = |name: &str| {
        lines.iter().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('=') }
        })
    };
    let format = value("object-format").unwrap_or("sha1");
    let format = Format::parse(format).ok_or("its objects have ids of an unknown kind")?;
    let fetch = value("fetch").ok_or("it can't be fetched from")?;
    let filter = fetch.split(' ').any(|feature| feature == "filter");
    Ok(Abilities { format, filter, sizes: value("object-info").is_some() })
}

/// The full names that `revision` may stand for, the most likely first.
pub(super) fn candidates(revision: Option<&str>) -> Vec<String> {
    match revision {
        None => vec!["HEAD".to_owned()],
        Some(name) if name.starts_with("refs/") => vec![name.to_owned()],
        // As `git clone --branch`: branches come first.
        Some(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
    }
}

pub(super) fn ls_refs(format: Format, names: &[String]) -> String {
    let mut message = command("ls-refs", format);
    message.push_str(DELIMITER);
    write(&mut message, "peel");
    for name in names {
        write(&mut message, &format!("ref-prefix {name}"));
    }
    message + FLUSH
}

/// The object that the first of `names` points to, tags followed.
pub(super) fn references(packets: &[Packet], names: &[String]) -> Result<Option<Id>, String> {
    let mut found = HashMap::new();
    for line in lines(packets)? {
        let mut words = line.split(' ');
        // A branch without a commit has the word "unborn" in place of one.
        let (Some(id), Some(name)) = (words.next(), words.next()) else { continue };
        let peeled = words.find_map(|word| word.strip_prefix("peeled:"));
        if let Some(id) = Id::from_hex(peeled.unwrap_or(id)) {
            found.insert(name.to_owned(), id);
        }
    }
    Ok(names.iter().find_map(|name| found.remove(name)))
}

/// A commit, its trees, and its blobs that are small enough to be pointers, if the server leaves out others.
pub(super) fn fetch_commit(abilities: &Abilities, want: &Id) -> String {
    let filter = abilities.filter.then(|| format!("filter blob:limit={MAX_POINTER}"));
    fetch(abilities.format, want, &["deepen 1".to_owned()].into_iter().chain(filter).collect::<Vec<_>>())
}

pub(super) fn fetch_blob(want: &Id) -> String {
    fetch(want.format(), want, &[])
}

fn fetch(format: Format, want: &Id, how: &[String]) -> String {
    let mut message = command("fetch", format);
    message.push_str(DELIMITER);
    for line in ["ofs-delta", "no-progress"].into_iter().chain(how.iter().map(String::as_str)) {
        write(&mut message, line);
    }
    write(&mut message, &format!("want {want}"));
    write(&mut message, "done");
    message + FLUSH
}

pub(super) fn object_info(format: Format, ids: &[Id]) -> String {
    let mut message = command("object-info", format);
    message.push_str(DELIMITER);
    write(&mut message, "size");
    for id in ids {
        write(&mut message, &format!("oid {id}"));
    }
    message + FLUSH
}

/// The answer to [`object_info`].
pub(super) fn sizes(packets: &[Packet]) -> Result<HashMap<Id, u64>, String> {
    let pair = |line: &str| {
        let (id, size) = line.split_once(' ')?;
        Some((Id::from_hex(id)?, size.parse().ok()?))
    };
    Ok(lines(packets)?.iter().filter_map(|line| pair(line)).collect())
}

fn command(name: &str, format: Format) -> String {
    let mut message = String::new();
    write(&mut message, &format!("command={name}"));
    write(&mut message, concat!("agent=modelmount/", env!("CARGO_PKG_VERSION")));
    write(&mut message, &format!("object-format={}", format.name()));
    message
}

fn lines(packets: &[Packet]) -> Result<Vec<String>, String> {
    let data = packets.iter().filter_map(|packet| match packet {
        Packet::Data(data) => Some(text(data)),
        _ => None,
    });
    data.map(|line| match line.strip_prefix("ERR ") {
        Some(words) => Err(refusal(words)),
        None => Ok(line),
    })
    .collect()
}

/// A server's own words, on one line.
pub(super) fn refusal(words: &str) -> String {
    let words: String = words.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("it says {words:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets(lines: &[&str]) -> Vec<Packet> {
        lines.iter().map(|line| Packet::Data(format!("{line}\n").into())).collect()
    }

    const ID: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

    #[test]
    fn abilities_are_read() {
        let found = |lines: &[&str]| abilities(&packets(lines));
        let all = found(&[
            "# service=git-upload-pack",
            "version 2",
            "fetch=shallow filter",
            "object-info",
            "object-format=sha256",
        ]);
        assert_eq!(all.unwrap(), Abilities { format: Format::Sha256, filter: true, sizes: true });
        let few = found(&["version 2", "fetch=filterless"]);
        assert_eq!(few.unwrap(), Abilities { format: Format::Sha1, filter: false, sizes: false });
        assert!(found(&["version 1", "fetch"]).unwrap_err().contains("version 2"));
        assert!(found(&["version 2", "fetch", "object-format=md5"]).unwrap_err().contains("unknown kind"));
        assert!(found(&["ERR access denied\u{7}"]).unwrap_err().contains("\"access denied\""));
    }

    #[test]
    fn references_are_found_and_peeled() {
        let other = ID.replace('b', "a");
        let lines = [&format!("{ID} refs/heads/v1x"), &format!("{ID} refs/tags/v1 peeled:{other}"), "unborn HEAD"];
        let packets = packets(&lines.map(|line| line as &str));
        assert_eq!(references(&packets, &candidates(Some("v1"))).unwrap(), Id::from_hex(&other));
        assert_eq!(references(&packets, &candidates(Some("refs/heads/v1x"))).unwrap(), Id::from_hex(ID));
        assert_eq!(references(&packets, &candidates(None)).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_packets_are_an_answer_or_an_error(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
            let packets: Vec<_> = lines.into_iter().map(|line| Packet::Data(line.into())).collect();
            let _ = (abilities(&packets), references(&packets, &candidates(Some("x"))), sizes(&packets));
        }
    }
}
