//! The Container Storage Interface, generated from `proto/csi.proto` (release 1.13, unmodified).
//!
//! Messages that carry secrets have no `Debug`, so that none can be printed by accident (`build.rs`).

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
    tonic::include_proto!("csi.v1");
}

pub use generated::*;
