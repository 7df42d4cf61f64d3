//! What the hub answers, parsed. Pure.

use serde::Deserialize;

use crate::manifest::Digest;
use crate::source::repository::{is_commit, parse_json};

/// A listing of a directory, with or without what lies deeper.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    /// Paths of directories.
    pub(super) directories: Vec<String>,
    /// How many entries of any kind were listed.
    pub(super) entries: usize,
    /// The commit that was listed: its id, or the beginning of it.
    latest: Option<String>,
}

/// A file as the hub lists it.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its path in the repository.
    pub(super) path: String,
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
    /// The commit that changed it last.
    pub(super) commit: Option<String>,
}

impl Tree {
    /// The commit that was listed, whole if that can be told: the hub often gives its beginning alone, and the whole of
    /// it only with the files that it changed.
    pub(super) fn commit(&self) -> Option<String> {
        let latest = self.latest.as_deref()?;
        let whole = self.files.iter().filter_map(|file| file.commit.as_deref());
        Some(whole.into_iter().find(|commit| commit.starts_with(latest)).unwrap_or(latest).to_owned())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<T> {
    code: Option<i64>,
    success: Option<bool>,
    data: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    files: Option<Vec<Node>>,
    latest_committer: Option<Committer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Committer {
    id: Option<String>,
    short_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    #[serde(rename = "Type")]
    kind: String,
    size: Option<u64>,
    sha256: Option<String>,
    revision: Option<String>,
}

/// A listing: `None` when there is nothing to list, or the code of a refusal.
pub(super) fn parse_tree(body: &[u8]) -> Result<Result<Option<Tree>, i64>, String> {
    let Envelope { code, success, data } = parse_json::<Envelope<Data>>(body)?;
    if success == Some(false) {
        return Ok(Err(code.unwrap_or_default()));
    }
    let Data { files, latest_committer } = data.ok_or("it has no Data")?;
    let Some(nodes) = files else { return Ok(Ok(None)) };
    let mut tree = Tree { files: Vec::new(), directories: Vec::new(), entries: nodes.len(), latest: None };
    for node in nodes {
        match node.kind.as_str() {
            "tree" => tree.directories.push(node.path),
            _ => tree.files.push(file(node)?),
        }
    }
    let latest = latest_committer.into_iter().flat_map(|committer| [committer.id, committer.short_id]).flatten();
    let hexadecimal = |id: &String| (8..=40).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    tree.latest = latest.into_iter().find(hexadecimal);
    Ok(Ok(Some(tree)))
}

fn file(Node { path, size, sha256, revision, .. }: Node) -> Result<File, String> {
    let digest = match sha256.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(Digest::from_hex(&text.to_ascii_lowercase()).ok_or("a file has no valid Sha256")?),
        None => None,
    };
    // The hub writes 0 for a size that it does not know, too.
    let size = size.filter(|size| *size > 0 || digest.is_none_or(|digest| digest == Digest::of("")));
    Ok(File { path, size, digest, commit: revision.filter(|revision| is_commit(revision)) })
}

/// The code in a refusal's body, if that is one of the hub's.
pub(super) fn parse_code(body: &[u8]) -> Option<i64> {
    parse_json::<Envelope<serde::de::IgnoredAny>>(body).ok()?.code
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMIT: &str = "83ee97c66e841048bedc5c02c15ce2f3ed259feb";

    fn listing(committer: &str, files: &str) -> String {
        format!(
            r#"{{"Code":200,"Data":{{"Files":{files},"IsVisual":0,"LatestCommitter":{committer}}},
                "Message":"success","RequestId":"x","Success":true}}"#
        )
    }

    fn parse(body: &str) -> Option<Tree> {
        parse_tree(body.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn files_directories_and_their_commit() {
        let sha = Digest::of("x").hex();
        let body = listing(
            &format!(r#"{{"Id":"","ShortId":"{}","Name":"n"}}"#, &COMMIT[..8]),
            &format!(
                r#"[{{"Path":"d","Name":"d","Type":"tree","Size":0,"Sha256":"","Revision":"{COMMIT}"}},
                    {{"Path":"d/f","Name":"f","Type":"blob","Size":1,"Sha256":"{sha}","Revision":"{COMMIT}","IsLFS":true}},
                    {{"Path":"g","Type":"blob","Size":0,"Sha256":"{sha}"}}]"#
            ),
        );
        let tree = parse(&body).unwrap();
        assert_eq!((tree.entries, tree.directories.as_slice()), (3, &["d".to_owned()][..]));
        assert_eq!(tree.commit().as_deref(), Some(COMMIT));
        let [f, g] = tree.files.as_slice() else { panic!("{tree:?}") };
        assert_eq!((f.path.as_str(), f.size, f.digest), ("d/f", Some(1), Some(Digest::of("x"))));
        assert_eq!((f.commit.as_deref(), g.commit.as_deref()), (Some(COMMIT), None));
        assert_eq!(g.size, None, "0 stands for an unknown size where the hash is another one than nothing's");
    }

    #[test]
    fn the_commit_is_as_long_as_the_hub_tells_it() {
        for (committer, commit) in [
            (format!(r#"{{"Id":"{COMMIT}","ShortId":"83ee97c6"}}"#), Some(COMMIT)),
            (r#"{"Id":"","ShortId":"83ee97c6"}"#.to_owned(), Some("83ee97c6")),
            (r#"{"Name":"n"}"#.to_owned(), None),
            (r#"{"Id":"not a commit"}"#.to_owned(), None),
            ("null".to_owned(), None),
        ] {
            assert_eq!(parse(&listing(&committer, "[]")).unwrap().commit().as_deref(), commit);
        }
    }

    #[test]
    fn nothing_refusals_and_what_is_not_the_hubs() {
        assert!(parse(&listing("null", "null")).is_none());
        let refusal = br#"{"Code":10010205001,"Data":null,"Message":"CANARY","Success":false}"#;
        assert_eq!(parse_tree(refusal).unwrap().unwrap_err(), 10_010_205_001);
        assert_eq!(parse_code(refusal), Some(10_010_205_001));
        assert_eq!(parse_code(b"<html>"), None);
        for body in [
            "<html>CANARY</html>".to_owned(),
            r#"{"Code":200,"Success":true}"#.to_owned(),
            listing("null", r#"[{"Path":"CANARY"}]"#),
            listing("null", r#"[{"Path":"f","Type":"blob","Size":-1}]"#),
            listing("null", r#"[{"Path":"f","Type":"blob","Size":1,"Sha256":"CANARY"}]"#),
        ] {
            let problem = parse_tree(body.as_bytes()).unwrap_err();
            assert!(!problem.contains("CANARY"), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic(
            files in "[\\[\\]{}\",:a-zA-Z0-9]{0,60}",
            committer in "(null|\\{\"Id\":\"[0-9a-f]{0,50}\"\\})",
        ) {
            for body in [listing(&committer, "[]"), listing("null", &files), files] {
                if let Ok(Ok(Some(tree))) = parse_tree(body.as_bytes()) {
                    let _ = tree.commit();
                }
                let _ = parse_code(body.as_bytes());
            }
        }
    }
}
