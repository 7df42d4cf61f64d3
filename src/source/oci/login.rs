//! Who the caller is to a registry: image pull secrets, as Kubernetes and Docker write them, or a user name and a
//! password. Pure.
//!
//! An entry of `auths` is for a host, or a host and a path below which all repositories are. The most particular entry
//! that covers the model is used, and no other. Entries are compared as kubelet does it: `*` stands for one label of a
//! host name, a port must be the same, and `https://` and `/v1/` around a host mean nothing.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::reference::{DOCKER_HUB, Reference};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};

/// Keys of a Secret that hold a Docker configuration.
const CONFIGS: &[&str] = &[".dockerconfigjson", "config.json"];
/// The same without the level `auths`: kubernetes.io/dockercfg.
const OLD_CONFIG: &str = ".dockercfg";
/// The user name that stands for "the password is an identity token".
const TOKEN_USER: &str = "<token>";

/// What is shown to a registry, or to the server that gives its tokens.
#[derive(Clone, Debug)]
pub(super) enum Login {
    Password {
        user: String,
        password: Secret<String>,
    },
    /// Exchanged for tokens (OAuth 2 refresh token).
    Identity(Secret<String>),
    /// Sent to the registry as it is.
    Token(Secret<String>),
}

/// What the caller brought for one registry.
#[derive(Debug, Default)]
pub(super) struct Logins {
    pub(super) login: Option<Login>,
    /// Why there is none, if the caller may have thought that there is one.
    pub(super) absence: Option<&'static str>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl Logins {
    /// What `credentials` hold for the repository of `reference`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a key of wrong form, without showing any of it.
    pub(super) fn find(credentials: &Credentials, reference: &Reference) -> Result<Self> {
        let mut absence = None;
        let old = credentials.get(&[OLD_CONFIG]);
        let config = match (credentials.get(CONFIGS), &old) {
            (Some(json), _) => Some(parse::<Config>(CONFIGS[0], json.expose())?),
            (None, Some(json)) => {
                Some(Config { auths: parse(OLD_CONFIG, json.expose())?, helpers: BTreeMap::new(), store: None })
            }
            (None, None) => None,
        };
        if let Some(config) = config {
            if let Some(auth) = best(&config.auths, reference) {
                return Ok(Self { login: login(auth)?, absence: None });
            }
            let helped = config.helpers.keys().any(|key| covers(key, reference).is_some());
            absence = Some(if helped || config.store.is_some() {
                "the Secret's Docker configuration leaves this registry to a credential helper (credHelpers or \
                 credsStore), a program that is not here; put user name and password into its auths"
            } else {
                "the Secret's Docker configuration has no entry for this registry and repository"
            });
        }
        let user = credentials.get(&["OCI_USERNAME", "username"]);
        let password = credentials.get(&["OCI_PASSWORD", "password"]);
        Ok(match (user, password) {
            (Some(user), Some(password)) => Self { login: Some(with_password(user.expose(), password)), absence: None },
            (None, None) => Self { login: None, absence },
            _ => Self { login: None, absence: Some("the Secret has only one of username and password") },
        })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(key: &str, json: &str) -> Result<T> {
    // The parser's own words quote the text.
    serde_json::from_str(json).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        invalid(format!("the Secret's key {key:?} is no Docker configuration: its JSON is wrong at {place}"))
    })
}

fn best<'a>(auths: &'a BTreeMap<String, Auth>, reference: &Reference) -> Option<&'a Auth> {
    let covering = auths.iter().filter_map(|(key, auth)| Some((covers(key, reference)?, auth)));
    covering.max_by_key(|(particular, _)| *particular).map(|(_, auth)| auth)
}

