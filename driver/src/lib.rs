//! The modelmount CSI driver: the Container Storage Interface on top of the [`modelmount`] library.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic"))]

pub mod capability;
pub mod client;
pub mod controller;
pub mod csi;
pub mod endpoint;
pub mod identity;
pub mod mount;
pub mod status;
