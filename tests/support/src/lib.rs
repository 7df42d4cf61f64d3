//! Servers, proxies and models for modelmount's tests and benchmarks.
//!
//! ```text
//! model   --put-->  s3 | gcs | azure | http  <--TCP--  proxy  <--  the code under test
//! (bytes)           (real servers)                     (faults of the network)
//!                   script               (faults of a server)
//!                   hub                  (services that can't be installed)
//!                   hosts                (names of the Internet)
//! ```
//!
//! Every server listens on a free loopback port, keeps its data in a temporary directory of its own, is ready when
//! `start` returns, and is gone when it is dropped, when the test panics, and when the test's process is killed.
//! A server whose program is not installed makes its test skip, loudly: see [`tools`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't set up its surroundings has failed, and the panic says where"
)]

pub mod azure_blob;
pub mod azure_files;
mod background;
pub mod conformance;
pub mod gcs;
pub mod git;
pub mod hdfs;
pub mod hosts;
pub mod http;
pub mod hub;
mod launch;
pub mod model;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod script;
pub mod tools;
pub mod wait;

pub use azure_blob::Azurite;
pub use azure_files::FileShares;
pub use gcs::GcsServer;
pub use git::GitServer;
pub use hdfs::Hdfs;
pub use hosts::Hosts;
pub use http::Nginx;
pub use hub::{HuggingFaceHub, ModelScopeHub};
pub use model::Pattern;
pub use process::Process;
pub use proxy::Proxy;
pub use registry::{Registry, RegistryKind};
pub use s3::{S3Kind, S3Server};
pub use script::ScriptedServer;
pub use wait::eventually;
