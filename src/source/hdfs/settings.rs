//! Which namenodes, which path, and who asks: read from the URI, the attributes, and a Secret with KServe's keys.

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::AUTHORIZATION;
use url::Url;

use super::refusal::KERBEROS;
use super::{NAMENODE, ROOT_PATH};
use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{CaCertificates, HttpClient, authorization};
use crate::source::Options;
use crate::uri::{ModelUri, shown_text};

/// Ports of a namenode's web interface since Hadoop 3.
const HTTP_PORT: u16 = 9870;
const HTTPS_PORT: u16 = 9871;
const API: &str = "/webhdfs/v1";

/// Everything of a path but what RFC 3986 leaves unreserved; Hadoop decodes it once.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_PATH: AsciiSet = ENCODED.remove(b'/');

/// As the attributes.
pub(super) const NAMENODE_KEYS: &[&str] = &["HDFS_NAMENODE"];
pub(super) const ROOT_PATH_KEYS: &[&str] = &["HDFS_ROOTPATH"];

/// The parameter that holds a delegation token.
const TOKEN: &str = "delegation";

#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// URLs up to `/webhdfs/v1`.
    namenodes: Vec<Url>,
    /// Absolute, without a slash at its end; empty for the root.
    pub(super) path: String,
    pub(super) directory: bool,
    /// The name space that paths belong to.
    pub(super) store: String,
    /// Parameters of each question that say who asks.
    identity: Secret<Vec<(&'static str, String)>>,
    /// Sent to the namenodes' own origins alone.
    headers: Secret<HeaderMap>,
    tls: Tls,
}

#[derive(Clone, Debug, Default)]
struct Tls {
    ca: Option<String>,
    /// Certificate and key, as PEM.
    identity: Option<Secret<String>>,
}

impl Settings {
    pub(super) fn read(uri: &ModelUri, options: &Options, credentials: &Credentials) -> Result<Self> {
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, format!("{uri}: {text}"));
        let secret = |names: &[&str]| credentials.get(names).map(|value| value.expose().clone());
        let option = |name: &str, names: &[&str]| {
            options.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).or(secret(names))
        };
        let tls = Tls::read(credentials).map_err(invalid)?;
        let default = if uri.scheme().as_str() == "swebhdfs" || tls.is_given() { "https" } else { "http" };
        let (namenodes, path) = match option(NAMENODE.name, NAMENODE_KEYS) {
            Some(text) => {
                let namenodes = parse_namenodes(&text, default).map_err(invalid)?;
                let path = path_beside(uri, &namenodes).map_err(invalid)?;
                (namenodes, path)
            }
            None if uri.authority().is_empty() => {
                return Err(invalid(
                    "no namenode is named: write hdfs://namenode:9870/path, or set the attribute namenode".to_owned(),
                ));
            }
            None => (parse_namenodes(uri.authority(), default).map_err(invalid)?, uri.path().to_owned()),
        };
        let root = option(ROOT_PATH.name, ROOT_PATH_KEYS).unwrap_or_default();
        let directory = path.ends_with('/') || path.is_empty();
        let path = absolute(&root, &path).map_err(invalid)?;

        let identity = identity(credentials).map_err(invalid)?;
        let headers = headers(credentials).map_err(invalid)?;
        let mut names: Vec<&str> = namenodes.iter().map(Url::as_str).collect();
        names.sort_unstable();
        let store = format!("hdfs|{}{}", names.join(","), CaCertificates::mark(tls.ca.as_deref()));
        Ok(Self {
            namenodes,
            path,
            directory,
            store,
            identity: Secret::new(identity),
            headers: Secret::new(headers),
            tls,
        })
    }

    /// The shared client, or one of its own if the Secret has TLS settings.
    pub(super) fn client(&self, shared: &HttpClient) -> Result<HttpClient> {
        if !self.tls.is_given() {
            return Ok(shared.clone());
        }
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, format!("the Secret's key {text}"));
        let ca = match &self.tls.ca {
            Some(pem) => {
                CaCertificates::from_pem(pem.as_bytes()).map_err(|problem| invalid(format!("TLS_CA {problem}")))?
            }
            None => CaCertificates::default(),
        };
        let identity =
            match &self.tls.identity {
                // The error's text is left out: nobody promises that it has nothing of the key.
                Some(pem) => Some(reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(|_| {
                    invalid("TLS_CERT or TLS_KEY is not in the PEM format, without a password".to_owned())
                })?),
                None => None,
            };
        shared.with_tls(ca, identity)
    }

    pub(super) fn namenodes(&self) -> &[Url] {
        &self.namenodes
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.headers.expose()
    }

    /// Whether nothing says who asks. HDFS then takes the asker for `dr.who`.
    pub(super) fn anonymous(&self) -> bool {
        self.identity.expose().is_empty() && self.headers.expose().is_empty() && self.tls.identity.is_none()
    }

    /// The URL of a question about `path`, secrets included.
    pub(super) fn url(&self, namenode: &Url, path: &str, operation: &str, parameters: &[(&str, &str)]) -> Url {
        let mut url = namenode.clone();
        let path = if path.is_empty() { "/" } else { path };
        url.set_path(&format!("{}{}", namenode.path(), utf8_percent_encode(path, &ENCODED_PATH)));
        let mut query = format!("op={operation}");
        let identity = self.identity.expose().iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in parameters.iter().copied().chain(identity) {
            query.push_str(&format!("&{name}={}", utf8_percent_encode(value, &ENCODED)));
        }
        url.set_query(Some(&query));
        url
    }

    /// A server's words without what was told to it in confidence. Users' names are no secret.
    pub(super) fn hide(&self, mut text: String) -> String {
        let token = self.identity.expose().iter().filter(|(name, _)| *name == TOKEN).map(|(_, value)| value.as_str());
        let headers = self.headers.expose().values().filter_map(|value| value.to_str().ok());
        for secret in token.chain(headers).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "[redacted]");
        }
        text
    }
}

