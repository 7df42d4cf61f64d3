//! What a registry is shown: a user name and a password, or a token that another server gives for them.
//!
//! The registry names that server (its *realm*), so the realm is input: it must be https, unless the registry itself may
//! be spoken to without, and it must belong to the registry, or it gets no credentials (CVE-2020-15157 is what happens
//! otherwise). What is asked for is always the right to pull from the one repository, whatever the registry proposes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::challenge::Challenge;
use super::failure::{Asked, Failures};
use super::login::Login;
use super::reference::DOCKER_HUB;
use crate::error::{Error, ErrorKind, Result};
use crate::net::authorization::{basic, bearer};
use crate::net::{HttpClient, Question, origin_text, read_all};
use crate::policy::Policy;

/// Largest answer of a token server. Tokens have some kilobytes.
const MAX_ANSWER: usize = 1 << 20;
/// How long a token is good for if nothing is said (distribution specification, "Token Response Fields").
const DEFAULT_LIFE: u64 = 60;
/// Registries whose tokens come from a host that is not related to theirs by name.
const KNOWN_REALMS: &[(&str, &str)] = &[(DOCKER_HUB, "auth.docker.io")];

/// What decides whether credentials may be shown, and to whom.
#[derive(Debug)]
pub(super) struct Gate {
    /// Host, and port if one is given.
    pub(super) registry: String,
    /// Whether the registry is spoken to without TLS.
    pub(super) plain_http: bool,
    pub(super) login: Option<Login>,
    pub(super) policy: Policy,
}

/// What was shown last, and found good.
#[derive(Debug, Default)]
pub(super) struct Passes(Mutex<Option<Pass>>);

struct Pass {
    header: HeaderValue,
    /// When it should no longer be used; `None` for what does not expire.
    until: Option<Instant>,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Pass {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Passes {
    pub(super) async fn current(&self) -> Option<HeaderValue> {
        let pass = self.0.lock().await;
        pass.as_ref().filter(|pass| pass.is_fresh()).map(|pass| pass.header.clone())
    }

    /// Another pass than `refused`, by the registry's challenges. Of many requests that are refused at once, one asks.
    pub(super) async fn renew(
        &self,
        client: &HttpClient,
        gate: &Gate,
        failures: &Failures,
        refused: Option<&HeaderValue>,
        challenges: &[Challenge],
    ) -> Result<HeaderValue> {
        let mut pass = self.0.lock().await;
        if let Some(pass) = pass.as_ref().filter(|pass| pass.is_fresh() && Some(&pass.header) != refused) {
            return Ok(pass.header.clone());
        }
        *pass = None;
        let fresh = gate.answer(client, failures, challenges).await?;
        let header = fresh.header.clone();
        *pass = Some(fresh);
        Ok(header)
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Gate {
    async fn answer(&self, client: &HttpClient, failures: &Failures, challenges: &[Challenge]) -> Result<Pass> {
        let refused = || failures.refused(&self.registry, StatusCode::UNAUTHORIZED);
        if let Some(Login::Token(token)) = &self.login {
            return lasting(bearer(token.expose()), failures);
        }
        let server = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, .. } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        if let Some((realm, service)) = server {
            let realm = self.realm(realm, failures)?;
            return self.token(client, failures, &realm, service).await;
        }
        match &self.login {
            Some(Login::Password { user, password }) if challenges.contains(&Challenge::Basic) => {
                lasting(basic(user, password.expose()), failures)
            }
            Some(Login::Identity(_)) => Err(failures.error(
                ErrorKind::Unauthenticated,
                format!("{} gives no tokens, so that the Secret's identity token is of no use", self.registry),
            )),
            _ => Err(refused()),
        }
    }

    /// Checks the place that the registry names for its tokens.
    pub(super) fn realm(&self, text: &str, failures: &Failures) -> Result<Url> {
        let refuse = |problem: String| {
            let text = format!("{} names a place for its tokens {problem}", self.registry);
            Err(failures.error(ErrorKind::PermissionDenied, text))
        };
        let Ok(mut realm) = Url::parse(text) else { return refuse("that is no URL".to_owned()) };
        realm.set_fragment(None);
        let place = origin_text(&realm);
        if !realm.username().is_empty() || realm.password().is_some() {
            return refuse(format!("with a user name in it ({place})"));
        }
        match realm.scheme() {
            "https" => {}
            "http" if self.plain_http && self.policy.check_plain_http(&authority(&realm)).is_ok() => {}
            _ => return refuse(format!("that is not https ({place})")),
        }
        if self.login.is_some() && !self.is_related(realm.host_str().unwrap_or_default()) {
            return refuse(format!("at another host, {place}, to which the Secret's credentials are not sent"));
        }
        Ok(realm)
    }

    /// Whether a host is the registry's own, or one of its domain: `registry.gitlab.example` has `gitlab.example`.
    fn is_related(&self, host: &str) -> bool {
        let known = KNOWN_REALMS.iter().any(|(registry, realm)| self.registry == *registry && *realm == host);
        let own = match self.registry.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &self.registry,
        };
        known
            || own == host
            || domain(own).is_some_and(|domain| {
                host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
            })
    }

    async fn token(
        &self,
        client: &HttpClient,
        failures: &Failures,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<Pass> {
        let scope = format!("repository:{}:pull", failures.reference.repository);
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|service| ("service", service)));
        let mut url = realm.clone();
        let (mut headers, mut credentials) = (HeaderMap::new(), HeaderMap::new());
        let (mut method, mut body) = (Method::GET, None);
        if let Some(Login::Identity(token)) = &self.login {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "modelmount"),
                ("refresh_token", token.expose()),
            ]);
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            (method, body) = (Method::POST, Some(Bytes::from(form)));
        } else {
            url.query_pairs_mut().extend_pairs(fields);
        }
        if let Some(Login::Password { user, password }) = &self.login {
            credentials.insert(AUTHORIZATION, basic(user, password.expose()).ok_or_else(|| unsendable(failures))?);
        }
        let question = Question { method, url: &url, headers, credentials: &credentials, body, leaves: false };
        let arrival = client.follow(question).await.map_err(|error| error.within(&failures.uri))?;
        let (answer, host) = (arrival.answer, origin_text(realm));
        if !answer.status().is_success() {
            // Token servers say 400 to a wrong password or refresh token, too.
            return Err(match answer.status() {
                StatusCode::BAD_REQUEST => failures.refused(&host, StatusCode::UNAUTHORIZED),
                status => failures.explain(&Asked::Token, &host, status, None),
            });
        }
        let body = read_all(answer, MAX_ANSWER).await.map_err(|error| error.within(&failures.uri))?;
        let (token, life) = parse(&body).ok_or_else(|| {
            failures.error(ErrorKind::Unavailable, format!("{host} answered, but not with a token; it is asked again"))
        })?;
        let header = bearer(&token).ok_or_else(|| unsendable(failures))?;
        // Renewed before it expires, and not at the moment when it does.
        Ok(Pass { header, until: Instant::now().checked_add(life * 3 / 4) })
    }
}

