//! WebHDFS: a real Hadoop, and a script for what a real one does not do on demand.

use std::sync::Arc;

use modelmount::model::MODEL_URI;
use modelmount::{Credentials, Error, Manifest, Source};
use modelmount_test_support::Hdfs;
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::hdfs::OWNER;

mod identity;
mod refusals;
mod scripted;

use crate::single::resolve;

/// A directory of a real HDFS.
pub(crate) struct Directory {
    pub(crate) hdfs: Arc<Hdfs>,
    pub(crate) path: String,
}

impl Directory {
    /// `None`, reported as a skip, when Hadoop is not installed.
    pub(crate) async fn new() -> Option<Self> {
        let hdfs = Hdfs::shared().await?;
        let path = hdfs.new_directory().await;
        Some(Self { hdfs, path })
    }

    pub(crate) async fn put(&self, path: &str, bytes: &[u8]) {
        self.hdfs.put(&format!("{}/{path}", self.path), bytes.to_vec()).await;
    }

    /// By the form of URI that names the namenode.
    pub(crate) fn attributes(&self, path: &str) -> Attributes {
        let authority = self.hdfs.url().replace("http://", "");
        uri(&format!("webhdfs://{authority}{}/{path}", self.path))
    }

    /// By the namenode named beside the URI, which is then all path.
    pub(crate) fn attributes_with_tls(&self, path: &str) -> Attributes {
        uri_at(&format!("hdfs://{}/{path}", &self.path[1..]), &self.hdfs.tls_url())
    }

    async fn resolve(&self, path: &str) -> Result<(Arc<dyn Source>, Manifest), Error> {
        resolve(&self.attributes(path), &user(OWNER)).await
    }
}

pub(crate) fn uri(uri: &str) -> Attributes {
    [(MODEL_URI.to_owned(), uri.to_owned())].into()
}

/// As [`uri`], with the namenodes named beside it.
fn uri_at(uri: &str, namenode: &str) -> Attributes {
    [(MODEL_URI, uri), ("namenode", namenode)].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

pub(crate) fn user(name: &str) -> Credentials {
    secret(&[("HADOOP_USER_NAME", name)])
}

/// A client certificate, and the authority that signed the server's.
pub(crate) fn with_certificate(hdfs: &Hdfs, name: &str) -> Credentials {
    let certificates = hdfs.certificates();
    secret(&[
        ("HADOOP_USER_NAME", name),
        ("TLS_CA", &certificates.ca_pem),
        ("TLS_CERT", &certificates.client_pem),
        ("TLS_KEY", &certificates.client_key_pem),
    ])
}

fn secret(pairs: &[(&str, &str)]) -> Credentials {
    pairs.iter().copied().collect()
}
