//! The library against real servers, broken networks, crashes and full disks. Built with some of the sources only, it
//! holds the tests of those: `cargo test --no-default-features --features s3 --test library`.
//!
//! | module | what it holds the library to |
//! | --- | --- |
//! | `conformance` | every source does what [`modelmount::Source`] says |
//! | `azure` | blobs and files: identities, forms of URI, refusals |
//! | `gcs` | tokens, refusals and checksums |
//! | `s3` | keys, listings and refusals of three S3 servers |
//! | `git` | git's own server, with SHA-1 and SHA-256, and Git LFS |
//! | `hdfs` | WebHDFS, at a real Hadoop |
//! | `oci` | what the usual tools push to two registries, tokens, mirrors, and registries that lie |
//! | `transfer` | a model arrives whole, once, and resumable, whatever the network does |
//! | `archives` | archives and layers are unpacked as they arrive, once, or refused and nothing of them kept |
//! | `cache` | what a crash leaves behind is put right, and wrong bytes are never served |
//! | `bucket`, `memory`, `node`, `single` | what the others share |
//! | `pull` | the same engine into a plain directory |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]
#![cfg_attr(
    not(all(feature = "s3", feature = "http", feature = "file")),
    allow(dead_code, unused_imports, reason = "what several sources share is not used by each alone")
)]

mod archives;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "s3")]
mod bucket;
mod cache;
mod conformance;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "git")]
mod git;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "huggingface")]
mod huggingface;
mod memory;
#[cfg(feature = "modelscope")]
mod modelscope;
mod node;
#[cfg(feature = "oci")]
mod oci;
mod pull;
#[cfg(feature = "s3")]
mod s3;
mod single;
#[cfg(all(feature = "s3", feature = "http"))]
mod transfer;
