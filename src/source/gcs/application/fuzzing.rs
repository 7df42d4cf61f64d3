//! What must hold of application credentials, and of the tokens that they are exchanged for.

use super::{Application, KEY, TOKEN_HOSTS, parse};
use crate::source::fuzzing::{Checks, Written, refused};
use crate::source::object::token_url;

pub(in crate::source) const CHECKS: Checks = &[(b'g', application)];

/// Tokens are asked of Google alone.
fn application(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    let Some(json) = written.credentials.get(&[KEY]) else { return false };
    match parse(json.expose()) {
        Ok(Application::ServiceAccount { email, .. }) => {
            assert!(!email.is_empty());
            true
        }
        Ok(Application::User { token_uri, .. }) => match token_uri {
            Some(uri) => match token_url(&uri, TOKEN_HOSTS, None) {
                Ok(url) => {
                    let host = url.host_str().unwrap_or_default();
                    assert!(host == "accounts.google.com" || host.ends_with(".googleapis.com"), "{url}");
                    true
                }
                // The place may be shown.
                Err(error) => refused(&error.report()),
            },
            None => true,
        },
        // Of a file, the type that it says it is of may be shown.
        Err(error) if kind(json.expose()).contains("CANARY") => refused(&error.report()),
        Err(error) => written.refused(&error),
    }
}

fn kind(json: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    json["type"].as_str().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect()
}