/// The token of an answer, and how long it is good for.
pub(super) fn parse(body: &[u8]) -> Option<(String, Duration)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.into_iter().chain(answer.access_token).find(|token| !token.is_empty())?;
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(1, 24 * 60 * 60);
    Some((token, Duration::from_secs(life)))
}

/// The domain that a host is in, if it is one that somebody owns: `example.com`, and neither `com` nor `co.uk`.
fn domain(host: &str) -> Option<&str> {
    let (_, domain) = host.split_once('.')?;
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return None;
    }
    let (owner, top) = domain.rsplit_once('.')?;
    let second = owner.rsplit_once('.').map_or(owner, |(_, second)| second);
    let is_public = !owner.contains('.') && second.len() <= 3 && top.len() == 2;
    (!is_public).then_some(domain)
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn lasting(header: Option<HeaderValue>, failures: &Failures) -> Result<Pass> {
    header.map(|header| Pass { header, until: None }).ok_or_else(|| unsendable(failures))
}

fn unsendable(failures: &Failures) -> Error {
    failures.error(ErrorKind::InvalidArgument, "a token has characters that can't be sent")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;
    use crate::source::oci::reference::Reference;
    use crate::uri::ModelUri;
    use proptest::prelude::*;

    fn gate(registry: &str, plain_http: bool, login: bool) -> (Gate, Failures) {
        let uri = ModelUri::parse(&format!("oci://{registry}/m")).unwrap();
        let reference = Reference::parse(&uri, None).unwrap();
        let login = login.then(|| Login::Password { user: "u".into(), password: Secret::new("p".into()) });
        let policy = Policy::default().with_plain_http(vec!["plain.example:5000".into(), "plain.example:5001".into()]);
        let gate = Gate { registry: reference.registry.clone(), plain_http, login, policy };
        (gate, Failures { uri, reference, anonymous: false, absence: None })
    }

    #[test]
    fn credentials_go_to_realms_of_the_registry_alone() {
        for (registry, realm) in [
            ("ghcr.io", "https://ghcr.io/token"),
            ("ghcr.io", "https://ghcr.io:8443/token"),
            ("host.example:5000", "https://host.example/token"),
            ("docker.io", "https://auth.docker.io/token"),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("registry.example.co.uk", "https://auth.example.co.uk/x"),
            ("registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth"),
            ("192.0.2.1:5000", "https://192.0.2.1/token"),
            ("[::1]:5000", "https://[::1]:5001/token"),
        ] {
            let (gate, failures) = gate(registry, false, true);
            gate.realm(realm, &failures).unwrap_or_else(|error| panic!("{registry} {realm}: {error:?}"));
        }
        for (registry, realm) in [
            ("ghcr.io", "https://evil.example/token"),
            ("ghcr.io", "https://ghcr.io.evil.example/token"),
            ("ghcr.io", "https://other.io/token"),
            ("ghcr.io", "https://evilghcr.io/token"),
            ("docker.io", "https://docker.io.evil.example/"),
            ("registry.gitlab.com", "https://evilgitlab.com/jwt/auth"),
            ("registry.co.uk", "https://evil.co.uk/token"),
            ("quay.io", "https://auth.docker.io/token"),
            ("192.0.2.1", "https://198.51.2.1/token"),
            ("localhost:5000", "https://evil.localhost/token"),
        ] {
            let (gate, failures) = gate(registry, false, true);
            let error = gate.realm(realm, &failures).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{registry} {realm}");
            assert!(error.report().contains("credentials are not sent"), "{error:?}");
        }
        // Without credentials there is nothing to lose.
        let (gate, failures) = gate("ghcr.io", false, false);
        gate.realm("https://tokens.example/", &failures).unwrap();
    }

    #[test]
    fn realms_are_https_unless_the_registry_may_be_plain() {
        for (registry, plain, realm, hint) in [
            ("ghcr.io", false, "http://ghcr.io/token", "not https"),
            ("plain.example:5000", false, "http://plain.example:5001/token", "not https"),
            ("plain.example:5000", true, "http://plain.example:5002/token", "not https"),
            ("ghcr.io", false, "file:///etc/passwd", "not https"),
            ("ghcr.io", false, "https://user:CANARY@ghcr.io/", "user name"),
            ("ghcr.io", false, "/token", "no URL"),
        ] {
            let (gate, failures) = gate(registry, plain, false);
            let error = gate.realm(realm, &failures).unwrap_err();
            assert!(error.report().contains(hint) && !error.report().contains("CANARY"), "{error:?}");
        }
        let (gate, failures) = gate("plain.example:5000", true, true);
        gate.realm("http://plain.example:5001/token", &failures).unwrap();
    }

    #[test]
    fn tokens_are_read_and_live_as_long_as_they_say() {
        let of = |json: &str| parse(json.as_bytes()).map(|(token, life)| (token, life.as_secs()));
        assert_eq!(of(r#"{"token": "t", "expires_in": 300}"#), Some(("t".into(), 300)));
        assert_eq!(of(r#"{"token": "", "access_token": "a"}"#), Some(("a".into(), 60)));
        assert_eq!(of(r#"{"access_token": "a", "expires_in": 0}"#), Some(("a".into(), 1)));
        assert_eq!(of(r#"{"token": "t", "expires_in": 18446744073709551615}"#), Some(("t".into(), 86400)));
        for bad in ["", "{}", "[]", r#"{"token": 1}"#, r#"{"token": "t", "expires_in": -1}"#, "<html>"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_a_token_for_a_while_or_none(
            token in ".{0,9}", life in any::<u64>(), junk in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let body = serde_json::json!({"token": token, "expires_in": life}).to_string();
            prop_assert_eq!(parse(body.as_bytes()).is_some(), !token.is_empty());
            for body in [body.as_bytes(), &junk] {
                prop_assert!(parse(body).is_none_or(|(token, life)| !token.is_empty() && (1..=86400).contains(&life.as_secs())));
            }
        }

        #[test]
        fn no_realm_makes_it_panic(realm in ".{0,60}", host in "[a-z.:]{0,20}") {
            let (gate, failures) = gate("ghcr.io", false, true);
            if let Ok(url) = gate.realm(&realm, &failures) {
                prop_assert!(url.host_str().is_some_and(|host| host.ends_with("ghcr.io")));
            }
            let _ = domain(&host);
        }
    }
}
