//! Every source passes the suite of `tests/support`, over servers that this project did not write wherever there are some.

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "git")]
mod git;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "oci")]
mod oci;
#[cfg(feature = "s3")]
mod s3;
