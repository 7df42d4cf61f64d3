//! The `s3` source against three servers, beyond what every source must do.

mod keys;
mod refusals;
mod region;
mod scripted;
mod secrets;
