//! Model URIs: `scheme://authority/path`, split but not interpreted.
//!
//! What the parts mean (bucket and key, owner and repository, a revision after `@`) is each source's own business.
//! Object keys are taken literally: `s3://bucket/a b#1%20+` names the key `a b#1%20+`, as the AWS command line does.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Longest accepted URI, in bytes. Kubernetes keeps volume attributes in maps of at most 4 KiB in all.
pub const MAX_URI_LEN: usize = 2048;

/// A URI's scheme, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scheme(Box<str>);

impl Scheme {
    /// The scheme's text, for instance `s3`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scheme {
    type Err = Error;

    /// Accepts what RFC 3986 section 3.1 allows: a letter, then letters, digits, `+`, `-` and `.`.
    fn from_str(text: &str) -> Result<Self> {
        let valid = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !valid {
            return Err(invalid("a model URI begins with a scheme such as s3:// or https://"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One model's URI.
///
/// `Display` and `Debug` drop the user part (where it is no container's name, as in Azure's) and everything from the first
/// `?` on, where signatures and tokens live, so that a URI can be shown in errors, logs and events.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ModelUri {
    text: Box<str>,
    scheme: Scheme,
    /// Byte ranges of `text`: where the authority begins, and where it ends.
    authority: (usize, usize),
}

impl ModelUri {
    /// Parses a URI.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with a sentence that says what to change.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(invalid("the model URI is empty: give one such as s3://bucket/model"));
        }
        if text.len() > MAX_URI_LEN {
            return Err(invalid(format!(
                "the model URI is {} bytes long, and at most {MAX_URI_LEN} are allowed",
                text.len()
            )));
        }
        if text.trim() != text {
            return Err(invalid("the model URI begins or ends with white space: remove it"));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(invalid(format!("the model URI contains the control character {:?}: remove it", c)));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid(format!(
                "\"{}\" is not a model URI: it has no scheme such as s3:// or https://",
                shown_text(text)
            )));
        };
        let scheme: Scheme =
            scheme.parse().map_err(|error: Error| error.within(format!("\"{}\"", shown_text(text))))?;
        let start = text.len() - rest.len();
        let end = start + rest.find(['/', '?']).unwrap_or(rest.len());
        let uri = Self { text: text.into(), scheme, authority: (start, end) };
        // These have a form without a host.
        let may_lack_host = matches!(uri.scheme.as_str(), "file" | "hdfs" | "webhdfs" | "swebhdfs");
        if uri.authority().is_empty() && !may_lack_host {
            return Err(invalid(format!("{uri} names no bucket or host after \"{}://\"", uri.scheme)));
        }
        Ok(uri)
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// What stands between `://` and the first `/`: a bucket, or a host. Empty for `file:///path`.
    pub fn authority(&self) -> &str {
        &self.text[self.authority.0..self.authority.1]
    }

    /// What follows the authority, with its leading `/`, query included, exactly as written. May be empty.
    pub fn path(&self) -> &str {
        &self.text[self.authority.1..]
    }

    /// The URI as written, secrets included: for requests, never for people.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl FromStr for ModelUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown_text(&self.text))
    }
}

impl fmt::Debug for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelUri({self})")
    }
}

/// `text` without user information and query, whether it parses or not, and of bounded length.
pub(crate) fn shown_text(text: &str) -> String {
    let parted = text.split_once("://").filter(|(scheme, _)| scheme.parse::<Scheme>().is_ok());
    let (scheme, rest) = parted.unwrap_or(("", text));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let of_web = ["", "http", "https", "git+http", "git+https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    let rest = match rest.rfind('@') {
        // Before the `?` is a password's end, or it begins a query that has the `@`: what follows may be secret as well.
        Some(at) if of_web && may_have_password(authority) && rest[..at].contains('?') => "…",
        Some(at) if of_web && may_have_password(authority) => &rest[at + 1..],
        _ => rest,
    };
    let rest = rest.split('?').next().unwrap_or_default();
    let end = rest.find('/').unwrap_or(rest.len());
    // In `abfs://container@account/path` the container stands where others have a user; a password it never has.
    let names_container = ["abfs", "abfss", "az", "azure"].iter().any(|azure| scheme.eq_ignore_ascii_case(azure));
    let user = rest[..end].rfind('@').map_or(0, |at| at + 1);
    // `oci://name:tag@sha256:…` is an image without a registry's name.
    let names_image = scheme.eq_ignore_ascii_case("oci") && rest[user..end].starts_with("sha256:");
    let host = if names_container && !rest[..user].contains(':') || names_image { 0 } else { user };
    let separator = if scheme.is_empty() { "" } else { "://" };
    let mut shown = format!("{scheme}{separator}{}", &rest[host..]);
    if shown.len() > 256 {
        let cut = (0..=256).rev().find(|&i| shown.is_char_boundary(i)).unwrap_or(0);
        shown.truncate(cut);
        shown.push('…');
    }
    shown.retain(|c| !c.is_control());
    shown
}

/// Whether an `@` behind this authority may belong to it: a `/` or `?` in a password that should have been encoded ends
/// the authority early, and it looks like a host with a strange port.
fn may_have_password(authority: &str) -> bool {
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let v6 = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let v6 = v6.filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    let port = v6.map_or(host, |(_, port)| port).split_once(':').map(|(_, port)| port);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    user.contains(':') || port.is_some_and(|port| !is_port(port))
}

