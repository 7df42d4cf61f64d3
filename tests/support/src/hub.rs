//! Emulators of model hubs, which no one can install: what they answer is taken from the hubs' own clients, and those
//! clients download from them in the tests.
//!
//! Both keep repositories with a history, as git does, and redirect downloads of large files to an object store at
//! another origin by signed URLs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use modelmount::Digest;
use percent_encoding::percent_decode_str;
use sha1::{Digest as _, Sha1};

use crate::launch::nonce;
use crate::script::{Request, Response, ScriptedServer};

mod huggingface;
mod modelscope;

pub use huggingface::HuggingFaceHub;
pub use modelscope::ModelScopeHub;

/// A token that may read everything.
pub const READER: &str = "hub-reader-CANARY0123456789";
/// A token of an account that was given no right to anything that is not public.
pub const GUEST: &str = "hub-guest-CANARY9876543210";

/// Who may read a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Everybody may list it, and only who accepted its terms may read it.
    Gated,
    /// Only its owner, and nobody else learns that it is there.
    Private,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Guest,
    Reader,
    /// A token that the hub does not know.
    Unknown,
}

impl Who {
    fn of_token(token: Option<&str>) -> Self {
        match token {
            None => Self::Nobody,
            Some(READER) => Self::Reader,
            Some(GUEST) => Self::Guest,
            Some(_) => Self::Unknown,
        }
    }
}

/// The repositories of a hub, by name.
type Repositories = Arc<Mutex<BTreeMap<String, Repository>>>;

#[derive(Debug, Default)]
struct Repository {
    access: Access,
    /// The name that it has now, if it was renamed.
    moved: Option<String>,
    commits: Vec<Commit>,
    /// Branches and tags.
    revisions: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Commit {
    id: String,
    files: BTreeMap<String, File>,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    /// The commit that changed it last.
    changed: String,
}

impl File {
    /// Whether it is kept in git LFS: by its name, as the hubs' `.gitattributes` say.
    fn is_large(path: &str) -> bool {
        [".bin", ".safetensors", ".gguf"].iter().any(|ending| path.ends_with(ending))
    }

    fn sha256(&self) -> String {
        Digest::of(&self.bytes).hex()
    }

    /// The name that git gives its content.
    fn git_id(&self) -> String {
        git_id("blob", &self.bytes)
    }
}

fn git_id(kind: &str, bytes: &[u8]) -> String {
    let hasher = Sha1::new_with_prefix(format!("{kind} {}\0", bytes.len())).chain_update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Repository {
    /// Adds a commit on `branch` that puts these files, and leaves the others.
    fn commit(&mut self, branch: &str, changes: impl IntoIterator<Item = (String, Option<Bytes>)>) {
        let parent = self.revisions.get(branch).map(|i| &self.commits[*i]);
        let mut files = parent.map(|commit| commit.files.clone()).unwrap_or_default();
        let id = git_id("commit", format!("{branch} {}", self.commits.len()).as_bytes());
        for (path, bytes) in changes {
            match bytes {
                Some(bytes) => drop(files.insert(path, File { bytes, changed: id.clone() })),
                None => drop(files.remove(&path)),
            }
        }
        self.revisions.insert(branch.to_owned(), self.commits.len());
        self.commits.push(Commit { id, files });
    }

    /// What a branch, a tag, a commit or the beginning of one stands for.
    fn at(&self, revision: &str) -> Option<&Commit> {
        let named = self.revisions.get(revision).map(|i| &self.commits[*i]);
        let hexadecimal = revision.len() >= 7 && revision.bytes().all(|b| b.is_ascii_hexdigit());
        named.or_else(|| self.commits.iter().find(|commit| hexadecimal && commit.id.starts_with(revision)))
    }
}

impl Commit {
    /// What lies in a directory, in the order of paths: files by path, directories without one. `None` when there is no
    /// such directory.
    fn list(&self, directory: &str, recursive: bool) -> Option<Vec<(String, Option<&File>)>> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let mut entries = BTreeMap::new();
        for (path, file) in self.files.iter().filter(|(path, _)| path.starts_with(&prefix)) {
            for (i, _) in path[prefix.len()..].match_indices('/') {
                entries.insert(path[..prefix.len() + i].to_owned(), None);
            }
            entries.insert(path.clone(), Some(file));
        }
        if entries.is_empty() && !directory.is_empty() {
            return None;
        }
        Some(entries.into_iter().filter(|(path, _)| recursive || !path[prefix.len()..].contains('/')).collect())
    }
}

/// Where large files are downloaded from: signed URLs of another origin, as of S3. A request that brings credentials
/// besides the signature is refused, as S3 refuses it.
#[derive(Debug)]
struct ObjectStore {
    server: ScriptedServer,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    signature: String,
}

impl ObjectStore {
    async fn start() -> Self {
        let objects: Arc<Mutex<BTreeMap<String, Bytes>>> = Arc::default();
        let signature = nonce();
        let (shared, expected) = (Arc::clone(&objects), format!("signature={signature}"));
        let server = ScriptedServer::start(move |request| {
            let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
            if request.header("authorization").is_some() || request.header("cookie").is_some() {
                return Response::new(400).body("Only one auth mechanism allowed");
            }
            if query != expected || request.method != "GET" {
                return Response::new(403).body("SignatureDoesNotMatch");
            }
            let objects = shared.lock().unwrap();
            match objects.get(path.trim_start_matches('/')) {
                Some(bytes) => Response::content(request, bytes)
                    .header("etag", format!("\"{}\"", &path[1..33]))
                    .header("accept-ranges", "bytes"),
                None => Response::new(404).body("NoSuchKey"),
            }
        })
        .await;
        Self { server, objects, signature }
    }

    /// Where it is reached from a script: the server itself belongs to the hub.
    fn signer(&self) -> Signer {
        Signer { url: self.server.url(), signature: self.signature.clone(), objects: Arc::clone(&self.objects) }
    }
}

#[derive(Clone, Debug)]
struct Signer {
    url: String,
    signature: String,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl Signer {
    /// A signed URL of this content.
    fn sign(&self, file: &File) -> String {
        let name = file.sha256();
        self.objects.lock().unwrap().entry(name.clone()).or_insert_with(|| file.bytes.clone());
        format!("{}/{name}?signature={}", self.url, self.signature)
    }
}

/// A request's path, decoded segment by segment, and its query.
fn target(request: &Request) -> (Vec<String>, BTreeMap<String, String>) {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    (path.split('/').skip(1).map(decode).collect(), form(query).collect())
}

/// The pairs of a form or a query.
fn form(text: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
