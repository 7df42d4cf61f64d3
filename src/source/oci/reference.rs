//! Names of models in registries: `registry[:port]/repository[:tag][@digest]`, with Docker Hub's short forms.
//!
//! Pure. What it accepts is what goes into the paths of requests, so nothing in it needs encoding.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;
use crate::uri::ModelUri;

/// Docker Hub's name in references, in image pull secrets and for mirrors.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub answers.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name (distribution specification, "Pulling manifests").
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// A parsed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Host, and port if one is given, in lower case.
    pub(super) registry: String,
    pub(super) repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    /// Parses what follows `oci://`, and the attribute `revision`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], saying what to change.
    pub(super) fn parse(uri: &ModelUri, revision: Option<&str>) -> Result<Self> {
        let invalid = |problem: String| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let text = uri.expose().split_once("://").map_or("", |(_, text)| text);
        let parsed = parse(text).map_err(invalid)?;
        match revision.map(str::trim) {
            None => Ok(parsed),
            Some(revision) => parsed.at(revision).map_err(invalid),
        }
    }

    /// A digest wins over a tag, which is then a remark for people.
    pub(super) fn version(&self) -> Version {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Version::Digest(*digest),
            (None, Some(tag)) => Version::Tag(tag.clone()),
            (None, None) => Version::Tag(DEFAULT_TAG.to_owned()),
        }
    }

    /// The host, and port if one is given, that requests go to.
    pub(super) fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &self.registry }
    }

    fn at(self, revision: &str) -> Result<Self, String> {
        let given = match revision.contains(':') {
            true => Self { digest: Some(digest(revision)?), ..self.clone() },
            false => Self { tag: Some(tag(revision)?), ..self.clone() },
        };
        let named = self.tag.is_some() || self.digest.is_some();
        if named && given != self {
            return Err("names another version than the attribute revision: leave one of them out".to_owned());
        }
        Ok(given)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.contains(['?', '#']) {
        return Err("has a \"?\" or \"#\", which no name in a registry has".to_owned());
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, rest)) if !name.contains('/') && rest.contains('/') && !rest.starts_with("sha") => {
            return Err("has a user name or password in it, where everybody who may read the pod can see them; put \
                        them into a Secret"
                .to_owned());
        }
        Some((name, text)) => (name, Some(digest(text)?)),
        None => (text, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_registry(first) => (registry(first)?, rest),
        _ => (DOCKER_HUB.to_owned(), name),
    };
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, text)) if !text.contains('/') => (repository, Some(tag(text)?)),
        _ => (path, None),
    };
    if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_component) {
        return Err(format!(
            "names no repository after the registry: {repository:?} is not of lower-case letters and digits, with single \
             separators (. _ __ -) inside, between slashes"
        ));
    }
    let official = registry == DOCKER_HUB && !repository.contains('/');
    let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
    Ok(Reference { registry, repository, tag, digest })
}

/// Docker's rule: a first component is a host if it looks like no one's user name.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first.eq_ignore_ascii_case("localhost")
}

