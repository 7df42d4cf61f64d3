//! What a registry's refusals mean, and what to tell the user about each.

use reqwest::StatusCode;
use serde::Deserialize;

use super::reference::{Reference, Version};
use crate::error::{Error, ErrorKind};
use crate::uri::ModelUri;

/// Largest answer to a failed request that is looked at for its code.
pub(super) const MAX_REFUSAL: usize = 64 << 10;

/// What the sentences name.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    pub(super) uri: ModelUri,
    pub(super) reference: Reference,
    /// Whether requests go without credentials.
    pub(super) anonymous: bool,
    /// Why they do, if the caller brought some.
    pub(super) absence: Option<&'static str>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) enum Asked<'a> {
    Manifest(&'a Version),
    Blob,
    Token,
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Code>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

/// The code of a refusal (distribution specification, "Error Codes"). Its message is the server's, and is not shown.
pub(super) fn code(body: &[u8]) -> Option<String> {
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    let code = refusal.errors.into_iter().next()?.code;
    let plain = !code.is_empty() && code.len() < 64 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    plain.then_some(code)
}

impl Failures {
    /// The error for an answer that is no success. `host` is who gave it.
    pub(super) fn explain(&self, asked: &Asked<'_>, host: &str, status: StatusCode, code: Option<&str>) -> Error {
        let repository = &self.reference.repository;
        let (kind, sentence) = match (status.as_u16(), code) {
            (429, _) | (_, Some("TOOMANYREQUESTS")) => (
                ErrorKind::Unavailable,
                format!("{host} limits how often it is asked; with credentials it may allow more"),
            ),
            (401 | 403, _) | (_, Some("UNAUTHORIZED" | "DENIED")) => return self.refused(host, status),
            (404, Some("NAME_UNKNOWN")) => {
                (ErrorKind::NotFound, format!("{host} has no repository \"{repository}\"; check the URI"))
            }
            (404, _) => (
                ErrorKind::NotFound,
                match asked {
                    Asked::Manifest(version @ Version::Tag(_)) => {
                        format!("{host} has no tag \"{version}\" in \"{repository}\"; check the URI")
                    }
                    Asked::Manifest(version) => {
                        format!("{host} has no manifest {version} in \"{repository}\"; check the URI")
                    }
                    Asked::Blob => {
                        format!("{host} has the manifest, and no longer all of its layers; push the model again")
                    }
                    Asked::Token => format!("{host} gives no tokens at the place that the registry names"),
                },
            ),
            (408 | 500.., _) => (ErrorKind::Unavailable, format!("{host} has a problem; it is asked again")),
            _ => {
                (ErrorKind::InvalidArgument, format!("{host} does not accept the request; check that it is a registry"))
            }
        };
        let answer = [status.as_str(), code.unwrap_or_default()].join(" ");
        self.error(kind, format!("{sentence} (it answered {})", answer.trim_end()))
    }

    /// The error for a registry, or its token server, that does not let the caller in.
    pub(super) fn refused(&self, host: &str, status: StatusCode) -> Error {
        let repository = &self.reference.repository;
        if self.anonymous {
            let absence = self.absence.unwrap_or("give an image pull secret, or one with username and password");
            let text =
                format!("{host} refuses anonymous access to \"{repository}\", or has no such repository; {absence}");
            return self.error(ErrorKind::Unauthenticated, text);
        }
        if status == StatusCode::FORBIDDEN {
            let text = format!(
                "{host} knows these credentials and refuses; they need the right to pull from \"{repository}\", and the \
                 name must be right"
            );
            return self.error(ErrorKind::PermissionDenied, text);
        }
        let text = format!("{host} does not accept the credentials for \"{repository}\"; check those in the Secret");
        self.error(ErrorKind::Unauthenticated, text)
    }

    pub(super) fn error(&self, kind: ErrorKind, sentence: impl std::fmt::Display) -> Error {
        Error::new(kind, format!("{}: {sentence}", self.uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failures(anonymous: bool) -> Failures {
        let uri = ModelUri::parse("oci://h.io/org/m:v1").unwrap();
        let reference = Reference::parse(&uri, None).unwrap();
        Failures { uri, reference, anonymous, absence: None }
    }

    #[test]
    fn each_refusal_has_its_kind_and_names_the_uri() {
        let tag = Version::Tag("v1".into());
        for (asked, status, code, kind, hint) in [
            (Asked::Manifest(&tag), 404, Some("NAME_UNKNOWN"), ErrorKind::NotFound, "no repository \"org/m\""),
            (Asked::Manifest(&tag), 404, Some("MANIFEST_UNKNOWN"), ErrorKind::NotFound, "no tag \"v1\""),
            (Asked::Manifest(&tag), 404, None, ErrorKind::NotFound, "no tag \"v1\""),
            (Asked::Blob, 404, Some("BLOB_UNKNOWN"), ErrorKind::NotFound, "push the model again"),
            (Asked::Manifest(&tag), 401, Some("UNAUTHORIZED"), ErrorKind::Unauthenticated, "check those in the Secret"),
            (Asked::Token, 401, None, ErrorKind::Unauthenticated, "check those in the Secret"),
            (Asked::Manifest(&tag), 403, Some("DENIED"), ErrorKind::PermissionDenied, "the right to pull"),
            (Asked::Blob, 429, None, ErrorKind::Unavailable, "limits"),
            (Asked::Blob, 503, None, ErrorKind::Unavailable, "asked again"),
            (Asked::Manifest(&tag), 400, None, ErrorKind::InvalidArgument, "400"),
            (Asked::Manifest(&tag), 405, Some("UNSUPPORTED"), ErrorKind::InvalidArgument, "405 UNSUPPORTED"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = failures(false).explain(&asked, "https://h.io", status, code);
            assert_eq!(error.kind(), kind, "{error:?}");
            let text = error.report();
            assert!(text.contains(hint) && text.starts_with("oci://h.io/org/m:v1: https://h.io"), "{text}");
        }
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let error = failures(true).explain(&Asked::Blob, "h", status, None);
            assert!(error.kind() == ErrorKind::Unauthenticated && error.report().contains("pull secret"), "{error:?}");
        }
    }

    #[test]
    fn only_a_plain_code_is_taken_of_an_answer() {
        assert_eq!(code(br#"{"errors":[{"code":"NAME_UNKNOWN","message":"x","detail":{}}]}"#).unwrap(), "NAME_UNKNOWN");
        for body in [&b"<html>"[..], b"{}", br#"{"errors":[]}"#, br#"{"errors":[{"code":"<b>CANARY"}]}"#, b"\xff"] {
            assert_eq!(code(body), None);
        }
    }

    proptest! {
        #[test]
        fn any_body_has_a_plain_code_or_none(word in "[A-Z_a-z<\u{1b} ]{0,70}", junk in prop::collection::vec(any::<u8>(), 0..80)) {
            let body = serde_json::json!({"errors": [{"code": word}]}).to_string();
            for body in [body.as_bytes(), &junk] {
                prop_assert!(code(body).is_none_or(|code| code.len() < 64 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
            }
        }
    }
}
