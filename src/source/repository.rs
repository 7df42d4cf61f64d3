//! What the model hubs have in common: names of repositories, and questions to the hub that has them.

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use url::Url;

use super::{Attribute, Options};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::TOO_MANY;
use crate::net::{Arrival, HttpClient, Question, authorization, origin_text, read_all};
use crate::uri::{ModelUri, shown_text};

/// Longest answer that is read into memory. A page of a listing has a few hundred kilobytes.
const MAX_ANSWER: usize = 64 << 20;
/// Longest accepted revision: more than any file system lets git keep.
const MAX_REVISION: usize = 255;

pub(super) const REVISION: Attribute = Attribute {
    name: "revision",
    meaning: "branch, tag or commit, the same as \"@revision\" after the repository's name",
};

/// A repository, and what of it is the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    pub(super) owner: String,
    pub(super) name: String,
    /// Branch, tag or commit.
    pub(super) revision: Option<String>,
    /// Path of the model inside the repository, without slashes at its ends; empty for all of it.
    pub(super) path: String,
    /// Whether the URI can only mean a directory.
    pub(super) directory: bool,
}

impl Repository {
    /// Parses `owner/name`, a revision after `@` or `:`, and a path: `owner/name@v1/sub/dir`. In a revision, `%2F` is a
    /// slash; the hub's own `refs/pr/1` and `refs/convert/name` need none. A path is taken literally.
    ///
    /// # Errors
    /// A clause that follows the URI: what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (owner, rest) = text.split_once('/').unwrap_or((text, ""));
        let (name, rest) = rest.split_at(rest.find(['/', '@', ':']).unwrap_or(rest.len()));
        for (what, part) in [("owner", owner), ("repository", name)] {
            let valid = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            if part.is_empty() || !valid || part.starts_with('.') {
                return Err(format!("names no {what}: a repository is written owner/name"));
            }
        }
        let (revision, rest) = match rest.strip_prefix(['@', ':']) {
            Some(rest) => {
                let (revision, rest) = rest.split_at(revision_length(rest));
                let decoded = percent_decode_str(revision).decode_utf8();
                (Some(check_revision(&decoded.map_err(|_| "has a revision that is not UTF-8")?)?), rest)
            }
            None => (None, rest),
        };
        let path = rest.strip_prefix('/').unwrap_or(rest);
        let directory = path.is_empty() || path.ends_with('/');
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() && path.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err("has an empty, \".\" or \"..\" component between slashes, which can't be a path".to_owned());
        }
        let (owner, name, path) = (owner.to_owned(), name.to_owned(), path.to_owned());
        Ok(Self { owner, name, revision, path, directory })
    }

    /// As [`Self::parse`], with the attribute `revision` beside it.
    pub(super) fn open(uri: &ModelUri, text: &str, options: &Options) -> Result<Self> {
        let invalid = |problem: String| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let mut repository = Self::parse(text).map_err(invalid)?;
        let Some(attribute) = options.get(REVISION.name) else { return Ok(repository) };
        let attribute = check_revision(attribute.trim()).map_err(invalid)?;
        match &repository.revision {
            Some(named) if *named != attribute => Err(invalid(format!(
                "names the revision \"{named}\", and the attribute revision names \"{attribute}\": remove one of them"
            ))),
            _ => {
                repository.revision = Some(attribute);
                Ok(repository)
            }
        }
    }

    /// The path below the model's root of a file that the hub lists at `path`, unless it lies elsewhere.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.path.is_empty() {
            return Some(path);
        }
        path.strip_prefix(&self.path)?.strip_prefix('/')
    }
}

/// Where a revision ends that a path may follow.
fn revision_length(text: &str) -> usize {
    let special = ["refs/pr/", "refs/convert/"].into_iter().find(|prefix| text.starts_with(prefix));
    let start = special.map_or(0, str::len);
    start + text[start..].find('/').unwrap_or(text.len() - start)
}

fn check_revision(text: &str) -> Result<String, String> {
    let problem = match text {
        "" => "has an empty revision: name a branch, a tag or a commit",
        "." | ".." => "has a revision that is no branch, tag or commit",
        text if text.chars().any(|c| c.is_control() || c == ' ') => "has a revision with a space or control character",
        text if text.len() > MAX_REVISION => "has a revision of more than 255 bytes",
        text => return Ok(text.to_owned()),
    };
    Err(problem.to_owned())
}

