//! What must hold of token endpoints and their answers.

use super::{parse_refusal, parse_token, token_url};
use crate::source::fuzzing::refused;

pub(in crate::source::object) fn token(body: &[u8]) -> bool {
    let Some(token) = parse_token(body) else { return false };
    assert!(token.lifetime.as_secs() <= 86_400);
    assert!(http::HeaderValue::from_str(&format!("Bearer {}", token.text.expose())).is_ok());
    true
}

pub(in crate::source::object) fn refusal(body: &[u8]) -> bool {
    let code = parse_refusal(body);
    assert!(code.as_deref().is_none_or(|code| code.len() <= 40 && code.is_ascii()), "{code:?}");
    code.is_some()
}

/// A URL at which tokens are asked for, and on a second line the attribute `endpoint`.
pub(in crate::source::object) fn token_place(input: &[u8]) -> bool {
    const HOSTS: &[&str] = &["login.microsoftonline.com", ".login.example"];
    let Some(text) = std::str::from_utf8(input).ok() else { return false };
    let (text, endpoint) = text.split_once('\n').map_or((text, None), |(text, endpoint)| (text, Some(endpoint)));
    match token_url(text, HOSTS, endpoint) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let own = endpoint.and_then(|endpoint| url::Url::parse(endpoint).ok());
            let own = own.is_some_and(|own| own.host_str() == Some(host));
            assert!(own || host == HOSTS[0] || host.ends_with(HOSTS[1]), "{url}");
            assert!(own || url.scheme() == "https", "{url}");
            assert!(url.username().is_empty() && url.password().is_none(), "{url}");
            true
        }
        Err(error) => refused(&error.report()),
    }
}
