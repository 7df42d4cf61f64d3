//! A service account: its key file, and whether a token is signed with its key.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::launch::nonce;
use crate::tools;

/// All that a reader's token may be good for.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// An account with an RSA key that is new with each start.
#[derive(Debug)]
pub struct ServiceAccount {
    email: String,
    key_id: String,
    private_key: String,
    public_key: Vec<u8>,
}

impl ServiceAccount {
    /// Makes an account; `None`, reported as a skip, when there is no `openssl`, which makes the key.
    ///
    /// # Panics
    /// When it makes none.
    pub fn new() -> Option<Self> {
        let openssl = tools::require("openssl")?;
        let run = |arguments: &[&str], input: &[u8]| {
            let mut command = Command::new(&openssl);
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "openssl {arguments:?} failed");
            output.stdout
        };
        let private_key = run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"");
        let public_key = run(&["rsa", "-RSAPublicKey_out", "-outform", "DER"], &private_key);
        Some(Self {
            email: format!("reader-{}@test.iam.gserviceaccount.com", nonce()),
            key_id: nonce(),
            private_key: String::from_utf8(private_key).unwrap(),
            public_key,
        })
    }

    /// Its key file. The token endpoint in it must never be asked.
    pub fn json(&self) -> String {
        let Self { email, key_id, private_key, .. } = self;
        json!({
            "type": "service_account",
            "project_id": "test",
            "private_key_id": key_id,
            "private_key": private_key,
            "client_email": email,
            "client_id": "1",
            "token_uri": "http://169.254.169.254/never-asked",
            "universe_domain": "googleapis.com",
        })
        .to_string()
    }

    /// Whether this is a token that the account has signed itself, as AIP-4111 says: for one hour from now, and for
    /// reading only.
    pub(super) fn has_signed(&self, token: &str) -> bool {
        self.signed_claims(token).is_some_and(|(header, claims)| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let (issued, expires) = (claims["iat"].as_u64().unwrap_or(0), claims["exp"].as_u64().unwrap_or(0));
            header["alg"] == "RS256"
                && header["kid"] == self.key_id.as_str()
                && claims["iss"] == self.email.as_str()
                && claims["sub"] == self.email.as_str()
                && claims["scope"] == SCOPE
                && issued.abs_diff(now) < 60
                && now < expires
                && expires <= issued + 3600
        })
    }

    fn signed_claims(&self, token: &str) -> Option<(Value, Value)> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        key.verify(signed.as_bytes(), &signature).ok()?;
        let json = |part| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some((json(header)?, json(claims)?))
    }
}
