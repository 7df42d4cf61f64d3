//! A certificate authority made for one test, and a server's certificate by it.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Certificates for a server: valid for `127.0.0.1`, `::1` and `localhost`, if it has no other names.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The CA's certificate.
    pub ca_pem: String,
    /// A client's certificate by the same CA.
    pub client_pem: String,
    /// The key that goes with it.
    pub client_key_pem: String,
}

impl Certificates {
    pub(crate) const CHAIN_FILE: &str = "server.pem";
    pub(crate) const KEY_FILE: &str = "server.key";

    /// Makes a new CA, and leaves the server's certificate and key in `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self::of(directory, &["127.0.0.1", "::1", "localhost"])
    }

    /// As [`Self::new`], for a server of these names.
    pub(crate) fn of(directory: &Path, names: &[&str]) -> Self {
        let mut ca = CertificateParams::default();
        // A CA's own: rustls refuses one that a server also shows as its own certificate.
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name.push(DnType::CommonName, "modelmount test CA");
        let key = KeyPair::generate().expect("keys can be made");
        let ca = CertifiedIssuer::self_signed(ca, key).expect("a CA can sign itself");
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let server = CertificateParams::new(names).expect("these are names");
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = server.signed_by(&key, &ca).expect("a CA can sign");
        fs::write(directory.join(Self::CHAIN_FILE), certificate.pem()).expect("a temporary directory is writable");
        fs::write(directory.join(Self::KEY_FILE), key.serialize_pem()).expect("a temporary directory is writable");
        let client_key = KeyPair::generate().expect("keys can be made");
        let client = CertificateParams::new(Vec::new()).expect("no names are needed");
        let client = client.signed_by(&client_key, &ca).expect("a CA can sign");
        Self { ca_pem: ca.pem(), client_pem: client.pem(), client_key_pem: client_key.serialize_pem() }
    }
}
