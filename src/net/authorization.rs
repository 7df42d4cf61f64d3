//! The header `Authorization`, and others that hold secrets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue};

/// A header's value that is kept out of logs; `None` if it has characters that no header can have.
pub(crate) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 7617.
pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret_value(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// RFC 6750 section 2.1.
#[cfg(any(feature = "http", feature = "oci"))]
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_value(&format!("Bearer {token}"))
}

/// What [`is_reserved`].
const RESERVED: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header says what is asked and how it is sent, not who asks: no business of a Secret, or of a server that
/// says where to go on. With another `Host`, or a condition, the same URL would stand for other content.
pub(crate) fn is_reserved(header: &HeaderName) -> bool {
    RESERVED.contains(&header.as_str())
}

/// The headers that a Secret holds as a JSON object of strings.
///
/// # Errors
/// What is wrong with it, in words that follow the name of the Secret's key and repeat nothing of its value.
#[cfg(any(feature = "http", feature = "hdfs"))]
pub(crate) fn headers_of_json(json: &str) -> Result<http::HeaderMap, &'static str> {
    let pairs: std::collections::BTreeMap<String, String> =
        serde_json::from_str(json).map_err(|_| "must be a JSON object of strings, such as {\"X-Token\": \"…\"}")?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().map_err(|_| "has a name that is no HTTP header's")?;
        if is_reserved(&name) {
            return Err("names a header that every request sets itself, such as Host or Range; leave it out");
        }
        headers.insert(name, secret_value(&value).ok_or("has a value that can't be sent")?);
    }
    Ok(headers)
}

#[cfg(all(test, any(feature = "http", feature = "hdfs")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_say_who_asks_and_nothing_else() {
        let headers = headers_of_json(r#"{"X-Token": "t", "authorization": "Bearer b", "Cookie": "c=1"}"#).unwrap();
        assert_eq!(headers.len(), 3);
        assert!(headers["x-token"] == "t" && headers.values().all(HeaderValue::is_sensitive));
        for name in RESERVED {
            let error = headers_of_json(&format!(r#"{{"{}": "CANARY"}}"#, name.to_ascii_uppercase())).unwrap_err();
            assert!(error.contains("every request sets itself"), "{name}: {error}");
        }
        for (json, problem) in [
            ("CANARY", "JSON object"),
            (r#"["CANARY"]"#, "JSON object"),
            (r#"{"a": 1}"#, "JSON object"),
            (r#"{"a b": "CANARY"}"#, "no HTTP header's"),
            (r#"{"": "CANARY"}"#, "no HTTP header's"),
            (r#"{"a": "CANARY\n"}"#, "can't be sent"),
        ] {
            assert!(headers_of_json(json).unwrap_err().contains(problem), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_json_is_headers_or_an_error(pairs in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..4)) {
            if let Ok(headers) = headers_of_json(&serde_json::to_string(&pairs).unwrap()) {
                prop_assert!(headers.len() <= pairs.len() && !headers.contains_key("host"));
            }
        }

        #[test]
        fn what_is_sent_is_what_was_given_and_kept_out_of_logs(user in "[^:\\PC]{0,9}", password in "\\PC{0,40}") {
            let value = basic(&user, &password).unwrap();
            prop_assert!(value.is_sensitive());
            let sent = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
            prop_assert_eq!(BASE64_STANDARD.decode(sent).unwrap(), format!("{user}:{password}").into_bytes());
        }

        #[test]
        fn no_value_ends_its_line(text in "(?s).{0,9}") {
            if let Some(value) = secret_value(&text) {
                prop_assert!(!value.as_bytes().contains(&b'\n') && !value.as_bytes().contains(&b'\r'));
            }
        }
    }
}
