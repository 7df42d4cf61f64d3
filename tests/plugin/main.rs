//! The plugin, as kubelet sees it: the real binary, its socket, real mounts, real servers.
//!
//! ```text
//! Pod --gRPC--> Plugin (the binary) --HTTP--> Proxy (throttles, cuts, counts) --> versitygw, nginx
//! ```
//!
//! Tests that mount are called `privileged_*` and need root. Every plugin has directories of its own, and whatever is
//! mounted below them is unmounted when it is dropped, which a panic does too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod command;
mod controller;
mod deadline;
mod flight;
mod harness;
mod kubelet;
mod measuring;
mod network;
mod page;
mod pod;
mod privileges;
mod probes;
mod publish;
mod refusal;
mod registration;
mod resolve;
mod restart;
mod resume;
mod reuse;
mod secrets;
mod selinux;
mod several;
mod store;
mod taint;
mod unpublish;
mod writing;
