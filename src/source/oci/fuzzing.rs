//! What must hold of a registry's answers, and of what users write about registries.

use super::challenge::{self, Challenge};
use super::failure::{Failures, code};
use super::layout::items;
use super::login::{Login, Logins};
use super::manifest::{self, Document, Platform, choose};
use super::mirror::RegistryMirror;
use super::reference::{Reference, Version};
use super::token::{self, Gate};
use crate::credentials::Secret;
use crate::policy::Policy;
use crate::source::fuzzing::{Checks, Written, laid_out, refused};
use crate::uri::ModelUri;
use url::Url;

pub(in crate::source) const CHECKS: Checks = &[
    (b'd', document),
    (b'r', reference),
    (b'p', platform),
    (b'm', mirror),
    (b'c', challenges),
    (b'w', realm),
    (b't', token),
    (b'l', login),
    (b'e', refusal),
];

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// A manifest is files that can be laid out, an index gives one of its own manifests, or it is refused.
fn document(body: &[u8]) -> bool {
    match manifest::parse(body) {
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.iter().all(|layer| i64::try_from(layer.size).is_ok()));
            match items(&manifest) {
                Ok((items, exact)) => {
                    assert!(items.iter().all(|item| item.digest.is_some()), "a file that can't be verified");
                    laid_out(items, exact)
                }
                Err(problem) => refused(&problem),
            }
        }
        Ok(Document::Index(candidates)) => match choose(&candidates, &Platform::own()) {
            Ok(digest) => {
                assert!(candidates.iter().any(|candidate| candidate.digest == digest));
                true
            }
            Err(problem) => refused(&problem),
        },
        Err(problem) => refused(&problem),
    }
}

/// A name, and on a second line the attribute `revision`. What is read goes into a URL as it is, and written again is
/// read as the same.
fn reference(input: &[u8]) -> bool {
    let parse = |name: &str, revision| Reference::parse(&ModelUri::parse(&format!("oci://{name}"))?, revision);
    let Some(text) = text(input) else { return false };
    let (name, revision) = text.split_once('\n').map_or((text, None), |(name, revision)| (name, Some(revision)));
    let read = match parse(name, revision) {
        Ok(read) => read,
        Err(error) => return refused(&error.report()),
    };
    let Reference { registry, repository, .. } = &read;
    let written = match read.version() {
        Version::Tag(tag) => format!("{registry}/{repository}:{tag}"),
        Version::Digest(digest) => format!("{registry}/{repository}@{digest}"),
    };
    let again = parse(&written, None).map(|again| (again.registry.clone(), again.repository.clone(), again.version()));
    assert_eq!(again.ok(), Some((registry.clone(), repository.clone(), read.version())), "{written}");
    let path = format!("/v2/{repository}/manifests/{}", read.version());
    // Hosts such as 0.0.0.0.0 are no URL's: they are refused when the request is made.
    if let Ok(url) = Url::parse(&format!("https://{}{path}", read.host())) {
        assert!(url.path() == path && url.query().is_none() && url.username().is_empty(), "{url}");
    }
    true
}

fn platform(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    match text.parse::<Platform>() {
        Ok(platform) => {
            // Longer ones are cut where they are shown.
            assert!(text.len() > 100 || platform.to_string() == text, "{platform}");
            true
        }
        Err(problem) => refused(&problem),
    }
}

fn mirror(input: &[u8]) -> bool {
    let Some(text) = text(input) else { return false };
    match text.parse::<RegistryMirror>() {
        Ok(mirror) => {
            let base = mirror.base();
            assert!(matches!(base.scheme(), "http" | "https") && base.path().ends_with('/'), "{base}");
            assert!(base.path().split('/').any(|part| part == "v2"), "{base}");
            assert!(base.username().is_empty() && base.query().is_none() && base.fragment().is_none(), "{base}");
            true
        }
        Err(error) => refused(&error.report()),
    }
}

/// Challenges, written again, are read as the same.
fn challenges(input: &[u8]) -> bool {
    let Some(header) = text(input) else { return false };
    let found = challenge::parse(header);
    assert!(found.len() <= header.len());
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let written: Vec<String> = found
        .iter()
        .map(|challenge| match challenge {
            Challenge::Basic => "Basic realm=\"\"".to_owned(),
            Challenge::Bearer { realm, service, insufficient } => {
                let service = service.as_ref().map(|service| format!(", service={}", quoted(service)));
                let error = if *insufficient { ", error=insufficient_scope" } else { "" };
                format!("Bearer realm={}{}{error}", quoted(realm), service.unwrap_or_default())
            }
        })
        .collect();
    assert_eq!(challenge::parse(&written.join(", ")), found);
    !found.is_empty()
}

/// A registry, and on a second line the place that it names for its tokens. That place gets a password only if it is of
/// the same domain, and over TLS.
fn realm(input: &[u8]) -> bool {
    let Some((registry, realm)) = text(input).and_then(|text| text.split_once('\n')) else { return false };
    let Ok(uri) = ModelUri::parse(&format!("oci://{registry}/m")) else { return false };
    let Ok(reference) = Reference::parse(&uri, None) else { return false };
    let login = Some(Login::Password { user: "u".to_owned(), password: Secret::new("p".to_owned()) });
    let registry = reference.registry.clone();
    let gate = Gate { registry: registry.clone(), plain_http: false, login, policy: Policy::default() };
    let failures = Failures { uri, reference, anonymous: false, absence: None };
    match gate.realm(realm, &failures) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let own =
                registry.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(&*registry, |(own, _)| own);
            let domain = |host: &str| host.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
            assert!(url.scheme() == "https" && url.username().is_empty() && url.password().is_none(), "{url}");
            assert!(host == own || (host.contains('.') && domain(host) == domain(own)), "{url} for {registry}");
            true
        }
        Err(error) => refused(&error.report()),
    }
}

fn token(body: &[u8]) -> bool {
    let Some((token, life)) = token::parse(body) else { return false };
    assert!(!token.is_empty() && (1..=24 * 60 * 60).contains(&life.as_secs()), "{life:?}");
    true
}

/// What a user writes for a model in a registry: its URI, and a Secret.
fn login(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    let Ok(reference) = Reference::parse(&written.uri, None) else { return false };
    match Logins::find(&written.credentials, &reference) {
        Ok(Logins { login, absence }) => {
            assert!(login.is_none() || absence.is_none());
            login.is_some()
        }
        Err(error) => written.refused(&error),
    }
}

fn refusal(body: &[u8]) -> bool {
    let code = code(body);
    assert!(code.as_deref().is_none_or(|code| code.len() < 64 && code.is_ascii()), "{code:?}");
    code.is_some()
}
