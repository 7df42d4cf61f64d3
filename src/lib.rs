//! Resolves a model URI, downloads it into a verified content-addressed cache.
//!
//! ```text
//! ModelRequest --open--> Source --list--> Manifest --transfer--> Snapshot (a directory of verified files)
//!    (model)            (source)         (manifest)  (fetch)      (cache)
//! ```
//!
//! No gRPC, no Kubernetes, no `mount(2)`: those live in the plugin, on top of this crate. Arrows inside point one way:
//! `cache` names no scheme, `source` never touches the cache, `fetch` joins the two.

pub mod credentials;
pub mod error;
pub mod manifest;
pub mod policy;
pub mod select;
pub mod uri;

pub use credentials::{Credentials, Secret};
pub use error::{Error, ErrorKind, Result};
pub use manifest::{Digest, Entry, Manifest, RelPath};
pub use policy::Policy;
pub use select::Selection;
pub use uri::{ModelUri, Scheme};
