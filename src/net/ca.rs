//! Certificate authorities that an operator trusts besides the system's: company CAs, self-signed object stores.

use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

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
            let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
                Error::with_source(ErrorKind::FailedPrecondition, refused("is not in the PEM format"), error)
            })?;
            if found.is_empty() {
                let problem = refused("holds no certificate: it must have \"BEGIN CERTIFICATE\" blocks");
                return Err(Error::new(ErrorKind::FailedPrecondition, problem));
            }
            all.extend(found);
        }
        Ok(Self(all))
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = reqwest::Certificate> + '_ {
        self.0.iter().cloned()
    }
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