/// Whether an entry's key is for this model's repository; greater is more particular.
fn covers(key: &str, reference: &Reference) -> Option<(usize, bool)> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = ["v1", "v2"]
        .iter()
        .find_map(|api| match path.strip_prefix(api) {
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        })
        .unwrap_or(path);
    let path = path.trim_end_matches('/');
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB,
        other => other,
    };
    let rest = reference.repository.strip_prefix(path)?;
    let below = path.is_empty() || rest.is_empty() || rest.starts_with('/');
    let exact = host == reference.registry;
    (below && (exact || host_matches(host, &reference.registry))).then_some((path.len(), exact))
}

/// Compares host and port; `*` stands for any run of characters of one label.
fn host_matches(pattern: &str, registry: &str) -> bool {
    let split = |text: &'_ str| -> (Vec<String>, Option<String>) {
        let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port.to_owned())));
        (host.split('.').map(str::to_owned).collect(), port)
    };
    let ((pattern, wanted_port), (host, port)) = (split(pattern), split(registry));
    wanted_port == port
        && pattern.len() == host.len()
        && pattern.iter().zip(&host).all(|(pattern, label)| label_matches(pattern, label))
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = label.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn login(auth: &Auth) -> Result<Option<Login>> {
    if !auth.registry_token.is_empty() {
        return Ok(Some(Login::Token(Secret::new(auth.registry_token.clone()))));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Login::Identity(Secret::new(auth.identity_token.clone()))));
    }
    if !auth.auth.is_empty() {
        let wrong = || {
            invalid(
                "an \"auth\" in the Secret's Docker configuration is not the base64 of a user name, a colon and a password",
            )
        };
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let plain = GeneralPurpose::new(&STANDARD, lenient).decode(auth.auth.trim()).map_err(|_| wrong())?;
        let plain = String::from_utf8(plain).map_err(|_| wrong())?;
        let (user, password) = plain.split_once(':').ok_or_else(wrong)?;
        // Docker pads it with zero bytes.
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(with_password(user, Secret::new(password))));
    }
    let given = !auth.username.is_empty() || !auth.password.is_empty();
    Ok(given.then(|| with_password(&auth.username, Secret::new(auth.password.clone()))))
}