/// Whether this is a full commit id, which never means anything else.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The last component of a path.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A hub, as one caller sees it.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) uri: ModelUri,
    /// What the hub's software is called, for messages.
    pub(super) software: &'static str,
    /// Its address, a path before the hub's own paths included.
    endpoint: Url,
    /// Sent to the endpoint's origin alone.
    credentials: Secret<HeaderMap>,
    client: HttpClient,
}

impl Hub {
    pub(super) fn new(
        uri: &ModelUri,
        software: &'static str,
        endpoint: Url,
        credentials: HeaderMap,
        client: HttpClient,
    ) -> Self {
        Self { uri: uri.clone(), software, endpoint, credentials: Secret::new(credentials), client }
    }

    /// Its address, to be shown, and the name space of its repositories.
    pub(super) fn place(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// Whether no credentials were given.
    pub(super) fn anonymous(&self) -> bool {
        self.credentials.expose().is_empty()
    }

    /// The URL of these path segments, each of which is encoded.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        // Only URLs that can't be a base, such as mailto:, have no segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether `url` is one of this hub, and may be sent credentials.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Asks the hub; a redirect to another origin is followed without credentials if `leaves`, else it is the answer.
    pub(super) async fn ask(&self, method: Method, url: &Url, headers: HeaderMap, leaves: bool) -> Result<Arrival> {
        self.send(Question { method, url, headers, credentials: self.credentials.expose(), body: None, leaves }).await
    }

    /// Asks the hub with a JSON body.
    #[cfg(feature = "huggingface")]
    pub(super) async fn post(&self, url: &Url, body: String) -> Result<Arrival> {
        let json = (reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (headers, credentials) = ([json].into_iter().collect(), self.credentials.expose());
        let body = Some(body.into());
        self.send(Question { method: Method::POST, url, headers, credentials, body, leaves: false }).await
    }

    async fn send(&self, question: Question<'_>) -> Result<Arrival> {
        let nothing = HeaderMap::new();
        let credentials = if self.owns(question.url) { question.credentials } else { &nothing };
        let arrival = self.client.follow(Question { credentials, ..question }).await;
        arrival.map_err(|error| error.within(&self.uri))
    }

    /// Reads an answer and parses it by `parse`, which says what is wrong with one that is not the hub's.
    pub(super) async fn read<T>(&self, answer: Response, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T> {
        let body = read_all(answer, MAX_ANSWER).await.map_err(|error| error.within(&self.uri))?;
        parse(&body).map_err(|problem| {
            let (place, software) = (self.place(), self.software);
            let sentence = format!("{place} answers, but not as {software} does ({problem}); check the endpoint");
            self.error(ErrorKind::InvalidArgument, sentence)
        })
    }

    pub(super) fn error(&self, kind: ErrorKind, sentence: impl AsRef<str>) -> Error {
        Error::new(kind, format!("{}: {}", self.uri, sentence.as_ref()))
    }

    pub(super) fn too_many(&self) -> Error {
        let sentence = format!("it {TOO_MANY}; name a path further down");
        self.error(ErrorKind::ResourceExhausted, sentence)
    }

    #[cfg(feature = "huggingface")]
    pub(super) fn changed(&self, path: &str) -> Error {
        self.error(ErrorKind::Changed, format!("the file \"{path}\" has changed since it was listed"))
    }

    /// What a failure means of the server that a hub redirects downloads to. The next attempt asks the hub anew, which
    /// gives another, freshly signed address.
    pub(super) fn store_failure(&self, arrival: &Arrival) -> Error {
        let (host, status) = (origin_text(&arrival.url), arrival.answer.status());
        self.error(ErrorKind::Unavailable, format!("{host}, to which {} leads, answers {status}", self.place()))
    }
}

/// Parses JSON of a known shape.
///
/// # Errors
/// What is wrong with it, without the text itself, which is the server's.
pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "its JSON has another form".to_owned(),
        _ => "it is not JSON".to_owned(),
    })
}

/// The hub's address: the attribute `endpoint`, else what the Secret has, else the hub's own.
pub(super) fn endpoint(options: &Options, credentials: &Credentials, names: &[&str], default: &str) -> Result<Url> {
    let attribute = options.get("endpoint").map(|text| text.trim().to_owned());
    let secret = || credentials.get(names).map(|value| value.expose().clone());
    let text = attribute.or_else(secret).filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned());
    let invalid = |problem: &str| {
        let text = format!("endpoint {:?} {problem}: write for instance {default}", shown_text(&text));
        Error::new(ErrorKind::InvalidArgument, text)
    };
    // As in MODELSCOPE_DOMAIN, which names a host.
    let whole = if text.contains("://") { text.clone() } else { format!("https://{text}") };
    let url = Url::parse(&whole).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("is not an http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a user, a query or a fragment, which can't be used"));
    }
    Ok(url)
}

