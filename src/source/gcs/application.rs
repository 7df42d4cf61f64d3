//! Google's application credentials: the JSON file of a service account or of a user.
//!
//! A service account signs its tokens itself (AIP-4111), so that nobody has to be asked, and with no other right than
//! to read objects. A user's refresh token is exchanged for an access token (AIP-4113). Nothing is read from files or
//! from the metadata service.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::Signer;
use serde::{Deserialize, Serialize};

use crate::credentials::{Credentials, Secret};
use crate::error::{Error, ErrorKind, Result};
use crate::source::Context;
use crate::source::object::{Issuer, Token, TokenEndpoint, token_url};

#[cfg(any(fuzzing, test))]
pub(in crate::source) mod fuzzing;

/// The Secret's key, as in KServe.
pub(super) const KEY: &str = "gcloud-application-credentials.json";
/// The variable that names the file for Google's own tools.
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// All that a token of ours is good for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
/// As long as Google accepts a token that is signed by an account itself.
const LIFETIME: Duration = Duration::from_secs(3600);

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const TOKEN_HOSTS: &[&str] = &["accounts.google.com", ".googleapis.com"];

/// What makes tokens of the caller's credentials; `None` for anonymous access.
pub(super) fn read(
    credentials: &Credentials,
    endpoint: Option<&str>,
    context: &Context,
) -> Result<Option<Box<dyn Issuer>>> {
    let Some(json) = credentials.get(&[KEY, VARIABLE]) else { return Ok(None) };
    Ok(Some(match parse(json.expose())? {
        Application::ServiceAccount { email, key_id, key } => Box::new(SelfSigned { email, key_id, key }),
        Application::User { form, token_uri } => {
            let url = token_url(token_uri.as_deref().unwrap_or(TOKEN_URL), TOKEN_HOSTS, endpoint)?;
            let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.expose().as_str())).collect();
            Box::new(TokenEndpoint::new(context.http.clone(), url, &form, KEY))
        }
    }))
}

/// Credentials that are complete.
enum Application {
    ServiceAccount { email: String, key_id: Option<String>, key: Box<dyn Signer> },
    User { form: [(&'static str, Secret<String>); 4], token_uri: Option<String> },
}

fn parse(json: &str) -> Result<Application> {
    #[derive(Deserialize)]
    struct File {
        r#type: Option<String>,
        client_email: Option<String>,
        private_key_id: Option<String>,
        private_key: Option<String>,
        client_id: Option<String>,
        client_secret: Option<String>,
        refresh_token: Option<String>,
        token_uri: Option<String>,
    }
    let invalid = |problem: &str| Error::new(ErrorKind::InvalidArgument, format!("the Secret's key {KEY} {problem}"));
    if !json.trim_start().starts_with('{') {
        return Err(invalid("is not JSON: put the content of the credentials file there, not its name"));
    }
    // serde_json's message may quote a value: only the place is told.
    let file: File = serde_json::from_str(json).map_err(|error| {
        invalid(&format!("is not a credentials file (line {}, column {})", error.line(), error.column()))
    })?;
    let missing = |name: &str| invalid(&format!("lacks \"{name}\": put the whole credentials file there"));
    let required = |value: Option<String>, name| value.filter(|value| !value.is_empty()).ok_or_else(|| missing(name));
    match file.r#type.as_deref() {
        Some("service_account") => {
            let pem = Secret::new(required(file.private_key, "private_key")?);
            let key =
                rsa_key(pem.expose()).ok_or_else(|| invalid("has a \"private_key\" that is no RSA key in PEM"))?;
            let email = required(file.client_email, "client_email")?;
            Ok(Application::ServiceAccount { email, key_id: file.private_key_id, key })
        }
        Some("authorized_user") => {
            let secret = |value, name| required(value, name).map(Secret::new);
            let form = [
                ("grant_type", Secret::new("refresh_token".to_owned())),
                ("client_id", secret(file.client_id, "client_id")?),
                ("client_secret", secret(file.client_secret, "client_secret")?),
                ("refresh_token", secret(file.refresh_token, "refresh_token")?),
            ];
            Ok(Application::User { form, token_uri: file.token_uri })
        }
        Some(other) => {
            let shown: String = other.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
            Err(invalid(&format!(
                "holds credentials of the type \"{shown}\", which would need more than this file; put the key of a \
                 service account there, or the credentials of an authorized_user"
            )))
        }
        None => Err(missing("type")),
    }
}

fn rsa_key(pem: &str) -> Option<Box<dyn Signer>> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    any_supported_type(&key).ok()?.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
}

/// A service account that signs its own tokens.
struct SelfSigned {
    email: String,
    key_id: Option<String>,
    key: Box<dyn Signer>,
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
}

impl SelfSigned {
    /// A JSON web token (RFC 7515) that is good from `now` on.
    fn token(&self, now: SystemTime) -> Result<String> {
        let failed = |error| Error::with_source(ErrorKind::Internal, "can't sign a token", error);
        let part = |json: serde_json::Result<Vec<u8>>| {
            json.map(|json| BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(|error| failed(Box::new(error) as BoxedError))
        };
        let iat = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let exp = iat + LIFETIME.as_secs();
        let header = Header { alg: "RS256", typ: "JWT", kid: self.key_id.as_deref() };
        let claims = Claims { iss: &self.email, sub: &self.email, scope: SCOPE, iat, exp };
        let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
        let signature = self.key.sign(signed.as_bytes()).map_err(|error| failed(Box::new(error)))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

#[async_trait]
impl Issuer for SelfSigned {
    async fn issue(&self) -> Result<Token> {
        Ok(Token { text: Secret::new(self.token(SystemTime::now())?), lifetime: LIFETIME })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_with_the_file_is_said_without_quoting_it() {
        for (json, hint) in [
            ("/var/secrets/CANARY.json", "not its name"),
            ("{\"type\": \"CANARY", "line 1"),
            ("{\"type\": [\"CANARY\"]}", "line 1"),
            ("{}", "lacks \"type\""),
            (r#"{"type":"service_account","client_email":"a@b"}"#, "lacks \"private_key\""),
            (r#"{"type":"service_account","private_key":"CANARY"}"#, "no RSA key"),
            (r#"{"type":"authorized_user","client_id":"a","client_secret":"CANARY"}"#, "lacks \"refresh_token\""),
            (r#"{"type":"external_account","audience":"CANARY"}"#, "\"external_account\""),
            (r#"{"type":"impersonated_service_account"}"#, "\"impersonated_service_account\""),
        ] {
            let error = parse(json).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let report = error.report();
            assert!(report.contains(hint) && report.contains(KEY) && !report.contains("CANARY"), "{json}: {report}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\{?[\"a-z_:,{}\\[\\] ]{0,60}") {
            let _ = parse(&text);
        }
    }
}