fn registry(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    let port_is_valid = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !host_is_valid || !port_is_valid {
        return Err(format!("names no registry: {text:?} is not a host, or a host and a port"));
    }
    let registry = text.to_ascii_lowercase();
    let hub = ["index.docker.io", "registry.hub.docker.com", DOCKER_HUB_HOST];
    Ok(if hub.contains(&registry.as_str()) { DOCKER_HUB.to_owned() } else { registry })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, of the distribution specification.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_are_plain = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut inside = separators.filter(|separator| !separator.is_empty());
    ends_are_plain
        && inside.all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn tag(text: &str) -> Result<String, String> {
    let inside = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if text.is_empty() || text.len() > MAX_TAG || !inside || text.starts_with(['.', '-']) {
        let shown: String = text.chars().take(MAX_TAG).collect();
        return Err(format!("has no valid tag: {shown:?} is not of letters, digits, '_', '.' and '-'"));
    }
    Ok(text.to_owned())
}

fn digest(text: &str) -> Result<Digest, String> {
    if text.starts_with("sha512:") {
        return Err("names its version by SHA-512, which is not supported: name it by sha256 or by tag".to_owned());
    }
    text.parse().map_err(|error| format!("has no valid digest: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn parsed(text: &str, revision: Option<&str>) -> Result<Reference> {
        Reference::parse(&ModelUri::parse(&format!("oci://{text}"))?, revision)
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (text, registry, repository, version) in [
            ("ghcr.io/org/model:v1", "ghcr.io", "org/model", "v1"),
            ("ghcr.io/org/model", "ghcr.io", "org/model", "latest"),
            ("host:5000/m", "host:5000", "m", "latest"),
            ("localhost/m:x", "localhost", "m", "x"),
            ("[::1]:5000/a/b:x", "[::1]:5000", "a/b", "x"),
            ("[::1]/a", "[::1]", "a", "latest"),
            ("REG.example/a", "reg.example", "a", "latest"),
            ("llama", "docker.io", "library/llama", "latest"),
            ("llama:3", "docker.io", "library/llama", "3"),
            ("ai/smollm2:latest", "docker.io", "ai/smollm2", "latest"),
            ("docker.io/llama", "docker.io", "library/llama", "latest"),
            ("index.docker.io/ai/m", "docker.io", "ai/m", "latest"),
            ("h.io/a__b/c.d/e-f--g:T_a.g-1", "h.io", "a__b/c.d/e-f--g", "T_a.g-1"),
        ] {
            let reference = parsed(text, None).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!((reference.registry.as_str(), reference.repository.as_str()), (registry, repository), "{text}");
            assert_eq!(reference.version().to_string(), version, "{text}");
        }
        assert_eq!(parsed("llama", None).unwrap().host(), "registry-1.docker.io");
        for text in [format!("ghcr.io/m@{HEX}"), format!("ghcr.io/m:v1@{HEX}"), format!("llama@{HEX}")] {
            assert_eq!(parsed(&text, None).unwrap().version().to_string(), HEX, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("ghcr.io/Org/model", "lower-case"),
            ("ghcr.io/", "names no repository"),
            ("ghcr.io/a//b", "names no repository"),
            ("ghcr.io/a/b/", "names no repository"),
            ("ghcr.io/../b", "names no repository"),
            ("ghcr.io/a___b", "names no repository"),
            ("ghcr.io/a%2fb", "names no repository"),
            ("ghcr.io/a:", "valid tag"),
            ("ghcr.io/a:b c", "valid tag"),
            ("ghcr.io/a:-x", "valid tag"),
            ("ghcr.io/a?x=y", "\"?\""),
            ("ghcr.io/a@sha256:../../etc", "valid digest"),
            ("ghcr.io/a@sha512:aa", "SHA-512"),
            ("ghcr.io/a@latest", "valid digest"),
            ("host:0/a", "names no registry"),
            ("host:port/a", "names no registry"),
            ("-h.io/a", "names no registry"),
            ("[::x]/a", "names no registry"),
            ("user:hunter2@ghcr.io/a", "Secret"),
        ] {
            let error = parsed(text, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.report().contains(hint) && !error.report().contains("hunter2"), "{text}: {}", error.report());
        }
    }

    #[test]
    fn the_revision_is_a_tag_or_a_digest_and_says_nothing_else_than_the_uri() {
        assert_eq!(parsed("h.io/m", Some("v2")).unwrap().version(), Version::Tag("v2".into()));
        assert_eq!(parsed("h.io/m", Some(HEX)).unwrap().version().to_string(), HEX);
        assert_eq!(parsed("h.io/m:v2", Some("v2")).unwrap().version(), Version::Tag("v2".into()));
        for (text, revision) in [("h.io/m:v1", "v2"), ("h.io/m:v1", HEX), ("h.io/m", ""), ("h.io/m", "md5:x")] {
            assert_eq!(
                parsed(text, Some(revision)).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{text} {revision}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_needs_no_encoding(text in "[a-zA-Z0-9./:@_\\[\\]%?#é -]{1,60}") {
            if let Ok(reference) = parse(&text) {
                let whole = format!("{}/{}/{}", reference.registry, reference.repository, reference.version());
                prop_assert!(whole.bytes().all(|b| b.is_ascii_alphanumeric() || b"./:_-[]".contains(&b)), "{}", whole);
                prop_assert!(!reference.repository.split('/').any(|part| part.is_empty() || part == ".."));
            }
        }
    }
}