/// A header with a secret value, unless the value can't be sent.
pub(super) fn secret_header(name: HeaderName, text: &str, key: &str) -> Result<(HeaderName, HeaderValue)> {
    let value = authorization::secret_value(text).ok_or_else(|| {
        let text = format!("the Secret's key {key} has characters that can't be sent");
        Error::new(ErrorKind::InvalidArgument, text)
    })?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_revisions_and_paths() {
        for (text, revision, path) in [
            ("o/n", None, ""),
            ("o/n/", None, ""),
            ("o/n@main", Some("main"), ""),
            ("o/n:main", Some("main"), ""),
            ("o/n@v1/sub/dir/", Some("v1"), "sub/dir"),
            ("o/n/a file@1:2%20.txt", None, "a file@1:2%20.txt"),
            ("o/n@feature%2Fx/f", Some("feature/x"), "f"),
            ("o/n@refs/pr/1", Some("refs/pr/1"), ""),
            ("o/n@refs/pr/12/f", Some("refs/pr/12"), "f"),
            ("o/n@refs/convert/parquet/f", Some("refs/convert/parquet"), "f"),
            ("o/n@refs/heads", Some("refs"), "heads"),
        ] {
            let parsed = Repository::parse(text).unwrap();
            assert_eq!((parsed.owner.as_str(), parsed.name.as_str()), ("o", "n"), "{text}");
            assert_eq!((parsed.revision.as_deref(), parsed.path.as_str()), (revision, path), "{text}");
            assert_eq!(parsed.directory, text.ends_with('/') || path.is_empty(), "{text}");
        }
        for text in ["", "o", "o/", "/n", "o/@main", "o o/n", "../n", "o/..", "o/n@", "o/n@/f", "o/n@..", "o/n//f"] {
            Repository::parse(text).unwrap_err();
        }
        for text in ["o/n/../f", "o/n/./f", "o/n/f//", "o/n@%ff", "o/n@a%20b", &format!("o/n@{}", "x".repeat(256))] {
            Repository::parse(text).unwrap_err();
        }
    }

    #[test]
    fn the_attribute_is_the_revision_too() {
        let open = |text: &str, revision: &str| {
            let uri = ModelUri::parse(&format!("hf://{text}")).unwrap();
            Repository::open(&uri, text, &[("revision".to_owned(), revision.to_owned())].into())
        };
        assert_eq!(open("o/n", " a/b ").unwrap().revision.as_deref(), Some("a/b"));
        assert_eq!(open("o/n@v1", "v1").unwrap().revision.as_deref(), Some("v1"));
        for (text, revision, hint) in [("o/n@v1", "v2", "remove one"), ("o/n", "", "empty"), ("o/n", "..", "no branch")]
        {
            let error = open(text, revision).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn endpoints() {
        let endpoint = |attribute: &str, secret: &str| {
            let options = [("endpoint".to_owned(), attribute.to_owned())].into_iter();
            let options: Options = options.filter(|(_, value)| !value.is_empty()).collect();
            endpoint(&options, &[("E", secret)].into_iter().collect(), &["E"], "https://hub.example")
        };
        assert_eq!(endpoint("", "").unwrap().as_str(), "https://hub.example/");
        assert_eq!(endpoint("", "http://m:1/api/hf/").unwrap().as_str(), "http://m:1/api/hf/");
        assert_eq!(endpoint("http://a", "http://b").unwrap().as_str(), "http://a/");
        assert_eq!(endpoint("", "mirror.example").unwrap().as_str(), "https://mirror.example/");
        for wrong in ["ftp://h", "https://u:CANARY@h", "https://h?CANARY", "https://h#x", "https://["] {
            let error = endpoint(wrong, "").unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && !error.to_string().contains("CANARY"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[a-z/@:%.2F ]{0,30}") {
            if let Ok(parsed) = Repository::parse(&text) {
                prop_assert!(!parsed.path.starts_with('/') && !parsed.path.ends_with('/'));
                prop_assert!(parsed.path.split('/').all(|component| component != ".."));
                let name = format!("{}/{}", parsed.owner, parsed.name);
                prop_assert!(text.starts_with(&name));
                let inside = format!("{}/x", parsed.path);
                prop_assert_eq!(parsed.below(inside.trim_start_matches('/')), Some("x"));
            }
        }
    }
}
