//! What the hub's refusals mean, and what to tell the user about each.
//!
//! The hub says why in the header `X-Error-Code`. To who has no token it answers 401 for a repository that is not there
//! as well as for a private one, so that nobody learns which; to who has one, 404.

use reqwest::StatusCode;

use super::HuggingFace;
use crate::error::{Error, ErrorKind};
use crate::manifest::Entry;
use crate::net::{Arrival, Root};

impl HuggingFace {
    /// Turns an answer without content into an error.
    pub(super) fn failure(&self, arrival: &Arrival) -> Error {
        if !self.hub.owns(&arrival.url) {
            return self.hub.store_failure(arrival);
        }
        let headers = arrival.answer.headers();
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.refusal(arrival.answer.status(), header("x-error-code"), header("x-error-message"))
    }

    /// As [`Self::failure`], for a file that was listed a moment ago.
    pub(super) fn read_failure(&self, arrival: &Arrival, entry: &Entry) -> Error {
        let code = arrival.answer.headers().get("x-error-code");
        match code.is_some_and(|code| code == "EntryNotFound") {
            true => self.hub.changed(&entry.locator),
            false => self.failure(arrival),
        }
    }

    /// The error for a path at which the repository has nothing, or a file where only a directory can be meant.
    pub(super) fn nothing_at(&self, path: &str) -> Error {
        let sentence = match self.repository.directory {
            true => format!("it has no directory \"{path}\" at revision {}; check the URI", self.revision()),
            false => format!("it has nothing at \"{path}\" at revision {}; check the URI", self.revision()),
        };
        self.hub.error(ErrorKind::NotFound, sentence)
    }

    fn refusal(&self, status: StatusCode, code: &str, message: &str) -> Error {
        let (place, name, anonymous) = (self.hub.place(), self.name(), self.hub.anonymous());
        let page = match self.kind {
            super::Kind::Model => format!("{place}/{name}"),
            super::Kind::Dataset => format!("{place}/datasets/{name}"),
        };
        let (kind, sentence) = match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") if anonymous => (
                ErrorKind::Unauthenticated,
                format!(
                    "it is gated; accept its terms at {page}, and give a Secret with the account's token as HF_TOKEN"
                ),
            ),
            (401 | 403, "GatedRepo") => (
                ErrorKind::PermissionDenied,
                format!(
                    "it is gated, and the token's account may not read it; accept its terms at {page}, and let a \
                     fine-grained token read gated repositories"
                ),
            ),
            (401, _) if anonymous => (
                ErrorKind::Unauthenticated,
                format!(
                    "{place} has no such repository, or it is private; check the URI, or give a Secret with HF_TOKEN"
                ),
            ),
            (401, _) => (
                ErrorKind::Unauthenticated,
                format!("{place} does not accept the token in HF_TOKEN; it may have expired or been revoked"),
            ),
            (_, "RevisionNotFound") => (
                ErrorKind::NotFound,
                format!("it has no revision \"{}\"; check the branch, tag or commit", self.revision()),
            ),
            (_, "EntryNotFound") => return self.nothing_at(&self.repository.path),
            (_, "RepoNotFound") => (
                ErrorKind::NotFound,
                format!("{place} has no such repository, or the token's account may not see it; check the URI"),
            ),
            (403, _) if message.contains("disabled") => {
                (ErrorKind::PermissionDenied, format!("{place} has disabled this repository"))
            }
            (403, _) if anonymous => {
                (ErrorKind::Unauthenticated, format!("{place} refuses anonymous access; give a Secret with HF_TOKEN"))
            }
            (403, _) => (
                ErrorKind::PermissionDenied,
                format!("{place} knows the token and refuses; it needs the right to read this repository's contents"),
            ),
            (404 | 410, _) => (ErrorKind::NotFound, format!("not found at {place}; check the URI and the endpoint")),
            (429, _) => (
                ErrorKind::Unavailable,
                format!("{place} has had too many requests; with a token as HF_TOKEN it takes more"),
            ),
            (408, _) => (ErrorKind::Unavailable, format!("{place} has a problem; it is asked again")),
            (400..500, _) => (ErrorKind::InvalidArgument, format!("{place} does not accept the request")),
            _ => (ErrorKind::Unavailable, format!("{place} has a problem; it is asked again")),
        };
        // Codes are words of the hub's own. What else an answer has may repeat what was sent.
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let answer = Root(format!("{place} answered {status} {code}").trim_end().to_owned());
        Error::with_source(kind, format!("{}: {sentence}", self.hub.uri), answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::source::{Context, Options};
    use crate::uri::ModelUri;

    fn refusal(token: Option<&str>, status: u16, code: &str, message: &str) -> Error {
        let uri = ModelUri::parse("hf://o/n@v1").unwrap();
        let credentials = token.map(|token| ("HF_TOKEN", token)).into_iter().collect();
        let context = Context::new(Policy::default()).unwrap();
        let source = HuggingFace::open(&uri, &Options::new(), &credentials, &context).unwrap();
        source.refusal(StatusCode::from_u16(status).unwrap(), code, message)
    }

    #[test]
    fn every_refusal_has_its_kind_and_says_what_to_do() {
        use ErrorKind::{InvalidArgument, NotFound, PermissionDenied, Unauthenticated, Unavailable};
        let token = Some("hf_CANARY");
        for (token, status, code, message, kind, hint) in [
            (None, 401, "GatedRepo", "", Unauthenticated, "accept its terms at https://huggingface.co/o/n"),
            (token, 403, "GatedRepo", "", PermissionDenied, "accept its terms at https://huggingface.co/o/n"),
            (None, 401, "RepoNotFound", "", Unauthenticated, "HF_TOKEN"),
            (token, 401, "", "Invalid credentials in Authorization header", Unauthenticated, "expired"),
            (token, 404, "RepoNotFound", "", NotFound, "may not see it"),
            (token, 404, "RevisionNotFound", "", NotFound, "no revision \"v1\""),
            (token, 404, "EntryNotFound", "", NotFound, "check the URI"),
            (token, 403, "", "Access to this resource is disabled.", PermissionDenied, "disabled"),
            (token, 403, "", "", PermissionDenied, "right to read"),
            (None, 403, "", "", Unauthenticated, "HF_TOKEN"),
            (None, 404, "", "", NotFound, "endpoint"),
            (token, 429, "", "", Unavailable, "too many requests"),
            (token, 400, "", "", InvalidArgument, "does not accept"),
            (token, 503, "", "", Unavailable, "asked again"),
            (token, 304, "", "", Unavailable, "asked again"),
        ] {
            let error = refusal(token, status, code, message);
            assert_eq!(error.kind(), kind, "{status} {code}");
            let report = error.report();
            assert!(report.contains(hint) && report.contains("hf://o/n@v1"), "{report}");
            assert!(!report.contains("CANARY"), "{report}");
        }
    }

    #[test]
    fn nothing_that_a_header_has_is_shown_but_letters_of_its_code() {
        let error = refusal(None, 500, "Oops\u{1b}[2J <script>", "CANARY").report();
        assert!(error.contains("500 Internal Server Error Oops2Jscript") && !error.contains("CANARY"), "{error}");
    }
}
