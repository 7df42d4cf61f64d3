//! What the refusals of object stores mean, and what to tell the user about each.

use object_store::Error as Store;

use crate::error::{Error, ErrorKind};
use crate::net::{Root, cause, deepest};
use crate::source::too_many;
use crate::uri::ModelUri;

/// What the sentences name.
#[derive(Clone, Debug)]
pub(in crate::source) struct Failures {
    pub(in crate::source) uri: ModelUri,
    /// The bucket or container.
    pub(in crate::source) container: String,
    /// The endpoint, as it may be shown.
    pub(in crate::source) place: String,
    /// Whether requests go unsigned.
    pub(in crate::source) anonymous: bool,
    pub(in crate::source) dialect: &'static Dialect,
}

/// How one kind of store calls things.
#[derive(Debug)]
pub(in crate::source) struct Dialect {
    /// Whose protocol it is, with its article: "an S3 server".
    pub(in crate::source) server: &'static str,
    /// What holds the objects.
    pub(in crate::source) container: &'static str,
    /// The keys of the Secret that sign requests.
    pub(in crate::source) keys: &'static str,
    /// The rights that reading takes.
    pub(in crate::source) rights: &'static str,
    /// What to do when the container is elsewhere.
    pub(in crate::source) elsewhere: &'static str,
    /// What a server's own error codes mean, where its status does not tell.
    pub(in crate::source) codes: &'static [(&'static str, Meaning)],
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "s3", feature = "gcs", feature = "azure")),
    allow(dead_code, reason = "not every dialect has every meaning")
)]
pub(in crate::source) enum Meaning {
    NoContainer,
    NoObject,
    WrongCredentials,
    Expired,
    Clock,
    /// The store wants to know who asks, and was not told.
    NoCredentials,
    /// Not there, or not for those who do not tell who they are.
    Hidden,
    Denied,
    Elsewhere,
    Changed,
    /// A key that can't be a file's path.
    OddKey,
    /// Not the store's protocol.
    AnotherProtocol,
    /// The connection failed, or the answer made no sense.
    NoAnswer,
    Refused,
    Busy,
}

impl Failures {
    /// Turns an error of `object_store` into ours. The server's answer is reduced to its status and error code: its
    /// body repeats what was signed.
    pub(in crate::source) fn explain(&self, error: Store) -> Error {
        if let Some(own) = cause::<Error>(&error) {
            let text = format!("{}: {own}", self.uri);
            let explained = match std::error::Error::source(own) {
                Some(source) => Error::with_source(own.kind(), text, Root(deepest(source))),
                None => Error::new(own.kind(), text),
            };
            return explained.with_wait(own.wait());
        }
        let text = error.to_string();
        let code = between(&text, "<Code>", "</Code>").filter(|code| is_code(code)).unwrap_or_default();
        let status = between(&text, "status code: ", " ").unwrap_or_default();
        match self.meaning(Some(&error), status, code, &text) {
            Meaning::NoAnswer => {
                let text = format!("{}: {} fails", self.uri, self.place);
                Error::with_source(ErrorKind::Unavailable, text, Root(deepest(&error)))
            }
            meaning => self.tell(meaning, status, code),
        }
    }

    /// What an answer means that is no success.
    #[cfg(feature = "azure")]
    pub(in crate::source) fn answered(&self, status: http::StatusCode, code: &str) -> Error {
        let (status, code) = (status.as_str(), Some(code).filter(|code| is_code(code)).unwrap_or_default());
        self.tell(self.meaning(None, status, code, ""), status, code)
    }