impl Tls {
    fn read(credentials: &Credentials) -> Result<Self, String> {
        let get = |name| credentials.get(&[name]).map(|value| value.expose().clone());
        if get("TLS_SKIP_VERIFY").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err("the Secret's TLS_SKIP_VERIFY would accept anybody's server, which is not done here: put the \
                        certificate of the authority that signed the namenode's into TLS_CA"
                .to_owned());
        }
        let identity = match (get("TLS_CERT"), get("TLS_KEY")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Secret::new(format!("{certificate}\n{key}\n"))),
            (certificate, _) => {
                let missing = if certificate.is_some() { "TLS_KEY" } else { "TLS_CERT" };
                return Err(format!("the Secret has only half of a client certificate: add {missing}"));
            }
        };
        Ok(Self { ca: get("TLS_CA"), identity })
    }

    fn is_given(&self) -> bool {
        self.ca.is_some() || self.identity.is_some()
    }
}

/// `host`, `host:port` or URLs, with commas or semicolons between them.
fn parse_namenodes(text: &str, default: &str) -> Result<Vec<Url>, String> {
    let shown = |text: &str| shown_text(text);
    let mut namenodes = Vec::new();
    for one in text.split([',', ';']).map(str::trim).filter(|one| !one.is_empty()) {
        let invalid = |problem| format!("the namenode {:?} {problem}", shown(one));
        let text = if one.contains("://") { one.to_owned() } else { format!("{default}://{one}") };
        let mut url = Url::parse(&text).map_err(|_| invalid("is not a host, host:port or URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("is not at http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("has a user, a query or a fragment; credentials belong into the Secret"));
        }
        if !one.contains("://") && url.port().is_none() && !one.ends_with(":80") && !one.ends_with(":443") {
            let port = if default == "https" { HTTPS_PORT } else { HTTP_PORT };
            url.set_port(Some(port)).map_err(|()| invalid("has no host"))?;
        }
        let base = url.path().trim_end_matches('/');
        let path = if base.ends_with(API) { base.to_owned() } else { format!("{base}{API}") };
        url.set_path(&path);
        namenodes.push(url);
    }
    if namenodes.is_empty() { Err("no namenode is named".to_owned()) } else { Ok(namenodes) }
}

/// The path of a URI beside namenodes that are named elsewhere: as in KServe, everything after the scheme, unless it
/// begins with one of their hosts.
fn path_beside(uri: &ModelUri, namenodes: &[Url]) -> Result<String, String> {
    let authority = uri.authority();
    let names = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        authority == host || authority == format!("{host}:{port}")
    };
    if namenodes.iter().any(names) {
        Ok(uri.path().to_owned())
    } else if authority.contains(':') {
        Err(format!(
            "it names the host {authority:?}, and the attribute namenode or the Secret's HDFS_NAMENODE another one; leave \
             one of the two out"
        ))
    } else {
        Ok(format!("/{authority}{}", uri.path()))
    }
}

