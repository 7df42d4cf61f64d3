//! Certificate authorities that an operator trusts besides the system's: company CAs, self-signed object stores.

use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
#[cfg(any(feature = "hdfs", feature = "s3"))]
use crate::manifest::Digest;

/// Certificates of authorities that may sign a server's certificate, in addition to the system's.
#[derive(Clone, Debug, Default)]
pub struct CaCertificates(Vec<reqwest::Certificate>);

impl CaCertificates {
    /// The certificates in all of these PEM files.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] with the file's name, when it can't be read or holds no certificate.
    pub fn read(files: &[impl AsRef<Path>]) -> Result<Self> {
        let mut all = Vec::new();
        for file in files {
            let file = file.as_ref();
            let refused = |problem: &str| format!("the CA file {} {problem}", file.display());
            let pem = fs::read(file)
                .map_err(|error| Error::with_source(ErrorKind::FailedPrecondition, refused("can't be read"), error))?;
            all.extend(parse(&pem).map_err(|problem| Error::new(ErrorKind::FailedPrecondition, refused(problem)))?);
        }
        Ok(Self(all))
    }

    /// The certificates of a PEM text that a caller brought.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    #[cfg(any(feature = "hdfs", feature = "s3"))]
    pub(crate) fn from_pem(pem: &[u8]) -> std::result::Result<Self, &'static str> {
        parse(pem).map(Self)
    }

    /// What the name of a store ends in whose servers authorities of a caller's own may vouch for. Who brings an authority
    /// could bring its server too: what that serves is nobody else's.
    #[cfg(any(feature = "hdfs", feature = "s3"))]
    pub(crate) fn mark(pem: Option<&str>) -> String {
        pem.map(|pem| format!("|{}", Digest::of(pem))).unwrap_or_default()
    }

    /// These certificates and those.
    #[cfg(any(feature = "hdfs", feature = "s3"))]
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = reqwest::Certificate> + '_ {
        self.0.iter().cloned()
    }
}

fn parse(pem: &[u8]) -> std::result::Result<Vec<reqwest::Certificate>, &'static str> {
    let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| "is not in the PEM format")?;
    if found.is_empty() {
        return Err("holds no certificate: it must have \"BEGIN CERTIFICATE\" blocks");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<CaCertificates> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        CaCertificates::read(&[file.path()])
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let missing = CaCertificates::read(&["/nonexistent/ca.pem"]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::FailedPrecondition);
        assert!(missing.report().contains("/nonexistent/ca.pem can't be read"), "{}", missing.report());
        for (content, words) in [
            (&b""[..], "holds no certificate"),
            (b"hello", "holds no certificate"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"),
            (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "is not in the PEM format"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "is not in the PEM format"),
        ] {
            let error = read(content).expect_err(words);
            assert!(error.report().contains(words), "{}", error.report());
        }
    }
}
