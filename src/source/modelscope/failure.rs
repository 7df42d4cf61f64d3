//! What the hub's refusals mean, and what to tell the user about each.

use reqwest::StatusCode;

use super::answer::parse_code;
use super::{DEFAULT_REVISION, ModelScope};
use crate::error::{Error, ErrorKind};
use crate::net::{Arrival, Root, read_all};

/// Most of a refusal that is read.
const MAX_REFUSAL: usize = 1 << 20;
/// "record not found".
const NO_RECORD: i64 = 10_010_205_001;
/// The token is not valid, or not any more.
const BAD_TOKEN: i64 = 10_010_103_009;

impl ModelScope {
    /// Turns an answer without content into an error.
    pub(super) async fn failure(&self, arrival: Arrival) -> Error {
        if !self.hub.owns(&arrival.url) {
            return self.hub.store_failure(&arrival);
        }
        let status = arrival.answer.status();
        let body = read_all(arrival.answer, MAX_REFUSAL).await.unwrap_or_default();
        self.refusal(status, parse_code(&body))
    }

    /// The error for a path or revision at which the repository has nothing.
    pub(super) fn nothing_at(&self, path: &str) -> Error {
        let (place, revision) = (self.hub.place(), self.revision());
        let default = match revision {
            DEFAULT_REVISION => String::new(),
            _ => format!(" (the branch that ModelScope makes is \"{DEFAULT_REVISION}\")"),
        };
        let what = if path.is_empty() { "nothing".to_owned() } else { format!("nothing at \"{path}\"") };
        let sentence =
            format!("{place} has {what} at revision \"{revision}\"; check the URI and the revision{default}");
        self.hub.error(ErrorKind::NotFound, sentence)
    }

    /// The error for a directory of which the hub does not list everything.
    pub(super) fn too_wide(&self, directory: &str) -> Error {
        let sentence = format!(
            "the directory \"{directory}\" has more entries than the {} that ModelScope lists; name a path further down",
            super::MAX_LISTED
        );
        self.hub.error(ErrorKind::FailedPrecondition, sentence)
    }

    pub(super) fn refusal(&self, status: StatusCode, code: Option<i64>) -> Error {
        let (place, anonymous) = (self.hub.place(), self.hub.anonymous());
        let (kind, sentence) = match (status.as_u16(), code) {
            (401, _) | (_, Some(BAD_TOKEN)) if !anonymous => (
                ErrorKind::Unauthenticated,
                format!("{place} does not accept the token in MODELSCOPE_API_TOKEN; it may have expired"),
            ),
            (401 | 403, _) if anonymous => (
                ErrorKind::Unauthenticated,
                format!("{place} refuses anonymous access; give a Secret with MODELSCOPE_API_TOKEN"),
            ),
            (403, _) => (
                ErrorKind::PermissionDenied,
                format!("{place} knows the token and refuses; its account needs the right to download this model"),
            ),
            (404, _) | (_, Some(NO_RECORD)) if anonymous => (
                ErrorKind::NotFound,
                format!(
                    "{place} has no such model or file, or it is private; check the URI, or give MODELSCOPE_API_TOKEN"
                ),
            ),
            (404, _) | (_, Some(NO_RECORD)) => (
                ErrorKind::NotFound,
                format!("{place} has no such model or file, or the token's account may not see it; check the URI"),
            ),
            (408 | 429, _) => (ErrorKind::Unavailable, format!("{place} has had too many requests; it is asked again")),
            (400..500, _) => {
                (ErrorKind::InvalidArgument, format!("{place} does not accept the request; check the URI"))
            }
            _ => (ErrorKind::Unavailable, format!("{place} has a problem; it is asked again")),
        };
        let code = code.map(|code| format!(" code {code}")).unwrap_or_default();
        let answer = Root(format!("{place} answered {status}{code}"));
        Error::with_source(kind, format!("{}: {sentence}", self.hub.uri), answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::source::{Context, Options};
    use crate::uri::ModelUri;

    #[test]
    fn every_refusal_has_its_kind_and_says_what_to_do() {
        use ErrorKind::{InvalidArgument, NotFound, PermissionDenied, Unauthenticated, Unavailable};
        let uri = ModelUri::parse("modelscope://o/n").unwrap();
        let context = Context::new(Policy::default()).unwrap();
        for (token, status, code, kind, hint) in [
            (None, 401, None, Unauthenticated, "give a Secret"),
            (None, 403, None, Unauthenticated, "give a Secret"),
            (None, 404, Some(NO_RECORD), NotFound, "or it is private"),
            (Some("ms-CANARY"), 401, None, Unauthenticated, "expired"),
            (Some("ms-CANARY"), 400, Some(BAD_TOKEN), Unauthenticated, "expired"),
            (Some("ms-CANARY"), 403, None, PermissionDenied, "right to download"),
            (Some("ms-CANARY"), 404, None, NotFound, "may not see it"),
            (Some("ms-CANARY"), 200, Some(NO_RECORD), NotFound, "may not see it"),
            (Some("ms-CANARY"), 400, None, InvalidArgument, "check the URI"),
            (Some("ms-CANARY"), 429, None, Unavailable, "too many requests"),
            (Some("ms-CANARY"), 502, None, Unavailable, "asked again"),
            (Some("ms-CANARY"), 200, Some(7), Unavailable, "code 7"),
        ] {
            let credentials = token.map(|token| (super::super::TOKEN, token)).into_iter().collect();
            let source = ModelScope::open(&uri, &Options::new(), &credentials, &context).unwrap();
            let error = source.refusal(StatusCode::from_u16(status).unwrap(), code);
            assert_eq!(error.kind(), kind, "{status} {code:?}");
            let report = error.report();
            assert!(report.contains(hint) && report.contains("modelscope://o/n"), "{report}");
            assert!(!report.contains("CANARY"), "{report}");
        }
    }
}
