//! The server that a registry sends its readers to for tokens. The registry checks them: they are signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::{PASSWORD, USER};
use crate::script::{Request, Response, ScriptedServer};

const ISSUER: &str = "modelmount-test-issuer";
const SERVICE: &str = "modelmount-test-registry";

/// Gives tokens for [`USER`] and [`PASSWORD`], also as the refresh token `PASSWORD`.
#[derive(Debug)]
pub struct TokenServer {
    server: ScriptedServer,
    signer: Arc<Signer>,
    rules: Arc<Rules>,
    certificate: PathBuf,
}

#[derive(Debug)]
struct Signer {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    random: SystemRandom,
}

#[derive(Debug, Default)]
struct Rules {
    revoked: AtomicBool,
    anonymous: AtomicBool,
    seconds: AtomicU64,
    given: Mutex<Vec<String>>,
}

impl TokenServer {
    pub(super) async fn start(directory: &Path) -> Self {
        let pair = KeyPair::generate().expect("keys can be made");
        let params = CertificateParams::new(vec!["tokens.test".to_owned()]).expect("it is a name");
        let certificate = params.self_signed(&pair).expect("a key can sign its own certificate");
        let path = directory.join("tokens.pem");
        fs::write(&path, certificate.pem()).expect("a temporary directory is writable");
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der(), &random)
            .expect("rcgen's keys are of this kind");
        let signer = Arc::new(Signer { key, certificate: certificate.der().to_vec(), random });
        let rules = Arc::new(Rules { seconds: AtomicU64::new(300), ..Rules::default() });
        let (script_signer, script_rules) = (Arc::clone(&signer), Arc::clone(&rules));
        let server = ScriptedServer::start(move |request| answer(request, &script_signer, &script_rules)).await;
        Self { server, signer, rules, certificate: path }
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "realm": format!("{}/token", self.server.url()),
            "service": SERVICE, "issuer": ISSUER, "rootcertbundle": self.certificate,
        })
    }

    /// A token for one repository.
    pub fn token(&self, repository: &str, actions: &[&str]) -> String {
        let scope = format!("repository:{repository}:{}", actions.join(","));
        self.signer.token(Some(&scope))
    }

    /// From now on, whoever asks gets a token for nothing, as servers give it to who may not read.
    pub fn revoke(&self) {
        self.rules.revoked.store(true, Ordering::Relaxed);
    }

    /// From now on, who brings no password gets tokens to pull, too.
    pub fn allow_anonymous(&self) {
        self.rules.anonymous.store(true, Ordering::Relaxed);
    }

    /// From now on, tokens claim to be good for so many seconds.
    pub fn claim_seconds(&self, seconds: u64) {
        self.rules.seconds.store(seconds, Ordering::Relaxed);
    }

    /// What it was asked, so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// The tokens that it gave.
    ///
    /// # Panics
    /// When a script has panicked.
    pub fn given(&self) -> Vec<String> {
        self.rules.given.lock().unwrap().clone()
    }
}

fn answer(request: &Request, signer: &Signer, rules: &Rules) -> Response {
    let form = match request.method.as_str() {
        "POST" => String::from_utf8_lossy(&request.body).into_owned(),
        _ => request.target.split_once('?').map_or(String::new(), |(_, query)| query.to_owned()),
    };
    let fields: Vec<(String, String)> = reqwest::Url::parse(&format!("http://h/?{form}"))
        .expect("a form is a query")
        .query_pairs()
        .into_owned()
        .collect();
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let known = match (request.header("authorization"), field("refresh_token")) {
        (Some(sent), _) => sent == basic,
        (None, Some(token)) => token == PASSWORD && field("grant_type") == Some("refresh_token"),
        (None, None) => rules.anonymous.load(Ordering::Relaxed),
    };
    if !known || field("service") != Some(SERVICE) {
        return Response::new(401).body("{\"details\": \"incorrect username or password\"}");
    }
    let scope = field("scope").filter(|_| !rules.revoked.load(Ordering::Relaxed));
    let token = signer.token(scope);
    rules.given.lock().unwrap().push(token.clone());
    let seconds = rules.seconds.load(Ordering::Relaxed);
    Response::new(200).body(json!({"token": token, "expires_in": seconds}).to_string())
}

impl Signer {
    fn token(&self, scope: Option<&str>) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let access: Vec<Value> = scope
            .iter()
            .filter_map(|scope| {
                let (rest, actions) = scope.rsplit_once(':')?;
                let (kind, name) = rest.split_once(':')?;
                Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
            })
            .collect();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + 3600,
            "jti": crate::launch::nonce(), "access": access,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).expect("a key can sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