    fn tell(&self, meaning: Meaning, status: &str, code: &str) -> Error {
        let Self { uri, container, place, dialect, .. } = self;
        let Dialect { container: noun, keys, rights, elsewhere, .. } = dialect;
        let (kind, sentence) = match meaning {
            Meaning::NoContainer => (
                ErrorKind::NotFound,
                format!("{uri}: there is no {noun} \"{container}\" at {place}; check the URI and the endpoint"),
            ),
            Meaning::WrongCredentials => (
                ErrorKind::Unauthenticated,
                format!("{uri}: {place} does not accept the credentials; check {keys} in the Secret"),
            ),
            Meaning::Expired => (
                ErrorKind::Unauthenticated,
                format!("{uri}: the session token in the Secret has expired; put a new one there"),
            ),
            Meaning::Clock => (
                ErrorKind::Unavailable,
                format!("{uri}: this node's clock and that of {place} are too far apart; set the clock"),
            ),
            Meaning::NoCredentials => (
                ErrorKind::Unauthenticated,
                format!("{uri}: {place} refuses anonymous access; give a Secret with {keys} as nodePublishSecretRef"),
            ),
            Meaning::Elsewhere => (ErrorKind::InvalidArgument, format!("{uri}: {noun} \"{container}\" is {elsewhere}")),
            Meaning::NoObject | Meaning::Hidden => {
                (ErrorKind::NotFound, format!("{uri}: not found at {place}; check the URI"))
            }
            Meaning::Changed => {
                (ErrorKind::Changed, format!("{uri} has changed at the source while it was being read"))
            }
            Meaning::Denied => (
                ErrorKind::PermissionDenied,
                format!(
                    "{uri}: {place} knows these credentials and refuses; they need {rights}, and the name must be right"
                ),
            ),
            Meaning::OddKey => (
                ErrorKind::FailedPrecondition,
                format!(
                    "{uri} has a key with an empty, \".\" or \"..\" component between slashes, which can't be a file; \
                     rename it or name a path beside it"
                ),
            ),
            Meaning::AnotherProtocol => return self.another_protocol(),
            Meaning::Refused => (ErrorKind::InvalidArgument, format!("{uri}: {place} does not accept the request")),
            Meaning::Busy | Meaning::NoAnswer => {
                (ErrorKind::Unavailable, format!("{uri}: {place} has a problem; it is asked again"))
            }
        };
        let answer = Root(format!("{place} answered {}", [status, code].join(" ").trim_end()));
        Error::with_source(kind, sentence, answer)
    }

    fn meaning(&self, error: Option<&Store>, status: &str, code: &str, text: &str) -> Meaning {
        // Listing gives its failures without their kind.
        let unauthorized = matches!(error, Some(Store::Unauthenticated { .. })) || status == "401";
        let denied = matches!(error, Some(Store::PermissionDenied { .. })) || status == "403";
        let known = self.dialect.codes.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning);
        match (known, error, status) {
            (Some(Meaning::Hidden | Meaning::Denied), ..) if self.anonymous => Meaning::NoCredentials,
            // Asked without a signature, a server may miss the region in it: what is missing is the signature.
            (Some(meaning), ..) if meaning != Meaning::Elsewhere => meaning,
            // rclone takes a request without a signature for a wrongly signed one: 400.
            _ if self.anonymous && (denied || unauthorized || status == "400") => Meaning::NoCredentials,
            (Some(meaning), ..) => meaning,
            (_, _, "301" | "307") => Meaning::Elsewhere,
            _ if text.contains("redirect without LOCATION") => Meaning::Elsewhere,
            (_, Some(Store::NotFound { .. }), _) | (_, _, "404") => Meaning::NoObject,
            (_, Some(Store::Precondition { .. }), _) | (_, _, "412") => Meaning::Changed,
            _ if unauthorized => Meaning::WrongCredentials,
            _ if denied => Meaning::Denied,
            (_, Some(Store::InvalidPath { .. }), _) => Meaning::OddKey,
            (_, _, "") if SENSELESS.iter().any(|words| text.contains(words)) => Meaning::AnotherProtocol,
            (_, _, "") => Meaning::NoAnswer,
            (_, _, status) if status.starts_with('4') && status != "429" && status != "408" => Meaning::Refused,
            _ => Meaning::Busy,
        }
    }

    pub(in crate::source) fn changed(&self, key: &str) -> Error {
        Error::new(ErrorKind::Changed, format!("{}: the object \"{key}\" has changed since it was listed", self.uri))
    }

    pub(in crate::source) fn another_protocol(&self) -> Error {
        let Self { uri, place, dialect, .. } = self;
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{uri}: {place} answers, but not as {} does; check the endpoint", dialect.server),
        )
    }

    pub(in crate::source) fn nothing_here(&self) -> Error {
        let Self { uri, container, place, dialect, .. } = self;
        let noun = dialect.container;
        Error::new(
            ErrorKind::NotFound,
            format!("{uri}: {noun} \"{container}\" at {place} has no object there; check the path in the URI"),
        )
    }

    pub(in crate::source) fn too_many(&self) -> Error {
        too_many(&self.uri)
    }
}

