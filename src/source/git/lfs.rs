//! Git LFS: files that a repository names by their SHA-256, and keeps beside it (git-lfs, docs/spec.md and docs/api).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use crate::manifest::Digest;
use crate::net::authorization;

/// A pointer is smaller than this many bytes.
pub(super) const MAX_POINTER: usize = 1024;

/// What stands in the repository for a file that is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Pointer {
    /// Reads a pointer; any other file is `None`.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        if content.len() >= MAX_POINTER {
            return None;
        }
        let mut lines = std::str::from_utf8(content).ok()?.lines();
        let version = lines.next()?.strip_prefix("version ")?;
        if !matches!(version, "https://git-lfs.github.com/spec/v1" | "https://hawser.github.com/spec/v1") {
            return None;
        }
        let (mut digest, mut size) = (None, None);
        for line in lines {
            match line.split_once(' ')? {
                ("oid", oid) => digest = Some(oid.parse().ok()?),
                ("size", bytes) => size = Some(bytes.parse().ok()?),
                _ => {}
            }
        }
        Some(Self { digest: digest?, size: size? })
    }
}

/// Where an object can be downloaded.
#[derive(Clone, Debug)]
pub(super) struct Download {
    pub(super) url: Url,
    /// For this URL alone.
    pub(super) headers: HeaderMap,
}

/// What the server says about an object.
#[derive(Debug)]
pub(super) enum Answer {
    Download(Download),
    /// An error by its HTTP status.
    Refused(u16),
}

#[derive(Deserialize)]
struct Batch {
    #[serde(default)]
    transfer: Option<String>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Actions {
    #[serde(default)]
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Failure {
    code: u16,
}

/// The question for one object.
pub(super) fn question(pointer: &Pointer) -> String {
    let object = serde_json::json!({"oid": pointer.digest.hex(), "size": pointer.size});
    serde_json::json!({
        "operation": "download", "transfers": ["basic"], "hash_algo": "sha256", "objects": [object],
    })
    .to_string()
}

/// The answer to [`question`].
pub(super) fn answer(json: &[u8], pointer: &Pointer) -> Result<Answer, String> {
    let unexpected = || "its answer is not what Git LFS says".to_owned();
    let batch: Batch = serde_json::from_slice(json).map_err(|_| unexpected())?;
    if batch.transfer.is_some_and(|transfer| transfer != "basic") {
        return Err("it wants another way of transfer than \"basic\"".to_owned());
    }
    let object = batch.objects.into_iter().find(|object| object.oid == pointer.digest.hex()).ok_or_else(unexpected)?;
    if let Some(Failure { code }) = object.error {
        return Ok(Answer::Refused(code));
    }
    let action = object.actions.and_then(|actions| actions.download).ok_or_else(unexpected)?;
    let url = Url::parse(&action.href).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("it names a place that can't be downloaded from")?;
    let mut headers = HeaderMap::new();
    for (name, value) in action.header.unwrap_or_default() {
        let header: Option<HeaderName> = name.parse().ok();
        let (Some(header), Ok(mut value)) = (header, HeaderValue::from_str(&value)) else { return Err(unexpected()) };
        if authorization::is_reserved(&header) {
            return Err(format!("it wants the header {header} to be sent"));
        }
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(Answer::Download(Download { url, headers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    fn text(hex: &str, size: &str) -> String {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{hex}\nsize {size}\n")
    }

    #[test]
    fn pointers_are_told_from_files() {
        let pointer = Pointer::parse(text(HEX, "12345").as_bytes()).unwrap();
        assert_eq!((pointer.digest.hex().as_str(), pointer.size), (HEX, 12345));
        let long = format!("{}x-{}\n", text(HEX, "1"), "y".repeat(MAX_POINTER));
        for other in ["", "hello", &text("4d7a", "1"), &text(HEX, "-1"), &text(&HEX.to_uppercase(), "1"), &long] {
            assert_eq!(Pointer::parse(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn hostile_answers_are_errors() {
        let pointer = Pointer::parse(text(HEX, "5").as_bytes()).unwrap();
        let with = |object: &str| answer(format!(r#"{{"objects":[{object}]}}"#).as_bytes(), &pointer);
        let action = |href: &str, header: &str| {
            with(&format!(
                r#"{{"oid":"{HEX}","size":5,"actions":{{"download":{{"href":"{href}","header":{header}}}}}}}"#
            ))
        };
        let Ok(Answer::Download(download)) = action("https://cdn/x?sig=1", r#"{"Authorization":"CANARY"}"#) else {
            panic!()
        };
        assert!(!format!("{:?}", download.headers).contains("CANARY"));
        assert!(matches!(with(&format!(r#"{{"oid":"{HEX}","error":{{"code":404}}}}"#)), Ok(Answer::Refused(404))));
        assert!(action("file:///etc/passwd", "{}").unwrap_err().contains("can't be downloaded"));
        assert!(action("https://cdn/x", r#"{"Host":"internal"}"#).unwrap_err().contains("host"));
        assert!(action("https://cdn/x", r#"{"A":"b\nC: d"}"#).is_err());
        assert!(with(r#"{"oid":"other","size":5}"#).is_err());
        assert!(answer(br#"{"transfer":"tus","objects":[]}"#, &pointer).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_a_pointer_or_none_and_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), size: u64) {
            let _ = Pointer::parse(&bytes);
            let pointer = Pointer::parse(text(HEX, &size.to_string()).as_bytes()).unwrap();
            prop_assert_eq!(pointer.size, size);
            let _ = answer(&bytes, &pointer);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&question(&pointer)).is_ok());
        }
    }
}
