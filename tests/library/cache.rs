//! The cache on its own: who may open it, what a crash leaves, and what is believed.

mod crash;
#[cfg(feature = "s3")]
mod kill;
mod opening;
mod random;
mod tampering;
