//! The modelmount CSI driver: the Container Storage Interface on top of the [`modelmount`] library.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic"))]

pub mod args;
pub mod capability;
pub mod client;
pub mod command;
pub mod controller;
pub mod csi;
pub mod deadline;
pub mod endpoint;
pub mod http_server;
pub mod identity;
pub mod kubernetes;
pub mod measured;
pub mod metrics;
pub mod mount;
pub mod node;
pub mod plugin;
pub mod preparation;
pub mod privileges;
pub mod probes;
pub mod publisher;
pub mod registration;
pub mod selinux;
pub mod server;
pub mod socket_directory;
pub mod status;
pub mod taint;
pub mod volume;
