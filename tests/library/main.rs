//! The library against real servers, broken networks, crashes and full disks.
//!
//! | module | what it holds the library to |
//! | --- | --- |
//! | `conformance` | every source does what [`modelmount::Source`] says |
//! | `s3` | keys, listings and refusals of three S3 servers |
//! | `transfer` | a model arrives whole, once, and resumable, whatever the network does |
//! | `cache` | what a crash leaves behind is put right, and wrong bytes are never served |
//! | `pull` | the same engine into a plain directory |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod cache;
mod conformance;
mod memory;
mod node;
mod pull;
mod s3;
mod transfer;
