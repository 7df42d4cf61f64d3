//! What a namenode's or datanode's refusal means: its status, and the Java exception in its body.

use serde::Deserialize;

use crate::error::ErrorKind;

/// Longest part of a server's own words that is shown.
const MAX_WORDS: usize = 300;

/// A refusal, as far as the next step depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This namenode can't serve now: another one may.
    Elsewhere(String),
    /// The server does not know the operation.
    Unsupported,
    /// Final, with a clause that follows the server's name.
    Final(ErrorKind, String),
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "RemoteException")]
    exception: Exception,
}

#[derive(Deserialize)]
struct Exception {
    exception: String,
    #[serde(default)]
    message: String,
}

/// What an answer other than success or a redirect means. `anonymous`: the Secret says nothing about who asks.
pub(super) fn explain(status: u16, negotiate: bool, body: &[u8], anonymous: bool) -> Refusal {
    use Refusal::{Elsewhere, Final, Unsupported};
    let Ok(Body { exception: Exception { exception, message } }) = serde_json::from_slice(body) else {
        return without_exception(status, negotiate, body, anonymous);
    };
    let words = words(&message);
    match exception.as_str() {
        "StandbyException" | "ObserverRetryOnActiveException" => Elsewhere("is a standby namenode".to_owned()),
        "RetriableException" | "SafeModeException" | "ServerNotLeaderException" => {
            Elsewhere(format!("asks to come back later: {words}"))
        }
        "FileNotFoundException" | "PathNotFoundException" | "ParentNotDirectoryException" => {
            Final(ErrorKind::NotFound, "has no such file or directory; check the path".to_owned())
        }
        "AccessControlException" if words.contains("uthentication") => unauthenticated(negotiate, anonymous, &words),
        "AccessControlException" if anonymous => Final(
            ErrorKind::Unauthenticated,
            format!(
                "does not let just anybody read it; give a Secret with HADOOP_USER_NAME or HDFS_DELEGATION_TOKEN: {words}"
            ),
        ),
        "AccessControlException" | "AuthorizationException" => {
            Final(ErrorKind::PermissionDenied, format!("refuses this user; grant the right to read: {words}"))
        }
        "InvalidToken" | "TokenExpiredException" => Final(
            ErrorKind::Unauthenticated,
            format!("does not accept the delegation token; put a new one into the Secret: {words}"),
        ),
        "SecurityException" | "AuthenticationException" | "LoginException" => {
            // A token that can't be read fails the login, with the token's reading as the cause.
            unauthenticated(negotiate, anonymous, &words)
        }
        "UnsupportedOperationException" => Unsupported,
        // `Invalid value for webhdfs parameter "op": No enum constant …`
        "IllegalArgumentException" if words.contains("\"op\"") => Unsupported,
        "IllegalArgumentException" | "InvalidPathException" | "QueryParamException" => {
            Final(ErrorKind::InvalidArgument, format!("can't make sense of the request; check the path: {words}"))
        }
        _ if status == 401 => unauthenticated(negotiate, anonymous, &words),
        other => {
            // A Java class: what else stands there is nobody's name.
            let name: String = other.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
            Final(ErrorKind::Unavailable, format!("can't serve it now: {name}: {words}"))
        }
    }
}

fn without_exception(status: u16, negotiate: bool, body: &[u8], anonymous: bool) -> Refusal {
    use Refusal::{Elsewhere, Final};
    let text = String::from_utf8_lossy(body);
    match status {
        _ if text.contains("Hadoop IPC port") => Final(
            ErrorKind::InvalidArgument,
            "is the namenode's RPC port; name the port of its web interface, which is 9870 (with TLS 9871) by default"
                .to_owned(),
        ),
        401 => unauthenticated(negotiate, anonymous, ""),
        403 if anonymous => unauthenticated(negotiate, anonymous, ""),
        403 => Final(ErrorKind::PermissionDenied, "refuses these credentials".to_owned()),
        408 | 429 | 500..=599 => Elsewhere(format!("is not serving now (status {status})")),
        _ => Final(
            ErrorKind::InvalidArgument,
            format!("does not speak WebHDFS (status {status}); check host and port, and dfs.webhdfs.enabled"),
        ),
    }
}