fn with_password(user: &str, password: Secret<String>) -> Login {
    if user == TOKEN_USER {
        return Login::Identity(password);
    }
    Login::Password { user: user.to_owned(), password }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::ModelUri;
    use proptest::prelude::*;
    use serde_json::json;

    fn reference(text: &str) -> Reference {
        Reference::parse(&ModelUri::parse(&format!("oci://{text}")).unwrap(), None).unwrap()
    }

    fn found(secret: &[(&str, &str)], text: &str) -> Result<Logins> {
        Logins::find(&secret.iter().copied().collect(), &reference(text))
    }

    fn user(secret: &[(&str, &str)], text: &str) -> Option<String> {
        match found(secret, text).unwrap().login? {
            Login::Password { user, password } => Some(format!("{user}:{}", password.expose())),
            Login::Identity(token) => Some(format!("identity {}", token.expose())),
            Login::Token(token) => Some(format!("token {}", token.expose())),
        }
    }

    #[test]
    fn the_most_particular_entry_is_used() {
        let auth = |name: &str| json!({"username": name, "password": "p"});
        let config = json!({"auths": {
            "https://index.docker.io/v1/": auth("hub"),
            "docker.io/org": auth("hub-org"),
            "ghcr.io": auth("ghcr"),
            "ghcr.io/org/sub": auth("sub"),
            "https://quay.io/v2/": auth("quay"),
            "*.registry.example": auth("any"),
            "one.registry.example": auth("one"),
            "reg-*.example:5000": auth("port"),
            "GITLAB.example": auth("case"),
        }});
        let config = config.to_string();
        for key in [".dockerconfigjson", "config.json"] {
            for (text, expected) in [
                ("llama", Some("hub:p")),
                ("org/m", Some("hub-org:p")),
                ("orgs/m", Some("hub:p")),
                ("ghcr.io/org/m", Some("ghcr:p")),
                ("ghcr.io/org/sub", Some("sub:p")),
                ("ghcr.io/org/sub/m", Some("sub:p")),
                ("ghcr.io/org/subway", Some("ghcr:p")),
                ("ghcr.io:443/m", None),
                ("quay.io/m", Some("quay:p")),
                ("two.registry.example/m", Some("any:p")),
                ("one.registry.example/m", Some("one:p")),
                ("a.b.registry.example/m", None),
                ("reg-7.example:5000/m", Some("port:p")),
                ("reg-7.example/m", None),
                ("gitlab.example/m", Some("case:p")),
                ("evil-ghcr.io/m", None),
            ] {
                assert_eq!(user(&[(key, &config)], text).as_deref(), expected, "{text}");
            }
        }
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        let of = |entry: serde_json::Value| json!({"auths": {"h.io": entry}}).to_string();
        for (entry, expected) in [
            (json!({"auth": "dTpwOnE="}), Some("u:p:q")),
            (json!({"auth": "dTpwOnE"}), Some("u:p:q")),
            (json!({"auth": "dTpwOnE=", "username": "x", "password": "y"}), Some("u:p:q")),
            (json!({"username": "u", "password": "p", "email": "e"}), Some("u:p")),
            (json!({"identitytoken": "t"}), Some("identity t")),
            (json!({"username": "<token>", "password": "t"}), Some("identity t")),
            (json!({"registrytoken": "t"}), Some("token t")),
            (json!({}), None),
        ] {
            assert_eq!(user(&[(".dockerconfigjson", &of(entry))], "h.io/m").as_deref(), expected);
        }
        let old = json!({"h.io": {"auth": "dTpw"}}).to_string();
        assert_eq!(user(&[(".dockercfg", &old)], "h.io/m").unwrap(), "u:p");
        assert_eq!(user(&[("username", "u"), ("password", "p\n")], "h.io/m").unwrap(), "u:p");
        let elsewhere = json!({"auths": {"other.io": {"auth": "dTpw"}}}).to_string();
        let both = [(".dockerconfigjson", elsewhere.as_str()), ("username", "plain"), ("password", "p")];
        assert_eq!(user(&both, "h.io/m").unwrap(), "plain:p");
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_is_shown() {
        let absence = |config: serde_json::Value| {
            found(&[(".dockerconfigjson", &config.to_string())], "h.io/m").unwrap().absence.unwrap()
        };
        assert!(absence(json!({"auths": {}})).contains("no entry"));
        assert!(absence(json!({"auths": {}, "credsStore": "desktop"})).contains("credential helper"));
        assert!(absence(json!({"credHelpers": {"h.io": "ecr-login"}})).contains("credential helper"));
        assert!(absence(json!({"credHelpers": {"other.io": "ecr-login"}})).contains("no entry"));
        assert!(found(&[("username", "u")], "h.io/m").unwrap().absence.unwrap().contains("only one"));
        assert!(found(&[], "h.io/m").unwrap().absence.is_none());
        for config in [
            "CANARY",
            r#"{"auths": {"h.io": {"auth": "CANARY!"}}}"#,
            r#"{"auths": {"h.io": {"auth": "Q0FOQVJZ"}}}"#,
            r#"{"auths": "CANARY"}"#,
        ] {
            let error = found(&[(".dockerconfigjson", config)], "h.io/m").unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && !error.report().contains("CANARY"), "{error:?}");
        }
        let shown = format!("{:?}", found(&[("username", "u"), ("password", "CANARY")], "h.io/m").unwrap());
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_entry_makes_it_panic(key in "[a-z.*:/\\[\\]0-9é]{0,30}", pattern in "[a*]{0,6}", label in "a{0,6}") {
            let _ = covers(&key, &reference("h.io/a/b"));
            let expected = globset::GlobBuilder::new(&pattern).build().unwrap().compile_matcher().is_match(&label);
            prop_assert_eq!(label_matches(&pattern, &label), expected);
        }
    }
}
