//! What Azure's URIs name: service, account, container or share, path, and a signature in the query.
//!
//! | form | path |
//! | --- | --- |
//! | `https://ACCOUNT.blob.core.windows.net/CONTAINER/path` | percent-encoded, as in every URL |
//! | `https://ACCOUNT.file.core.windows.net/SHARE/path` | the same |
//! | `abfs(s)://CONTAINER@ACCOUNT.dfs.core.windows.net/path`, `az://…`, `azure://…` | literal |
//! | `az://CONTAINER/path`, `azure://…`, `abfs(s)://…`, the account given beside it | literal |
//!
//! Pure: no I/O.

use percent_encoding::percent_decode_str;

use crate::credentials::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::ModelUri;

/// Domains of Azure's clouds: what follows the service's name in a host.
const CLOUDS: &[&str] = &["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net"];
/// The same for accounts with a DNS zone of their own: `ACCOUNT.z01.blob.storage.azure.net`.
const ZONED: &str = "storage.azure.net";

/// Which protocol the URI's place speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Blobs, under either of their two names, `blob` and `dfs`.
    Blob,
    /// Files.
    File,
}

/// An account's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) service: Service,
    pub(super) account: String,
    /// Where requests go: for `dfs`, the name of the same account's blob service.
    pub(super) name: String,
}

impl Host {
    /// `ACCOUNT[.zNN].SERVICE.CLOUD`; anything else is `None`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (first, rest) = name.split_once('.')?;
        let (zone, rest) = match rest.split_once('.') {
            Some((label, rest)) if is_zone(label) => (format!(".{label}"), rest),
            _ => (String::new(), rest),
        };
        let (service, cloud) = rest.split_once('.')?;
        let known = if zone.is_empty() { CLOUDS.contains(&cloud) } else { cloud == ZONED };
        // The read-only copy of an account in another region signs with the account's own name.
        let account = first.strip_suffix("-secondary").unwrap_or(first);
        if !known || !is_account(account) {
            return None;
        }
        let (service, label) = match service {
            "blob" | "dfs" => (Service::Blob, "blob"),
            "file" => (Service::File, "file"),
            _ => return None,
        };
        Some(Self { service, account: account.to_owned(), name: format!("{first}{zone}.{label}.{cloud}") })
    }
}

fn is_zone(label: &str) -> bool {
    label.strip_prefix('z').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether this can be an account's name. Azure's own have 3 to 24 letters and digits.
pub(super) fn is_account(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// A URI, taken apart.
#[derive(Debug)]
pub(super) struct Location {
    /// `None` when the account is given beside the URI.
    pub(super) host: Option<Host>,
    /// The container, or the share.
    pub(super) container: String,
    /// Decoded, with its leading slash; empty for the whole container.
    pub(super) path: String,
    /// The query, which is a shared access signature.
    pub(super) signature: Option<Secret<String>>,
}

impl Location {
    /// Whether the URI is one of Azure's forms.
    pub(super) fn claims(uri: &ModelUri) -> bool {
        match uri.scheme().as_str() {
            "az" | "azure" | "abfs" | "abfss" => true,
            "https" => Host::parse(host_of(uri.authority())).is_some(),
            _ => false,
        }
    }

    /// Takes a URI apart that [`Self::claims`] has claimed.
    pub(super) fn parse(uri: &ModelUri) -> Result<Self> {
        let invalid = |problem: &str| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let (path, query) = uri.path().split_once('?').map_or((uri.path(), None), |(path, query)| (path, Some(query)));
        let is_url = uri.scheme().as_str() == "https";
        let (host, container, path) = if is_url {
            if uri.authority() != host_of(uri.authority()) {
                return Err(invalid("has a user or a port in it, which Azure's URLs don't have"));
            }
            let path = path.split('#').next().unwrap_or_default();
            let path = percent_decode_str(path).decode_utf8().map_err(|_| invalid("has a path that is not UTF-8"))?;
            let path = path.strip_prefix('/').unwrap_or(&path);
            let (container, path) = path.split_at(path.find('/').unwrap_or(path.len()));
            (Host::parse(uri.authority()), container.to_owned(), path.to_owned())
        } else if let Some((container, host)) = uri.authority().split_once('@') {
            let host = Host::parse(host).filter(|host| host.service == Service::Blob).ok_or_else(|| {
                invalid("names no account of Azure's after the \"@\": write CONTAINER@ACCOUNT.dfs.core.windows.net")
            })?;
            (Some(host), container.to_owned(), path.to_owned())
        } else {
            (None, uri.authority().to_owned(), path.to_owned())
        };
        let named = !container.is_empty()
            && container.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'$'));
        if !named {
            return Err(invalid("names no container: they have only letters, digits and '-'"));
        }
        let signature = query.filter(|query| !query.is_empty()).map(|query| Secret::new(query.to_owned()));
        if signature.as_ref().is_some_and(|signature| signature_pairs(signature).is_none()) {
            let hint = if is_url { "; a '?' in a name is written %3F" } else { "" };
            return Err(invalid(&format!("has a query that is no shared access signature (SAS){hint}")));
        }
        Ok(Self { host, container, path, signature })
    }
}

/// The parameters of a shared access signature, decoded.
pub(super) fn signature_pairs(text: &Secret<String>) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    let text = text.expose().trim_start_matches('?');
    let pairs: Option<Vec<(String, String)>> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((decoded(name)?, decoded(value)?))
        })
        .collect();
    pairs.filter(|pairs| pairs.iter().any(|(name, value)| name == "sig" && !value.is_empty()))
}

fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(uri: &str) -> Result<Location> {
        Location::parse(&ModelUri::parse(uri)?)
    }

    #[test]
    fn every_form_is_read() {
        for (uri, host, container, path) in [
            ("https://acct.blob.core.windows.net/c/m/x", "acct.blob.core.windows.net", "c", "/m/x"),
            ("https://acct.dfs.core.windows.net/c/", "acct.blob.core.windows.net", "c", "/"),
            ("https://acct.blob.core.windows.net/c", "acct.blob.core.windows.net", "c", ""),
            ("https://ACCT.Blob.core.windows.net/c", "acct.blob.core.windows.net", "c", ""),
            ("https://acct.z01.blob.storage.azure.net/c/a%20b%25", "acct.z01.blob.storage.azure.net", "c", "/a b%"),
            ("https://acct.blob.core.chinacloudapi.cn/c/m", "acct.blob.core.chinacloudapi.cn", "c", "/m"),
            ("https://acct.blob.core.usgovcloudapi.net/$web/m", "acct.blob.core.usgovcloudapi.net", "$web", "/m"),
            ("https://acct-secondary.blob.core.windows.net/c/m", "acct-secondary.blob.core.windows.net", "c", "/m"),
            ("https://acct.file.core.windows.net/share/m", "acct.file.core.windows.net", "share", "/m"),
            ("abfss://c@acct.dfs.core.windows.net/a%20b", "acct.blob.core.windows.net", "c", "/a%20b"),
            ("az://c@acct.blob.core.windows.net", "acct.blob.core.windows.net", "c", ""),
            ("az://c/m#1", "", "c", "/m#1"),
            ("abfs://c/m", "", "c", "/m"),
            ("azure://c", "", "c", ""),
        ] {
            let location = parse(uri).unwrap();
            let found = location.host.as_ref().map_or("", |host| host.name.as_str());
            assert_eq!((found, location.container.as_str(), location.path.as_str()), (host, container, path), "{uri}");
            assert!(location.host.is_none_or(|host| host.account == "acct"), "{uri}");
            assert!(Location::claims(&ModelUri::parse(uri).unwrap()), "{uri}");
        }
    }

    #[test]
    fn other_hosts_are_left_to_others() {
        for uri in [
            "https://acct.blob.core.windows.net.evil.example/c/m",
            "https://blob.core.windows.net/c/m",
            "https://acct.queue.core.windows.net/c/m",
            "https://acct.z1.blob.core.windows.net/c/m",
            "https://acct.blob.storage.azure.net/c/m",
            "https://x.y.blob.core.windows.net/c/m",
            "https://example.org/acct.blob.core.windows.net",
            "http://acct.blob.core.windows.net/c/m",
            "s3://acct.blob.core.windows.net/c/m",
        ] {
            assert!(!Location::claims(&ModelUri::parse(uri).unwrap()), "{uri}");
        }
    }

    #[test]
    fn mistakes_are_named_without_the_signature() {
        for (uri, hint) in [
            ("https://acct.blob.core.windows.net", "names no container"),
            ("https://acct.blob.core.windows.net/?sig=CANARY", "names no container"),
            ("https://u:CANARY@acct.blob.core.windows.net/c/m", "user or a port"),
            ("https://acct.blob.core.windows.net:8443/c/m", "user or a port"),
            ("https://acct.blob.core.windows.net/c/m?versionid=CANARY", "no shared access signature"),
            ("https://acct.blob.core.windows.net/c/%ff", "not UTF-8"),
            ("abfss://c@acct.example.org/m", "after the \"@\""),
            ("abfss://c@acct.file.core.windows.net/m", "after the \"@\""),
            ("az://a.b/m", "names no container"),
        ] {
            let report = parse(uri).unwrap_err().report();
            assert!(report.contains(hint) && !report.contains("CANARY"), "{uri}: {report}");
        }
    }

    #[test]
    fn a_signature_keeps_its_signs() {
        let location = parse("https://acct.blob.core.windows.net/c/m?sv=2022&sig=a%2Bb+c%3D").unwrap();
        let pairs = signature_pairs(&location.signature.unwrap()).unwrap();
        assert_eq!(pairs, [("sv".to_owned(), "2022".to_owned()), ("sig".to_owned(), "a+b+c=".to_owned())]);
        assert_eq!(signature_pairs(&Secret::new("?sig=x".to_owned())).unwrap().len(), 1);
        for nonsense in ["", "?", "sig", "sig=", "sv=1"] {
            assert!(signature_pairs(&Secret::new(nonsense.to_owned())).is_none(), "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn any_uri_is_read_or_refused(
            scheme in "https|az|abfss",
            authority in "[a-z@:.$]{1,12}(\\.(blob|file|dfs)\\.core\\.windows\\.net)?",
            path in "[a-z/%?&=#0-9.]{0,20}",
        ) {
            let uri = ModelUri::parse(&format!("{scheme}://{authority}/{path}")).unwrap();
            if let Ok(location) = Location::parse(&uri) {
                prop_assert!(!location.container.is_empty() && !location.container.contains('/'));
                prop_assert!(location.path.is_empty() || location.path.starts_with('/'));
            }
        }
    }
}
