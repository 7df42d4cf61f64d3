//! Access tokens: made when first needed, kept until shortly before they expire, in memory only.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::credentials::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{HttpClient, origin_text, read_all};

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;

/// A token is replaced so long before its end that no request meets it expired.
const MARGIN: Duration = Duration::from_secs(300);
/// Longest answer of a token endpoint that is read, in bytes.
const MOST: usize = 64 << 10;

/// A token, and how long it is good for.
pub(in crate::source) struct Token {
    pub(in crate::source) text: Secret<String>,
    pub(in crate::source) lifetime: Duration,
}

/// Makes tokens.
#[async_trait]
pub(in crate::source) trait Issuer: Send + Sync {
    /// A new token.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] when the credentials are refused, [`ErrorKind::Unavailable`] when nobody answers.
    async fn issue(&self) -> Result<Token>;
}

/// One token at a time, in the form that a store wants.
pub(in crate::source) struct Tokens<C> {
    issuer: Box<dyn Issuer>,
    wrap: fn(String) -> C,
    held: Mutex<Option<(Arc<C>, Instant)>>,
}

impl<C: Send + Sync> Tokens<C> {
    pub(in crate::source) fn new(issuer: Box<dyn Issuer>, wrap: fn(String) -> C) -> Self {
        Self { issuer, wrap, held: Mutex::default() }
    }

    pub(in crate::source) async fn get(&self) -> Result<Arc<C>> {
        // Held while asking: many parts that need a token at once ask once.
        let mut held = self.held.lock().await;
        if let Some((token, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(Arc::clone(token));
        }
        let began = Instant::now();
        let Token { text, lifetime } = self.issuer.issue().await?;
        let token = Arc::new((self.wrap)(text.expose().clone()));
        *held = Some((Arc::clone(&token), began + lifetime.saturating_sub(MARGIN)));
        Ok(token)
    }
}

impl<C> fmt::Debug for Tokens<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> CredentialProvider for Tokens<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        self.get().await.map_err(|error| object_store::Error::Generic { store: "token", source: Box::new(error) })
    }
}

/// An OAuth 2.0 token endpoint (RFC 6749 section 3.2), asked with one form.
pub(in crate::source) struct TokenEndpoint {
    client: HttpClient,
    url: Url,
    form: Secret<String>,
    /// The keys of the Secret that the form was made of.
    keys: &'static str,
}

impl TokenEndpoint {
    pub(in crate::source) fn new(client: HttpClient, url: Url, form: &[(&str, &str)], keys: &'static str) -> Self {
        let form = Secret::new(Serializer::new(String::new()).extend_pairs(form).finish());
        Self { client, url, form, keys }
    }
}

#[async_trait]
impl Issuer for TokenEndpoint {
    async fn issue(&self) -> Result<Token> {
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(self.form.expose().clone().into());
        let answer = self.client.execute(request).await?;
        let (host, status) = (origin_text(&self.url), answer.status());
        let body = read_all(answer, MOST).await?;
        if status.is_success() {
            return parse_token(&body).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, format!("{host} gives no access token where one is expected"))
            });
        }
        let (kind, advice) = match status.as_u16() {
            408 | 429 | 500.. => (ErrorKind::Unavailable, "it is asked again".to_owned()),
            400..=403 => (ErrorKind::Unauthenticated, format!("check {} in the Secret", self.keys)),
            _ => (ErrorKind::InvalidArgument, "it is no token endpoint".to_owned()),
        };
        let code = parse_refusal(&body).unwrap_or_default();
        let answered = format!("{status} {code}");
        Err(Error::new(kind, format!("{host} gives no access token ({}); {advice}", answered.trim_end())))
    }
}