/// `path` below `root`, absolute and without a slash at its end.
fn absolute(root: &str, path: &str) -> Result<String, String> {
    let mut whole = String::new();
    for part in [root.trim_matches('/'), path.trim_matches('/')] {
        if part.is_empty() {
            continue;
        }
        if part.split('/').any(|component| matches!(component, "" | "." | "..")) {
            return Err("a path with an empty, \".\" or \"..\" component can't be a model's".to_owned());
        }
        whole.push('/');
        whole.push_str(part);
    }
    Ok(whole)
}

/// The parameters that say who asks: a token says it all, else a name, and whom it stands in for.
fn identity(credentials: &Credentials) -> Result<Vec<(&'static str, String)>, String> {
    let get = |names: &[&str]| credentials.get(names).map(|value| value.expose().clone());
    if let Some(token) = get(&["HDFS_DELEGATION_TOKEN", "delegationToken"]) {
        return Ok(vec![(TOKEN, token)]);
    }
    if get(&["KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB"]).is_some() {
        return Err(format!("the Secret has KERBEROS_PRINCIPAL or KERBEROS_KEYTAB; {KERBEROS}"));
    }
    let user = get(&["HADOOP_USER_NAME"]).map(|user| ("user.name", user));
    let proxied = get(&["USER_PROXY"]).map(|user| ("doas", user));
    Ok(user.into_iter().chain(proxied).collect())
}