fn invalid(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_taken_literally() {
        let uri = ModelUri::parse("s3://bucket/a b/#1%20+é").unwrap();
        assert_eq!((uri.scheme().as_str(), uri.authority(), uri.path()), ("s3", "bucket", "/a b/#1%20+é"));
        let uri = ModelUri::parse("S3://bucket").unwrap();
        assert_eq!((uri.scheme().as_str(), uri.authority(), uri.path()), ("s3", "bucket", ""));
        let uri = ModelUri::parse("file:///models/m").unwrap();
        assert_eq!((uri.authority(), uri.path()), ("", "/models/m"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let uri = ModelUri::parse("https://user:hunter2@host/m.bin?X-Amz-Signature=s3cr3t").unwrap();
        for shown in [uri.to_string(), format!("{uri:?}")] {
            assert!(shown.contains("https://host/m.bin"), "{shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("s3cr3t") && !shown.contains("user"), "{shown}");
        }
        let error = ModelUri::parse("user:hunter2@host?s3cr3t").unwrap_err().report();
        assert!(!error.contains("hunter2") && !error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn a_password_is_not_shown_whatever_it_has_in_it() {
        for (text, shown) in [
            ("https://user:CANARY/x@host/m.bin", "https://host/m.bin"),
            ("https://user:CANARY?x@host/m", "https://…"),
            ("HTTP://user:CANARY/x@host:80/m?sig=CANARY", "HTTP://host:80/m"),
            ("https://user:CANARY/x@host/m?sig=@CANARY", "https://…"),
            ("https://user:CANARY@x/y@host/m", "https://host/m"),
            ("https://user:/CANARY@host/m", "https://host/m"),
            ("https://user:123456/CANARY@host/m", "https://host/m"),
            ("https://[user:CANARY]/x@host/m", "https://host/m"),
            ("git+https://user:CANARY/x@host/m@v1", "git+https://v1"),
            // These have none.
            ("https://host/m@v1", "https://host/m@v1"),
            ("git+https://host:8443/org/m@v1", "git+https://host:8443/org/m@v1"),
            ("git+http://[fd12::1]:3000/org/m@v1", "git+http://[fd12::1]:3000/org/m@v1"),
            ("git+https://user@[fd12::1]/org/m@v1", "git+https://[fd12::1]/org/m@v1"),
            ("https://host:8443/m?sig=@s3cr3t", "https://host:8443/m"),
            ("hf://owner/name:v1@x", "hf://owner/name:v1@x"),
            ("modelscope://owner/name@v1", "modelscope://owner/name@v1"),
            ("oci://registry:5000/m:1.0@sha256:00", "oci://registry:5000/m:1.0@sha256:00"),
        ] {
            assert_eq!(ModelUri::parse(text).unwrap().to_string(), shown);
        }
        for text in ["https:/user:CANARY@host/m", "user:CANARY/x@host", "user:CANARY@host/x://y", "u:CANARY?x://y@z"] {
            let error = ModelUri::parse(text).unwrap_err().report();
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn a_container_before_the_account_is_no_user() {
        let shown = |text: &str| ModelUri::parse(text).unwrap().to_string();
        assert_eq!(shown("abfss://c@acct.dfs.core.windows.net/m?sig=s3cr3t"), "abfss://c@acct.dfs.core.windows.net/m");
        assert_eq!(shown("ABFS://c@acct/m"), "ABFS://c@acct/m");
        assert_eq!(shown("abfs://c:hunter2@acct/m"), "abfs://acct/m");
        assert_eq!(shown("https://c@acct/m"), "https://acct/m");
    }

    #[test]
    fn an_image_before_its_digest_is_no_user() {
        let shown = |text: &str| ModelUri::parse(text).unwrap().to_string();
        assert_eq!(shown("oci://model@sha256:00"), "oci://model@sha256:00");
        assert_eq!(shown("oci://model:1.0@sha256:00"), "oci://model:1.0@sha256:00");
        assert_eq!(shown("oci://user:hunter2@registry/m@sha256:00"), "oci://registry/m@sha256:00");
    }

    #[test]
    fn every_mistake_gets_its_sentence() {
        for (text, hint) in [
            ("", "is empty"),
            ("   ", "is empty"),
            (" s3://b/m", "white space"),
            ("bucket/model", "no scheme"),
            ("s3:/bucket/model", "no scheme"),
            ("s3:///model", "names no bucket or host"),
            ("://x", "begins with a scheme"),
            ("1s://x", "begins with a scheme"),
            ("s3://b/\0", "control character"),
            ("s3://b/a\nb", "control character"),
        ] {
            let error = ModelUri::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(hint), "{text:?}: {error}");
        }
        let long = format!("s3://b/{}", "x".repeat(MAX_URI_LEN));
        assert!(ModelUri::parse(&long).unwrap_err().to_string().contains("at most 2048"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_loses_nothing(text in ".{0,80}") {
            if let Ok(uri) = ModelUri::parse(&text) {
                prop_assert_eq!(uri.expose(), text.as_str());
                let whole = format!("{}://{}{}", &text[..uri.scheme().as_str().len()], uri.authority(), uri.path());
                prop_assert_eq!(whole, text);
            }
        }

        #[test]
        fn the_password_and_the_query_are_never_shown(
            scheme in "(git\\+)?https?", host in "[a-z]{1,9}(:80)?", secret in "[A-Z]{8,12}",
            before in "[/?@:a-z]{0,3}", after in "[/?@:a-z]{0,3}", query in "[/?@:a-z]{0,3}",
        ) {
            let text = format!("{scheme}://u:{before}{secret}{after}@{host}/p?sig={query}{secret}");
            let uri = ModelUri::parse(&text).unwrap();
            prop_assert!(!uri.to_string().contains(&secret), "{}", uri);
        }
    }
}
