//! What must hold of the hub's answers and of the URIs that name something on it.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::answer::{Found, parse_commit, parse_found, parse_next};
use super::{GIT, HuggingFace, LFS, item};
use crate::source::fuzzing::{CONTEXT, Checks, Written, laid_out, refused};
use crate::source::repository::{Repository, is_commit};

pub(in crate::source) const CHECKS: Checks =
    &[(b'f', found), (b'c', commit), (b'n', next), (b'r', repository), (b'h', opened)];

fn found(body: &[u8]) -> bool {
    let found = match parse_found(body) {
        Ok(found) => found,
        Err(problem) => return refused(&problem),
    };
    let files = found.into_iter().filter_map(|found| match found {
        Found::File(file) => Some(file),
        Found::Directory(_) => None,
    });
    let items = files.map(|file| {
        match file.digest {
            Some(digest) => assert_eq!(file.validator, format!("{LFS}{}", digest.hex())),
            None => assert!(file.validator.strip_prefix(GIT).is_some_and(is_commit), "{file:?}"),
        }
        let path = file.path.clone();
        item(file, path)
    });
    laid_out(items.collect(), false)
}

fn commit(body: &[u8]) -> bool {
    match parse_commit(body) {
        Ok(commit) => {
            assert!(is_commit(&commit), "{commit}");
            true
        }
        Err(problem) => refused(&problem),
    }
}

fn next(header: &[u8]) -> bool {
    let Some(header) = std::str::from_utf8(header).ok() else { return false };
    let next = parse_next(header);
    assert!(next.is_none_or(|next| header.contains(&format!("<{next}>"))), "{next:?}");
    next.is_some()
}

/// What is read of a name, written again, is read as the same.
fn repository(text: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(text).ok() else { return false };
    let Ok(read) = Repository::parse(text) else { return false };
    assert!(read.path.is_empty() || read.path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{read:?}");
    let Repository { owner, name, revision, path, directory } = &read;
    let mut written = format!("{owner}/{name}");
    if let Some(revision) = revision {
        written.push_str(&format!("@{}", utf8_percent_encode(revision, NON_ALPHANUMERIC)));
    }
    if !path.is_empty() {
        written.push_str(&format!("/{path}"));
    }
    if *directory {
        written.push('/');
    }
    assert_eq!(Repository::parse(&written).as_ref(), Ok(&read), "{written}");
    true
}

/// Every question goes to the endpoint, and is about the path that was written.
fn opened(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    match HuggingFace::open(&written.uri, &written.options, &written.credentials, &CONTEXT) {
        Ok(source) => {
            let path = &source.repository.path;
            let file = if path.is_empty() { "file" } else { path.as_str() };
            let url = source.content("c0ffee", file);
            assert!(source.hub.owns(&url) && url.query().is_none() && url.fragment().is_none(), "{url}");
            let decoded = percent_decode_str(url.path()).decode_utf8_lossy();
            assert!(decoded.ends_with(&format!("/resolve/c0ffee/{file}")), "{url} for {file:?}");
            true
        }
        Err(error) => written.refused(&error),
    }
}