fn headers(credentials: &Credentials) -> Result<HeaderMap, String> {
    let mut headers = match credentials.get(&["HEADERS"]) {
        Some(json) => authorization::headers_of_json(json.expose())
            .map_err(|problem| format!("the Secret's HEADERS {problem}"))?,
        None => HeaderMap::new(),
    };
    let user = credentials.get(&["username"]);
    let password = credentials.get(&["password"]);
    if let Some(user) = user {
        let password = password.map(|password| password.expose().clone()).unwrap_or_default();
        let value = authorization::basic(user.expose(), &password).ok_or("the Secret's username can't be sent")?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(uri: &str, options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<Settings> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read(&ModelUri::parse(uri)?, &options, &secrets.iter().copied().collect())
    }

    fn asks(uri: &str, options: &[(&str, &str)], secrets: &[(&str, &str)]) -> String {
        let settings = read(uri, options, secrets).unwrap();
        settings.url(&settings.namenodes[0], &settings.path, "X", &[]).into()
    }

    #[test]
    fn the_namenode_is_the_uris_or_named_beside_it() {
        let kserve = &[("HDFS_NAMENODE", "http://nn:50070")][..];
        for (uri, options, secrets, url) in [
            ("hdfs://nn/m", &[][..], &[][..], "http://nn:9870/webhdfs/v1/m?op=X"),
            ("webhdfs://nn:80/m/", &[], &[], "http://nn/webhdfs/v1/m?op=X"),
            ("swebhdfs://nn/m", &[], &[], "https://nn:9871/webhdfs/v1/m?op=X"),
            ("hdfs://nn/m", &[], &[("TLS_CA", "pem")], "https://nn:9871/webhdfs/v1/m?op=X"),
            ("hdfs://nn", &[], &[], "http://nn:9870/webhdfs/v1/?op=X"),
            ("hdfs://user/me/m", &[], kserve, "http://nn:50070/webhdfs/v1/user/me/m?op=X"),
            ("hdfs:///user/me/m", &[], kserve, "http://nn:50070/webhdfs/v1/user/me/m?op=X"),
            ("hdfs://nn/m", &[], kserve, "http://nn:50070/webhdfs/v1/m?op=X"),
            ("hdfs://nn:50070/m", &[], kserve, "http://nn:50070/webhdfs/v1/m?op=X"),
            ("hdfs://me/m", &[("rootPath", "/user/")], kserve, "http://nn:50070/webhdfs/v1/user/me/m?op=X"),
            ("hdfs://me/m", &[("namenode", "https://knox/gw/x/")], kserve, "https://knox/gw/x/webhdfs/v1/me/m?op=X"),
            ("hdfs://a b/ü+%?", &[("namenode", "h")], &[], "http://h:9870/webhdfs/v1/a%20b/%C3%BC%2B%25%3F?op=X"),
        ] {
            assert_eq!(asks(uri, options, secrets), url, "{uri}");
        }
    }

    #[test]
    fn who_asks_is_said_once() {
        for (secrets, identity) in [
            (&[("HADOOP_USER_NAME", "a&b")][..], "&user.name=a%26b"),
            (&[("USER_PROXY", "bob"), ("HADOOP_USER_NAME", "alice")], "&user.name=alice&doas=bob"),
            (&[("HDFS_DELEGATION_TOKEN", "T0k"), ("HADOOP_USER_NAME", "alice")], "&delegation=T0k"),
            (&[("HDFS_DELEGATION_TOKEN", "T0k"), ("KERBEROS_PRINCIPAL", "alice")], "&delegation=T0k"),
        ] {
            assert_eq!(asks("hdfs://nn/m", &[], secrets), format!("http://nn:9870/webhdfs/v1/m?op=X{identity}"));
        }
        let settings = read("hdfs://nn/m", &[], &[("HDFS_DELEGATION_TOKEN", "T0k"), ("HEADERS", r#"{"a":"h3der"}"#)]);
        let settings = settings.unwrap();
        assert!(!format!("{settings:?}").contains("T0k") && !format!("{settings:?}").contains("h3der"));
        assert_eq!(settings.hide("T0k and h3der".into()), "[redacted] and [redacted]");
    }

    #[test]
    fn wrong_settings_are_named() {
        for (uri, options, secrets, hint) in [
            ("hdfs:///m", &[][..], &[][..], "attribute namenode"),
            ("hdfs://nn/a//b", &[], &[], "component"),
            ("hdfs://nn/../b", &[], &[], "component"),
            ("hdfs://nn:1/m", &[("namenode", "other:1")], &[], "leave one of the two out"),
            ("hdfs://nn/m", &[("namenode", "ftp://nn")], &[], "http:// or https://"),
            ("hdfs://nn/m", &[("namenode", "https://u:CANARY@nn")], &[], "Secret"),
            ("hdfs://nn/m", &[("namenode", ",")], &[], "no namenode"),
            ("hdfs://u:CANARY@nn/m", &[], &[], "Secret"),
            ("hdfs://nn/m", &[], &[("TLS_SKIP_VERIFY", "True")], "TLS_CA"),
            ("hdfs://nn/m", &[], &[("TLS_CERT", "CANARY")], "TLS_KEY"),
            ("hdfs://nn/m", &[], &[("KERBEROS_PRINCIPAL", "CANARY")], "hdfs fetchdt"),
            ("hdfs://nn/m", &[], &[("HEADERS", "CANARY")], "JSON object"),
            ("hdfs://nn/m", &[], &[("HEADERS", r#"{"Host":"CANARY"}"#)], "leave it out"),
            ("hdfs://nn/m", &[], &[("HEADERS", r#"{"X":"CANARY\n"}"#)], "value that can't be sent"),
        ] {
            let error = read(uri, options, secrets).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.report().contains(hint) && !error.report().contains("CANARY"), "{uri}: {}", error.report());
        }
        let settings = read("hdfs://nn/m", &[], &[("TLS_CA", "CANARY")]).unwrap();
        let shared = HttpClient::new(&crate::Policy::default(), &CaCertificates::default()).unwrap();
        assert!(settings.client(&shared).unwrap_err().report().contains("TLS_CA"));
    }

    #[test]
    fn the_order_of_namenodes_is_no_part_of_the_identity_and_an_own_authority_is() {
        let store =
            |namenode, secrets: &[(&str, &str)]| read("hdfs://m", &[("namenode", namenode)], secrets).unwrap().store;
        assert_eq!(store("a:1,b:2", &[]), store("b:2; a:1", &[]));
        assert_ne!(store("https://a", &[]), store("https://a", &[("TLS_CA", "x")]));
        assert_ne!(store("https://a", &[("TLS_CA", "y")]), store("https://a", &[("TLS_CA", "x")]));
    }

    proptest! {
        #[test]
        fn any_text_is_settings_or_an_error(uri in "hdfs://.{0,40}", namenode in ".{0,30}", root in ".{0,20}") {
            if let Ok(settings) = read(&uri, &[("namenode", &namenode), ("rootPath", &root)], &[]) {
                prop_assert!(settings.path.is_empty() || settings.path.starts_with('/'));
                for namenode in settings.namenodes() {
                    let url = settings.url(namenode, &settings.path, "X", &[]);
                    prop_assert_eq!(url.origin(), namenode.origin());
                    prop_assert_eq!(url.query(), Some("op=X"));
                    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
                    prop_assert!(path.ends_with(&settings.path));
                }
            }
        }
    }
}
