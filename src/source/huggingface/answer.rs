//! What the hub answers, parsed. Pure.

use serde::Deserialize;

use crate::manifest::Digest;
use crate::source::repository::{is_commit, parse_json};

/// Something that lies at a path of a repository.
#[derive(Clone, Debug)]
pub(super) enum Found {
    File(File),
    /// A directory, or what is neither, by its path.
    Directory(String),
}

/// A file as the hub lists it.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its path in the repository.
    pub(super) path: String,
    pub(super) size: u64,
    /// The name of its content: [`super::GIT`] or [`super::LFS`], and the hash.
    pub(super) validator: String,
    /// That of a file in git LFS.
    pub(super) digest: Option<Digest>,
}

impl Found {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::File(file) => &file.path,
            Self::Directory(path) => path,
        }
    }
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// A page of a listing, or the answer to a question about paths.
pub(super) fn parse_found(body: &[u8]) -> Result<Vec<Found>, String> {
    parse_json::<Vec<Node>>(body)?.into_iter().map(found).collect()
}

fn found(Node { kind, path, oid, size, lfs }: Node) -> Result<Found, String> {
    if kind != "file" {
        return Ok(Found::Directory(path));
    }
    let (validator, size, digest) = match (lfs, oid) {
        (Some(Lfs { oid, size }), _) => {
            let digest = Digest::from_hex(&oid).ok_or("a file of git LFS has no valid SHA-256")?;
            (format!("{}{oid}", super::LFS), size, Some(digest))
        }
        (None, Some(oid)) if is_commit(&oid) => {
            (format!("{}{oid}", super::GIT), size.ok_or("a file has no size")?, None)
        }
        (None, _) => return Err("a file has no valid SHA-1".to_owned()),
    };
    Ok(Found::File(File { path, size, validator, digest }))
}

/// The commit in what the hub tells of a repository.
pub(super) fn parse_commit(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Repository {
        sha: String,
    }
    let Repository { sha } = parse_json(body)?;
    if is_commit(&sha) { Ok(sha) } else { Err("it has no valid commit".to_owned()) }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
pub(super) fn parse_next(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, after) = rest[rest.find('<')? + 1..].split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let next = after[..end].split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        });
        if next {
            return Some(target);
        }
        rest = &after[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn files_of_both_kinds_and_directories() {
        let lfs = Digest::of("x").hex();
        let body = format!(
            r#"[{{"type":"directory","oid":"{SHA1}","size":0,"path":"d"}},
                {{"type":"file","oid":"{SHA1}","size":7,"path":"d/small","lastCommit":{{}}}},
                {{"type":"file","oid":"{SHA1}","size":9,"path":"big","xetHash":"y",
                  "lfs":{{"oid":"{lfs}","size":9,"pointerSize":134}}}}]"#
        );
        let found = parse_found(body.as_bytes()).unwrap();
        let [Found::Directory(directory), Found::File(small), Found::File(big)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(directory, "d");
        assert_eq!((small.path.as_str(), small.size, small.digest), ("d/small", 7, None));
        assert_eq!(small.validator, format!("git {SHA1}"));
        assert_eq!((big.size, big.digest), (9, Some(Digest::of("x"))));
    }

    #[test]
    fn what_is_not_the_hubs_is_refused_without_a_word_of_it() {
        for body in [
            "",
            "<html>CANARY</html>",
            r#"{"error":"CANARY"}"#,
            r#"[{"type":"file","path":"CANARY","size":1}]"#,
            r#"[{"type":"file","path":"f","size":1,"oid":"../CANARY"}]"#,
            r#"[{"type":"file","path":"f","size":-1,"oid":"0123456789abcdef0123456789abcdef01234567"}]"#,
            r#"[{"type":"file","path":"f","oid":"0123456789abcdef0123456789abcdef01234567"}]"#,
            r#"[{"type":"file","path":"f","size":1,"lfs":{"oid":"sha256:CANARY","size":1}}]"#,
        ] {
            let problem = parse_found(body.as_bytes()).unwrap_err();
            assert!(!problem.contains("CANARY"), "{problem}");
        }
        assert_eq!(parse_commit(format!(r#"{{"sha":"{SHA1}","id":"o/n"}}"#).as_bytes()).unwrap(), SHA1);
        for body in
            ["[]", r#"{"sha":null}"#, r#"{"sha":"../../etc"}"#, r#"{"sha":"ABCDEF0123456789abcdef0123456789abcdef01"}"#]
        {
            parse_commit(body.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, next) in [
            (r#"<https://h/x?cursor=a,b;c>; rel="next""#, Some("https://h/x?cursor=a,b;c")),
            (r#"<https://h/a>; rel="prev", <https://h/b>; rel=next"#, Some("https://h/b")),
            (r#"<https://h/a>; title="next"; rel="last""#, None),
            ("<https://h/a", None),
            ("", None),
        ] {
            assert_eq!(parse_next(header), next, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic(body in "[\\[\\]{}\",:a-z0-9<>=;]{0,60}") {
            let _ = parse_found(body.as_bytes());
            let _ = parse_commit(body.as_bytes());
            let _ = parse_next(&body);
        }

        #[test]
        fn every_link_is_found_again(target in "[a-zA-Z0-9/?=&%,;]{1,40}", others in 0..4usize) {
            let mut header = "<https://h/other>; rel=\"prev\", ".repeat(others);
            header.push_str(&format!("<{target}>; rel=\"next\""));
            prop_assert_eq!(parse_next(&header), Some(target.as_str()));
        }
    }
}