/// Where tokens are asked for: at one of `hosts`, a leading dot meaning all names below; or at the host of the volume's
/// own endpoint, which gets the token anyway. Credentials name this URL, and nobody should be able to have the node send
/// them to any place.
pub(in crate::source) fn token_url(text: &str, hosts: &[&str], endpoint: Option<&str>) -> Result<Url> {
    let refused = |problem: &str| {
        let shown = crate::uri::shown_text(text);
        Error::new(ErrorKind::InvalidArgument, format!("the token endpoint {shown:?} in the Secret {problem}"))
    };
    let url = Url::parse(text).map_err(|_| refused("is not a URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("has a user in it, which can't be used"));
    }
    let host = url.host_str().unwrap_or_default();
    let known = |name: &&str| match name.strip_prefix('.') {
        Some(_) => host.ends_with(*name),
        None => host == *name,
    };
    let own = endpoint
        .and_then(|endpoint| Url::parse(endpoint).ok())
        .filter(|own| own.has_host() && own.host() == url.host());
    match own {
        Some(own) if url.scheme() == own.scheme() || url.scheme() == "https" => Ok(url),
        None if url.scheme() == "https" && url.port().is_none() && hosts.iter().any(known) => Ok(url),
        _ => Err(refused("is neither one of the provider's nor at the host of the attribute endpoint")),
    }
}

/// A token endpoint's answer (RFC 6749 section 5.1).
fn parse_token(body: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        #[serde(default)]
        expires_in: Option<serde_json::Value>,
    }
    let Answer { access_token, expires_in } = serde_json::from_slice(body).ok()?;
    // Goes into a header.
    let sendable = !access_token.is_empty() && access_token.bytes().all(|b| b.is_ascii_graphic());
    // Some servers write the number as a string; one that does not tell gives tokens for this request.
    let seconds = match expires_in {
        Some(serde_json::Value::Number(number)) => number.as_u64(),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let lifetime = Duration::from_secs(seconds.unwrap_or(0).min(86_400));
    sendable.then(|| Token { text: Secret::new(access_token), lifetime })
}

/// The error code of a refusal (RFC 6749 section 5.2); its description may repeat what was sent.
fn parse_refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let Refusal { error } = serde_json::from_slice(body).ok()?;
    (error.len() <= 40 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use proptest::prelude::*;

    const HOSTS: &[&str] = &["accounts.google.com", ".googleapis.com"];

    #[test]
    fn credentials_can_not_send_the_node_anywhere() {
        for (text, endpoint) in [
            ("https://oauth2.googleapis.com/token", None),
            ("https://accounts.google.com/o/oauth2/token", Some("http://gcs:4443")),
            ("http://gcs:8080/token", Some("http://gcs:4443")),
            ("https://gcs/token", Some("http://gcs:4443")),
        ] {
            assert_eq!(token_url(text, HOSTS, endpoint).unwrap().as_str(), text);
        }
        for (text, endpoint) in [
            ("token", None),
            ("http://oauth2.googleapis.com/token", None),
            ("https://oauth2.googleapis.com:8443/token", None),
            ("https://evilgoogleapis.com/token", None),
            ("https://oauth2.googleapis.com.evil/token", None),
            ("https://oauth2.googleapis.com@evil/token", None),
            ("https://169.254.169.254/token", None),
            ("http://other:4443/token", Some("http://gcs:4443")),
            ("http://gcs/token", Some("https://gcs")),
            ("file:///etc/passwd", None),
            ("file:///etc/passwd", Some("file:///")),
        ] {
            assert_eq!(token_url(text, HOSTS, endpoint).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn answers_are_read_strictly() {
        let lifetime = |text: &str| parse_token(text.as_bytes()).map(|token| token.lifetime.as_secs());
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#), Some(3599));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":"3599"}"#), Some(3599));
        assert_eq!(lifetime(r#"{"access_token":"t"}"#), Some(0));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":1e99}"#), Some(0));
        for nonsense in ["", "{}", "[]", r#"{"access_token":""}"#, r#"{"access_token":"a\r\nb"}"#] {
            assert_eq!(lifetime(nonsense), None, "{nonsense}");
        }
        let refusal = r#"{"error":"invalid_grant","error_description":"CANARY"}"#;
        assert_eq!(parse_refusal(refusal.as_bytes()).as_deref(), Some("invalid_grant"));
        assert_eq!(parse_refusal(br#"{"error":"CANARY secret"}"#), None);
    }

    struct Counting(Duration, Arc<AtomicU64>);

    #[async_trait]
    impl Issuer for Counting {
        async fn issue(&self) -> Result<Token> {
            let text = Secret::new(self.1.fetch_add(1, Ordering::SeqCst).to_string());
            Ok(Token { text, lifetime: self.0 })
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_its_end() {
        for (lifetime, fetched) in [(3600, 1), (MARGIN.as_secs() - 1, 3)] {
            let count = Arc::new(AtomicU64::default());
            let issuer = Counting(Duration::from_secs(lifetime), Arc::clone(&count));
            let tokens = Tokens::new(Box::new(issuer), |text| text);
            for _ in 0..3 {
                tokens.get().await.unwrap();
            }
            assert_eq!(count.load(Ordering::SeqCst), fetched, "{lifetime} s");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            parse_token(&body);
            parse_refusal(&body);
        }

        #[test]
        fn only_known_hosts_are_asked(text in "(https?://)?[a-z.@:/]{0,12}(googleapis\\.com)?[a-z.:/]{0,8}") {
            if let Ok(url) = token_url(&text, HOSTS, None) {
                let host = url.host_str().unwrap();
                prop_assert!(url.scheme() == "https" && (host.ends_with(".googleapis.com") || host == HOSTS[0]));
            }
        }
    }
}
