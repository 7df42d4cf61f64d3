//! ModelScope: repositories of models.
//!
//! | request | what it answers |
//! | --- | --- |
//! | `GET /api/v1/models/o/n/repo/files?Revision=&Recursive=&Root=` | a directory, cut at 3,000 entries |
//! | `GET`, `HEAD /api/v1/models/o/n/repo?Revision=&FilePath=` | a file: small ones whole, whatever range is asked for; those of git LFS by a redirect to the object store |
//! | `GET /api/v1/models/o/n` | what kind of repository it is |
//!
//! Tokens come as bearer or as the cookie `m_session_id`. A revision that is not there lists as `null`, without an error;
//! of the commit that was listed only the beginning is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Access, Commit, File, ObjectStore, Repositories, Repository, Signer, Who, target};
use crate::script::{Request, Response, ScriptedServer};

/// Most entries of a listing.
const MOST: usize = 3000;
/// The hub's codes.
const NO_RECORD: i64 = 10_010_205_001;
const NO_FILE: i64 = 10_990_101_007;

/// A running emulator.
#[derive(Debug)]
pub struct ModelScopeHub {
    hub: ScriptedServer,
    store: ObjectStore,
    repositories: Repositories,
}

impl ModelScopeHub {
    /// Starts a hub without repositories.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let store = ObjectStore::start().await;
        let repositories = Repositories::default();
        let script = Script { repositories: Arc::clone(&repositories), signer: store.signer() };
        let hub = ScriptedServer::start(move |request| script.answer(request)).await;
        Self { hub, store, repositories }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.hub.url()
    }

    /// Its address, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        self.hub.address()
    }

    /// Adds a commit to `master` of the repository `owner/name`, which is made if need be.
    pub fn put(&self, repository: &str, path: &str, bytes: impl Into<Bytes>) {
        self.put_all(repository, "master", [(path.to_owned(), bytes.into())]);
    }

    /// Adds one commit with all of these files to a branch.
    pub fn put_all(&self, repository: &str, branch: &str, files: impl IntoIterator<Item = (String, Bytes)>) {
        let changes = files.into_iter().map(|(path, bytes)| (path, Some(bytes)));
        self.with(repository, |repository| repository.commit(branch, changes));
    }

    /// The commit that a revision stands for.
    pub fn commit(&self, repository: &str, revision: &str) -> String {
        self.with(repository, |repository| repository.at(revision).expect("the revision exists").id.clone())
    }

    /// Sets who may read a repository.
    pub fn set_access(&self, repository: &str, access: Access) {
        self.with(repository, |repository| repository.access = access);
    }

    /// Replaces content behind the hub's back: the object store has other bytes than git LFS names.
    pub fn corrupt_store(&self, old: &[u8], new: impl Into<Bytes>) {
        self.store.objects.lock().unwrap().insert(modelmount::Digest::of(old).hex(), new.into());
    }

    /// All requests to the hub so far.
    pub fn requests(&self) -> Vec<Request> {
        self.hub.requests()
    }

    /// All requests to the object store so far.
    pub fn store_requests(&self) -> Vec<Request> {
        self.store.server.requests()
    }

    fn with<T>(&self, repository: &str, work: impl FnOnce(&mut Repository) -> T) -> T {
        work(self.repositories.lock().unwrap().entry(repository.to_owned()).or_default())
    }
}

struct Script {
    repositories: Repositories,
    signer: Signer,
}

impl Script {
    fn answer(&self, request: &Request) -> Response {
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let cookie = request.header("cookie").and_then(|value| value.strip_prefix("m_session_id="));
        let who = Who::of_token(bearer.or(cookie));
        if who == Who::Unknown {
            return refusal(401, 10_010_103_009, "token is invalid or expired");
        }
        let (path, query) = target(request);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let ["api", "v1", "models", owner, name, question @ ..] = path.as_slice() else {
            return refusal(404, NO_RECORD, "not found");
        };
        let repositories = self.repositories.lock().unwrap();
        let Some(repository) = repositories.get(&format!("{owner}/{name}")) else {
            return refusal(404, NO_RECORD, "record not found");
        };
        if repository.access == Access::Private && who != Who::Reader {
            return refusal(403, NO_RECORD, "access denied");
        }
        let revision = query.get("Revision").map_or("master", String::as_str);
        let commit = repository.at(revision);
        match question {
            [] => envelope(&json!({ "Path": owner, "Name": name, "Revision": "master" })),
            ["repo", "files"] => list(commit, &query),
            ["repo"] => {
                if repository.access == Access::Gated && who != Who::Reader {
                    return refusal(403, NO_RECORD, "access denied");
                }
                let path = query.get("FilePath").map_or("", String::as_str);
                match commit.and_then(|commit| commit.files.get(path)) {
                    Some(file) => self.content(path, file),
                    None => refusal(404, NO_FILE, "file not found"),
                }
            }
            _ => refusal(404, NO_RECORD, "not found"),
        }
    }

    fn content(&self, path: &str, file: &File) -> Response {
        match File::is_large(path) {
            true => Response::new(302).header("location", self.signer.sign(file)),
            false => Response::new(200).header("accept-ranges", "bytes").body(file.bytes.clone()),
        }
    }
}

fn list(commit: Option<&Commit>, query: &BTreeMap<String, String>) -> Response {
    let Some(commit) = commit else {
        return envelope(&json!({ "Files": null, "IsVisual": 0, "LatestCommitter": null }));
    };
    let recursive = query.get("Recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let root = query.get("Root").map_or("", |root| root.trim_matches('/'));
    let Some(entries) = commit.list(root, recursive) else { return refusal(404, NO_FILE, "path not found") };
    let files: Vec<Value> = entries.iter().take(MOST).map(|(path, file)| node(path, *file, commit)).collect();
    let committer = json!({ "Id": "", "ShortId": &commit.id[..8], "Name": "somebody" });
    envelope(&json!({ "Files": files, "IsVisual": 0, "LatestCommitter": committer }))
}

fn node(path: &str, file: Option<&File>, commit: &Commit) -> Value {
    let name = path.rsplit('/').next();
    match file {
        Some(file) => json!({
            "Path": path, "Name": name, "Type": "blob", "Size": file.bytes.len(), "Sha256": file.sha256(),
            "Revision": file.changed, "IsLFS": File::is_large(path), "Mode": "33188", "InCheck": false,
        }),
        None => json!({ "Path": path, "Name": name, "Type": "tree", "Size": 0, "Sha256": "", "Revision": commit.id }),
    }
}

fn envelope(data: &Value) -> Response {
    let body = json!({ "Code": 200, "Data": data, "Message": "success", "RequestId": "0", "Success": true });
    Response::new(200).header("content-type", "application/json; charset=utf-8").body(body.to_string())
}

fn refusal(status: u16, code: i64, message: &str) -> Response {
    let body = json!({ "Code": code, "Data": null, "Message": message, "RequestId": "0", "Success": false });
    Response::new(status).header("content-type", "application/json; charset=utf-8").body(body.to_string())
}
