//! What S3's refusals mean, and what to tell the user about each.

use crate::error::{Error, ErrorKind};
use crate::net::{Root, cause, deepest};
use crate::uri::ModelUri;

/// What the sentences name.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    pub(super) uri: ModelUri,
    pub(super) bucket: String,
    /// The endpoint, as it may be shown.
    pub(super) place: String,
    /// Whether requests go unsigned.
    pub(super) anonymous: bool,
}

impl Failures {
    /// Turns an error of `object_store` into ours. The server's answer is reduced to its status and error code: its
    /// body repeats what was signed.
    pub(super) fn explain(&self, error: object_store::Error) -> Error {
        use object_store::Error as Store;
        let Self { uri, bucket, place, anonymous } = self;
        if let Some(own) = cause::<Error>(&error) {
            let text = format!("{uri}: {own}");
            return match std::error::Error::source(own) {
                Some(source) => Error::with_source(own.kind(), text, Root(deepest(source))),
                None => Error::new(own.kind(), text),
            };
        }
        let text = error.to_string();
        let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
        let status = between(&text, "status code: ", " ").unwrap_or_default();
        let answer = || Root(format!("{place} answered {}", [status, code].join(" ").trim_end()));

        // Listing gives its failures without their kind.
        let unauthorized = matches!(error, Store::Unauthenticated { .. }) || status == "401";
        let denied = matches!(error, Store::PermissionDenied { .. }) || status == "403";
        let redirected = matches!(status, "301" | "307") || text.contains("redirect without LOCATION");
        let signed = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret";
        let (kind, sentence) = match (&error, status, code) {
            (_, _, "NoSuchBucket") => (
                ErrorKind::NotFound,
                format!("{uri}: there is no bucket \"{bucket}\" at {place}; check the URI and the endpoint"),
            ),
            // The last is versitygw's.
            (
                _,
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "InvalidSecurity"
                | "XAdminUserNotFound",
            ) => (ErrorKind::Unauthenticated, format!("{uri}: {place} does not accept the credentials; {signed}")),
            (_, _, "ExpiredToken" | "TokenRefreshRequired") => (
                ErrorKind::Unauthenticated,
                format!("{uri}: the session token in the Secret has expired; put a new one there"),
            ),
            (_, _, "RequestTimeTooSkewed") => (
                ErrorKind::Unavailable,
                format!("{uri}: this node's clock and that of {place} are too far apart; set the clock"),
            ),
            // rclone takes a request without a signature for a wrongly signed one: 400.
            (..) if *anonymous && (denied || unauthorized || status == "400") => (
                ErrorKind::Unauthenticated,
                format!(
                    "{uri}: {place} refuses anonymous access; give a Secret with AWS_ACCESS_KEY_ID and \
                     AWS_SECRET_ACCESS_KEY as nodePublishSecretRef"
                ),
            ),
            (..) if redirected || matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed") => (
                ErrorKind::InvalidArgument,
                format!(
                    "{uri}: bucket \"{bucket}\" is in another region than the request names; set the attribute region"
                ),
            ),
            (Store::NotFound { .. }, ..) | (_, "404", _) => {
                (ErrorKind::NotFound, format!("{uri}: not found at {place}; check the URI"))
            }
            (Store::Precondition { .. }, ..) | (_, "412", _) => {
                (ErrorKind::Changed, format!("{uri} has changed at the source while it was being read"))
            }
            (..) if unauthorized => {
                (ErrorKind::Unauthenticated, format!("{uri}: {place} does not accept the credentials; {signed}"))
            }
            (..) if denied => (
                ErrorKind::PermissionDenied,
                format!(
                    "{uri}: {place} knows these credentials and refuses; they need s3:ListBucket on the prefix and \
                     s3:GetObject, and the name must be right"
                ),
            ),
            (Store::InvalidPath { .. }, ..) => (
                ErrorKind::FailedPrecondition,
                format!(
                    "{uri} has a key with an empty, \".\" or \"..\" component between slashes, which can't be a file; \
                     rename it or name a path beside it"
                ),
            ),
            (_, "", _) => {
                return Error::with_source(
                    ErrorKind::Unavailable,
                    format!("{uri}: {place} fails"),
                    Root(deepest(&error)),
                );
            }
            (_, status, _) if status.starts_with('4') && status != "429" && status != "408" => {
                (ErrorKind::InvalidArgument, format!("{uri}: {place} does not accept the request"))
            }
            _ => (ErrorKind::Unavailable, format!("{uri}: {place} has a problem; it is asked again")),
        };
        Error::with_source(kind, sentence, answer())
    }

    pub(super) fn changed(&self, key: &str) -> Error {
        Error::new(ErrorKind::Changed, format!("{}: the object \"{key}\" has changed since it was listed", self.uri))
    }

    pub(super) fn not_s3(&self) -> Error {
        let Self { uri, place, .. } = self;
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{uri}: {place} answers, but not as an S3 server does; check the endpoint"),
        )
    }

    pub(super) fn nothing_here(&self) -> Error {
        let Self { uri, bucket, place, .. } = self;
        Error::new(
            ErrorKind::NotFound,
            format!("{uri}: bucket \"{bucket}\" at {place} has no object there; check the path in the URI"),
        )
    }

    pub(super) fn too_many(&self) -> Error {
        let most = crate::manifest::MAX_ENTRIES;
        Error::new(
            ErrorKind::ResourceExhausted,
            format!("{} has more than {most} objects: name a path further down", self.uri),
        )
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    rest.split(end).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(anonymous: bool) -> Failures {
        let uri = ModelUri::parse("s3://b/m").unwrap();
        Failures { uri, bucket: "b".into(), place: "http://s3".into(), anonymous }
    }

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn the_servers_body_is_never_shown() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>\
                    <AWSAccessKeyId>AKIACANARY</AWSAccessKeyId></Error>";
        let error = failures(false).explain(generic(body));
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.report().contains("403 SignatureDoesNotMatch"), "{}", error.report());
        assert!(!error.report().contains("CANARY"), "{}", error.report());
    }

    #[test]
    fn statuses_without_a_known_code_have_a_kind_too() {
        for (status, kind) in [
            ("400 Bad Request: ", ErrorKind::InvalidArgument),
            ("301 Moved: ", ErrorKind::InvalidArgument),
            ("401 Unauthorized: ", ErrorKind::Unauthenticated),
            ("403 Forbidden: <Code>AccessDenied</Code>", ErrorKind::PermissionDenied),
            ("404 Not Found: ", ErrorKind::NotFound),
            ("404 Not Found: <Code>XAdminUserNotFound</Code>", ErrorKind::Unauthenticated),
            ("412 Precondition Failed: ", ErrorKind::Changed),
            ("429 Too Many: ", ErrorKind::Unavailable),
            ("500 Internal: ", ErrorKind::Unavailable),
            ("503 Slow Down: ", ErrorKind::Unavailable),
        ] {
            let error = failures(false).explain(generic(&format!("Server returned non-2xx status code: {status}")));
            assert_eq!(error.kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_refusal_without_credentials_asks_for_some() {
        let refusal = || object_store::Error::PermissionDenied { path: "m".into(), source: "403".into() };
        assert_eq!(failures(true).explain(refusal()).kind(), ErrorKind::Unauthenticated);
        assert_eq!(failures(false).explain(refusal()).kind(), ErrorKind::PermissionDenied);
        let listing = generic("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>");
        assert_eq!(failures(true).explain(listing).kind(), ErrorKind::Unauthenticated);
    }
}