fn unauthenticated(negotiate: bool, anonymous: bool, words: &str) -> Refusal {
    let advice = match (negotiate, anonymous) {
        (true, _) => KERBEROS,
        (false, true) => "give a Secret with HDFS_DELEGATION_TOKEN, HADOOP_USER_NAME, or username and password",
        (false, false) => "the Secret's credentials are not accepted",
    };
    let words = if words.is_empty() { String::new() } else { format!(": {words}") };
    Refusal::Final(ErrorKind::Unauthenticated, format!("wants to know who asks; {advice}{words}"))
}

/// What to do instead of Kerberos.
pub(super) const KERBEROS: &str = "Kerberos is not supported here: give a delegation token as HDFS_DELEGATION_TOKEN \
    (`hdfs fetchdt`), or go through a gateway such as Knox or HttpFS with username and password";

/// The beginning of what a server says, on one line.
fn words(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(exception: &str, message: &str) -> Vec<u8> {
        let message = serde_json::to_string(message).unwrap();
        format!(r#"{{"RemoteException":{{"exception":"{exception}","javaClassName":"x","message":{message}}}}}"#).into()
    }

    #[test]
    fn exceptions_have_their_kinds() {
        use ErrorKind::*;
        for (status, exception, anonymous, kind) in [
            (404, "FileNotFoundException", false, NotFound),
            (403, "AccessControlException", false, PermissionDenied),
            (403, "AccessControlException", true, Unauthenticated),
            (403, "AuthorizationException", false, PermissionDenied),
            (403, "InvalidToken", false, Unauthenticated),
            (401, "SecurityException", false, Unauthenticated),
            (400, "IllegalArgumentException", false, InvalidArgument),
            (403, "IOException", false, Unavailable),
        ] {
            let Refusal::Final(found, _) = explain(status, false, &json(exception, "m"), anonymous) else { panic!() };
            assert_eq!(found, kind, "{exception}");
        }
        assert!(matches!(explain(403, false, &json("StandbyException", ""), true), Refusal::Elsewhere(_)));
        let unknown =
            json("IllegalArgumentException", "Invalid value for webhdfs parameter \"op\": No enum constant X");
        assert_eq!(explain(400, false, &unknown, true), Refusal::Unsupported);
    }

    #[test]
    fn answers_of_other_servers_say_what_to_do() {
        let says = |status, negotiate, body: &str, hint: &str| match explain(status, negotiate, body.as_bytes(), true) {
            Refusal::Final(_, text) | Refusal::Elsewhere(text) => assert!(text.contains(hint), "{text}"),
            Refusal::Unsupported => panic!("{hint}"),
        };
        says(404, false, "It looks like you are making an HTTP request to a Hadoop IPC port.", "9870");
        says(404, false, "<html>", "does not speak WebHDFS");
        says(401, true, "<html>", "hdfs fetchdt");
        says(503, false, "<html>", "not serving now");
    }

    proptest! {
        #[test]
        fn words_are_short_and_on_one_line(status in 100u16..600, message in "(?s).{0,900}", exception in "[A-Za-z\u{1b}\u{85} ]{0,200}") {
            match explain(status, false, &json(&exception, &message), false) {
                Refusal::Final(_, text) | Refusal::Elsewhere(text) => {
                    prop_assert!(!text.chars().any(char::is_control) && text.chars().count() < MAX_WORDS + 200);
                }
                Refusal::Unsupported => {}
            }
        }

        #[test]
        fn any_body_is_explained(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = explain(status, true, &body, true);
        }
    }
}
