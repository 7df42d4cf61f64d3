//! Which repository, which revision, which part of it: read from the URI and the attributes.

use url::Url;

use super::{PATH, REVISION};
use crate::error::{Error, ErrorKind, Result};
use crate::source::Options;
use crate::uri::ModelUri;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The repository's, without user, query and fragment.
    pub(super) url: Url,
    /// The user that the URI names.
    pub(super) user: Option<String>,
    /// A branch, a tag, a full reference or a commit.
    pub(super) revision: Option<String>,
    /// Relative, without slashes at its ends; empty for the whole repository.
    pub(super) path: String,
    /// Whether the path can only mean a directory.
    pub(super) directory: bool,
}

/// `git+https://…`, and `https://….git`: at the path's end, and nowhere else.
pub(super) fn claims(uri: &ModelUri) -> bool {
    match uri.scheme().as_str() {
        "git+https" | "git+http" => true,
        "https" => !uri.path().contains(['?', '#']) && uri.path().trim_end_matches('/').ends_with(".git"),
        _ => false,
    }
}

impl Location {
    pub(super) fn read(uri: &ModelUri, options: &Options) -> Result<Self> {
        let invalid = |problem: &str| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let prefixed = uri.scheme().as_str().strip_prefix("git+");
        let scheme = prefixed.unwrap_or(uri.scheme().as_str());
        let mut path = uri.path();
        let (mut revision, mut subdirectory) = (None, None);
        if prefixed.is_some() {
            let fragment;
            (path, fragment) = path.split_once('#').map_or((path, None), |(path, fragment)| (path, Some(fragment)));
            (path, revision) = path.rsplit_once('@').map_or((path, None), |(path, revision)| (path, Some(revision)));
            subdirectory = fragment
                .map(|fragment| {
                    fragment.strip_prefix("subdirectory=").ok_or_else(|| {
                        invalid("has a fragment that means nothing here: write #subdirectory=path, or leave it out")
                    })
                })
                .transpose()?;
        }
        let mut url =
            Url::parse(&format!("{scheme}://{}{path}", uri.authority())).map_err(|_| invalid("is not a valid URL"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("has a query, which means nothing to git: leave it out"));
        }
        if url.password().is_some() {
            return Err(invalid(
                "has a password in it, where everybody who may read the pod can see it; put it into a Secret as \
                 GIT_PASSWORD",
            ));
        }
        let user = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy().into_owned();
        url.set_username("").map_err(|()| invalid("names no host"))?;
        let trimmed = url.path().trim_end_matches('/').to_owned();
        if trimmed.is_empty() {
            return Err(invalid("names no repository"));
        }
        url.set_path(&trimmed);

        let agreed = |here: Option<&str>, name: &str| {
            let there = options.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
            match (here, there) {
                (Some(here), Some(there)) if here != there => {
                    Err(invalid(&format!("names another {name} than the attribute {name}: leave one of the two out")))
                }
                (here, there) => Ok(here.or(there).map(str::to_owned)),
            }
        };
        let revision = agreed(revision, REVISION.name)?;
        if revision.as_deref().is_some_and(|revision| !is_revision(revision)) {
            return Err(invalid("names a revision that can't be one: write a branch, a tag or a commit"));
        }
        let path = agreed(subdirectory, PATH.name)?.unwrap_or_default();
        let directory = path.ends_with('/') || path.is_empty();
        let path = path.trim_matches('/').to_owned();
        if !path.is_empty() && path.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err(invalid("names a path with an empty, \".\" or \"..\" component"));
        }
        let user = Some(user).filter(|user| !user.is_empty());
        Ok(Self { url, user, revision, path, directory })
    }
}

/// What git allows in the name of a reference (git-check-ref-format), about.
fn is_revision(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    !name.is_empty()
        && !name.starts_with(['-', '/'])
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(uri: &str, options: &[(&str, &str)]) -> Result<Location> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Location::read(&ModelUri::parse(uri)?, &options)
    }

    #[test]
    fn only_repositories_are_claimed() {
        for (uri, claimed) in [
            ("https://h/a/b.git", true),
            ("https://h/a/b.git/", true),
            ("git+https://h/a/b", true),
            ("git+http://h/a/b", true),
            ("http://h/a/b.git", false),
            ("https://raw.githubusercontent.com/a/b/m.bin", false),
            ("https://a.github.io/m.bin", false),
            ("https://h/a.git/m.bin", false),
            ("https://h/m.bin?x=.git", false),
        ] {
            assert_eq!(claims(&ModelUri::parse(uri).unwrap()), claimed, "{uri}");
        }
    }

    #[test]
    fn parts_are_found() {
        let found = |uri, options: &[(&str, &str)]| {
            let Location { url, user, revision, path, directory } = read(uri, options).unwrap();
            (url.to_string(), user, revision, path, directory)
        };
        let some = |text: &str| Some(text.to_owned());
        let none = &[][..];
        assert_eq!(found("https://h/a.git/", none), ("https://h/a.git".into(), None, None, String::new(), true));
        assert_eq!(
            found("git+https://u@h:8443/a/b.git@v1#subdirectory=x/y/", none),
            ("https://h:8443/a/b.git".into(), some("u"), some("v1"), "x/y".into(), true)
        );
        assert_eq!(
            found("git+http://h/a@feature/x", &[("path", "m.bin"), ("revision", "feature/x")]),
            ("http://h/a".into(), None, some("feature/x"), "m.bin".into(), false)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (uri, options, hint) in [
            ("git+https://u:CANARY@h/a", &[][..], "GIT_PASSWORD"),
            ("git+https://h/a?x=CANARY", &[], "query"),
            ("git+https://h/a#egg=x", &[], "#subdirectory=path"),
            ("git+https://h/a@", &[], "revision"),
            ("git+https://h/a@v..w", &[], "revision"),
            ("git+https://h/a@v1", &[("revision", "v2")], "leave one of the two out"),
            ("git+https://h/a#subdirectory=../b", &[], "component"),
            ("git+https://h", &[], "no repository"),
            ("git+https://h:x/a", &[], "valid URL"),
        ] {
            let error = read(uri, options).unwrap_err();
            assert!(error.report().contains(hint) && !error.report().contains("CANARY"), "{uri}: {}", error.report());
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    proptest! {
        #[test]
        fn any_uri_is_a_location_or_an_error(rest in ".{1,60}", path in ".{0,20}") {
            if let Ok(found) = read(&format!("git+https://{rest}"), &[("path", &path)]) {
                prop_assert!(found.url.username().is_empty() && found.url.query().is_none());
                prop_assert!(!found.path.starts_with('/') && !found.path.split('/').any(|part| part == ".."));
            }
        }
    }
}
