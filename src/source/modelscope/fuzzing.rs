//! What must hold of the hub's answers and of the URIs that name something on it.

use super::ModelScope;
use super::answer::{parse_code, parse_tree};
use crate::source::fuzzing::{CONTEXT, Checks, Written, laid_out, refused};
use crate::source::repository::is_commit;

pub(in crate::source) const CHECKS: Checks = &[(b't', tree), (b'e', code), (b'm', opened)];

fn tree(body: &[u8]) -> bool {
    let tree = match parse_tree(body) {
        Ok(Ok(Some(tree))) => tree,
        Ok(_) => return false,
        Err(problem) => return refused(&problem),
    };
    assert_eq!(tree.files.len() + tree.directories.len(), tree.entries);
    if let Some(commit) = tree.commit() {
        assert!((8..=40).contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
    }
    let Some(source) = open("modelscope://o/n") else { return false };
    let items = tree.files.into_iter().map(|file| {
        assert!(file.commit.as_deref().is_none_or(is_commit), "{file:?}");
        let path = file.path.clone();
        source.item(file, &path)
    });
    match items.collect::<Result<Vec<_>, _>>() {
        Ok(items) => laid_out(items, false),
        Err(error) => refused(&error.report()),
    }
}

fn open(uri: &str) -> Option<ModelScope> {
    let written = Written::parse(uri.as_bytes())?;
    ModelScope::open(&written.uri, &written.options, &written.credentials, &CONTEXT).ok()
}

fn code(body: &[u8]) -> bool {
    parse_code(body).is_some()
}

/// Every question goes to the endpoint, and is about the revision and the path that were written.
fn opened(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    match ModelScope::open(&written.uri, &written.options, &written.credentials, &CONTEXT) {
        Ok(source) => {
            let asked = [("Revision", source.revision()), ("FilePath", source.repository.path.as_str())];
            let url = source.api(&["repo"], &asked);
            assert!(source.hub.owns(&url) && url.path().ends_with("/repo"), "{url}");
            assert!(url.query_pairs().eq(asked.map(|(name, value)| (name.into(), value.into()))), "{url}");
            true
        }
        Err(error) => written.refused(&error),
    }
}