/// How `object_store` says that an answer of status 200 lacks what every store of its kind gives.
const SENSELESS: &[&str] = &["ETag Header missing", "Last-Modified Header missing", "Got invalid list response"];

pub(super) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

/// Whether this is a word, and not whatever a server wrote in the place of one.
fn is_code(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIALECT: Dialect = Dialect {
        server: "a test's server",
        container: "bucket",
        keys: "KEY",
        rights: "the right to read",
        elsewhere: "in another region",
        codes: &[
            ("SignatureDoesNotMatch", Meaning::WrongCredentials),
            ("XAdminUserNotFound", Meaning::WrongCredentials),
            ("PermanentRedirect", Meaning::Elsewhere),
            ("ResourceNotFound", Meaning::Hidden),
        ],
    };

    fn failures(anonymous: bool) -> Failures {
        let uri = ModelUri::parse("s3://b/m").unwrap();
        Failures { uri, container: "b".into(), place: "http://s3".into(), anonymous, dialect: &DIALECT }
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
    fn only_a_word_is_taken_for_a_code() {
        for body in ["<Code>CANARY and what was signed", "<Code>CANARY\u{1b}[2J</Code>", "<Code>CANARY<b/></Code>"] {
            let error = failures(false).explain(generic(&format!("status code: 403 Forbidden: <Error>{body}")));
            assert!(error.kind() == ErrorKind::PermissionDenied && !error.report().contains("CANARY"), "{error:?}");
        }
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
    fn what_is_hidden_from_strangers_is_not_there_for_others() {
        let hidden = || generic("Server returned non-2xx status code: 404 Not Found: <Code>ResourceNotFound</Code>");
        assert_eq!(failures(true).explain(hidden()).kind(), ErrorKind::Unauthenticated);
        assert_eq!(failures(false).explain(hidden()).kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_refusal_without_credentials_asks_for_some() {
        let refusal = || object_store::Error::PermissionDenied { path: "m".into(), source: "403".into() };
        assert_eq!(failures(true).explain(refusal()).kind(), ErrorKind::Unauthenticated);
        assert_eq!(failures(false).explain(refusal()).kind(), ErrorKind::PermissionDenied);
        let listing = generic("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>");
        assert_eq!(failures(true).explain(listing).kind(), ErrorKind::Unauthenticated);
    }

    proptest! {
        #[test]
        fn of_a_body_nothing_is_shown_but_a_word(code in "[A-Za-z.<>/\u{1b} ]{0,90}", end in "(</Code>)?", status in 400..600u16) {
            let status = http::StatusCode::from_u16(status).unwrap();
            let text = format!("Server returned non-2xx status code: {status}: <Code>{code}{end}CANARY");
            let report = failures(false).explain(generic(&text)).report();
            prop_assert!(!report.contains("CANARY") && !report.chars().any(char::is_control), "{}", report);
            prop_assert!(report.contains(status.as_str()) && report.len() < 400, "{}", report);
        }
    }
}
