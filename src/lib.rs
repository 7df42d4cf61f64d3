//! Resolves a model URI, downloads it into a verified content-addressed cache.
//!
//! ```text
//! ModelRequest --open--> Source --list--> Manifest --join--> Transfer --wait--> Snapshot: a directory of verified files
//!    (model)            (source)         (manifest)          (fetch)            (cache)
//! ```
//!
//! No gRPC, no Kubernetes, no `mount(2)`: those live in the plugin, on top of this crate. Arrows inside point one way:
//! [`cache`] names no scheme, [`source`] never touches the cache, [`fetch`] joins the two.
//!
//! | feature | source |
//! | --- | --- |
//! | `s3` | Amazon S3 and compatible stores, `s3://` |
//! | `gcs` | Google Cloud Storage, `gs://` |
//! | `azure` | Azure Blob Storage and Azure Files, `az://`, `abfs(s)://`, and their URLs |
//! | `http` | web servers, `https://` and `http://` |
//! | `huggingface` | the Hugging Face hub and its mirrors, `hf://` |
//! | `git` | git repositories, `https://….git`, `git+https://` |
//! | `hdfs` | Hadoop's file system by WebHDFS, `hdfs://`, `webhdfs://`, `swebhdfs://` |
//! | `oci` | models in container registries, `oci://` |
//! | `modelscope` | ModelScope, `modelscope://` |
//! | `file` | directories of this machine, `file://` |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed"))]
#![allow(clippy::cast_possible_truncation, reason = "the crate is for 64-bit Linux")]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("modelmount is for 64-bit Linux");

pub mod cache;
pub mod content;
pub mod credentials;
pub mod error;
pub mod fetch;
pub mod manifest;
pub mod model;
#[cfg(feature = "net")]
pub mod net;
pub mod policy;
pub mod select;
pub mod size;
pub mod source;
pub mod unpack;
pub mod uri;

pub use cache::{Cache, Snapshot};
pub use content::Content;
pub use credentials::{Credentials, Secret};
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Limits, Transfers};
pub use manifest::{Digest, Entry, Manifest, RelPath};
pub use model::{Model, ModelRequest};
pub use policy::Policy;
pub use select::Selection;
pub use source::{Context, Source};
pub use uri::{ModelUri, Scheme};
