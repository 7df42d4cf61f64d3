//! Kubelet's registration of plugins, generated from `proto/pluginregistration.proto` (kubelet 1.37, unmodified).

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::clone_on_ref_ptr,
    reason = "generated code"
)]
mod generated {
    tonic::include_proto!("pluginregistration");
}

pub use generated::*;
