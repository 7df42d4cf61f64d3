//! The Hugging Face hub: repositories of models and data sets.
//!
//! | request | what it answers |
//! | --- | --- |
//! | `GET /api/models/o/n/revision/R` | the commit that `R` stands for; without `/revision/R`, that of `main` |
//! | `GET /api/models/o/n/tree/R/path` | a directory, in pages that `Link` leads through |
//! | `POST /api/models/o/n/paths-info/R` | what lies at these paths |
//! | `GET`, `HEAD /o/n/resolve/R/path` | a file: small ones by a redirect inside the hub, those of git LFS by one to the object store |
//!
//! The same with `/api/datasets/` and `/datasets/`. A gated repository may be listed by all; a private one is not there
//! for those who may not read it. A renamed one redirects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Access, Commit, File, ObjectStore, Repositories, Repository, Signer, Who, form, target};
use crate::script::{Request, Response, ScriptedServer};

/// A running emulator.
#[derive(Debug)]
pub struct HuggingFaceHub {
    hub: ScriptedServer,
    store: ObjectStore,
    repositories: Repositories,
    page: Arc<Mutex<usize>>,
}

impl HuggingFaceHub {
    /// Starts a hub without repositories.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let store = ObjectStore::start().await;
        let (repositories, page) = (Repositories::default(), Arc::new(Mutex::new(1000)));
        let script =
            Script { repositories: Arc::clone(&repositories), page: Arc::clone(&page), signer: store.signer() };
        let hub = ScriptedServer::start(move |request| script.answer(request)).await;
        Self { hub, store, repositories, page }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.hub.url()
    }

    /// Its address, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        self.hub.address()
    }

    /// Adds a commit to `main` of the repository (`owner/name`, or `datasets/owner/name`), which is made if need be.
    pub fn put(&self, repository: &str, path: &str, bytes: impl Into<Bytes>) {
        self.put_all(repository, "main", [(path.to_owned(), bytes.into())]);
    }

    /// Adds one commit with all of these files to a branch.
    pub fn put_all(&self, repository: &str, branch: &str, files: impl IntoIterator<Item = (String, Bytes)>) {
        let changes = files.into_iter().map(|(path, bytes)| (path, Some(bytes)));
        self.with(repository, |repository| repository.commit(branch, changes));
    }

    /// Adds a commit to `main` without this file.
    pub fn remove(&self, repository: &str, path: &str) {
        self.with(repository, |repository| repository.commit("main", [(path.to_owned(), None)]));
    }

    /// Lets another branch, tag or reference stand for what `main` stands for now.
    pub fn tag(&self, repository: &str, name: &str) {
        self.with(repository, |repository| {
            let main = repository.revisions["main"];
            repository.revisions.insert(name.to_owned(), main);
        });
    }

    /// The commit that a revision stands for.
    pub fn commit(&self, repository: &str, revision: &str) -> String {
        self.with(repository, |repository| repository.at(revision).expect("the revision exists").id.clone())
    }

    /// Sets who may read a repository.
    pub fn set_access(&self, repository: &str, access: Access) {
        self.with(repository, |repository| repository.access = access);
    }

    /// Renames a repository.
    pub fn rename(&self, repository: &str, name: &str) {
        let old = self.with(repository, |repository| {
            std::mem::replace(repository, Repository { moved: Some(name.to_owned()), ..Repository::default() })
        });
        self.with(name, |repository| *repository = old);
    }

    /// Changes how many entries a page of a listing has.
    pub fn set_page(&self, entries: usize) {
        *self.page.lock().unwrap() = entries;
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
        let mut repositories = self.repositories.lock().unwrap();
        work(repositories.entry(full_name(repository)).or_default())
    }
}

/// `models/owner/name`, unless it has its kind already.
fn full_name(repository: &str) -> String {
    if repository.matches('/').count() == 2 { repository.to_owned() } else { format!("models/{repository}") }
}

struct Script {
    repositories: Repositories,
    page: Arc<Mutex<usize>>,
    signer: Signer,
}

impl Script {
    fn answer(&self, request: &Request) -> Response {
        let token = request.header("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        let who = Who::of_token(token);
        if who == Who::Unknown {
            return refusal(401, "", "Invalid credentials in Authorization header");
        }
        let (path, query) = target(request);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (kind, owner, name, question, rest) = match path.as_slice() {
            ["api", "resolve-cache", kind, owner, name, rest @ ..] => (*kind, owner, name, "resolve-cache", rest),
            ["api", kind @ ("models" | "datasets"), owner, name, question, rest @ ..] => {
                (*kind, owner, name, *question, rest)
            }
            ["api", kind @ ("models" | "datasets"), owner, name] => (*kind, owner, name, "revision", &[][..]),
            ["datasets", owner, name, "resolve", rest @ ..] => ("datasets", owner, name, "resolve", rest),
            [owner, name, "resolve", rest @ ..] => ("models", owner, name, "resolve", rest),
            _ => return refusal(404, "", "Sorry, we can't find the page you are looking for."),
        };
        let repositories = self.repositories.lock().unwrap();
        let id = format!("{kind}/{owner}/{name}");
        let found = repositories.get(&id);
        if let Some(moved) = found.and_then(|repository| repository.moved.as_deref()) {
            let moved = full_name(moved);
            let new = moved.strip_prefix("models/").filter(|_| question == "resolve").unwrap_or(&moved);
            let old = if question == "resolve" { id.strip_prefix("models/").unwrap_or(&id) } else { &id };
            return Response::new(307).header("location", request.target.replacen(old, new, 1));
        }
        let Some(repository) = found.filter(|repository| repository.access != Access::Private || who == Who::Reader)
        else {
            return match who {
                Who::Nobody => refusal(401, "RepoNotFound", "Invalid username or password."),
                _ => refusal(404, "RepoNotFound", "Repository not found"),
            };
        };
        let (revision, path) = rest.split_first().unwrap_or((&"main", &[]));
        let Some(commit) = repository.at(revision) else {
            return refusal(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
        };
        let path = path.join("/");
        match (request.method.as_str(), question) {
            ("GET", "revision") => json_response(&json!({
                "_id": "0", "id": format!("{owner}/{name}"), "sha": commit.id, "private": false, "siblings":
                    commit.files.keys().map(|path| json!({"rfilename": path})).collect::<Vec<_>>(),
            })),
            ("GET", "tree") => self.tree(request, commit, &path, &query),
            ("POST", "paths-info") => paths_info(request, commit),
            ("GET" | "HEAD", "resolve" | "resolve-cache") => {
                if repository.access == Access::Gated && who != Who::Reader {
                    let status = if who == Who::Nobody { 401 } else { 403 };
                    return refusal(status, "GatedRepo", &format!("Access to model {owner}/{name} is restricted."));
                }
                self.resolve(request, &id, commit, &path, question)
            }
            _ => refusal(404, "", "Cannot GET"),
        }
    }

    fn tree(&self, request: &Request, commit: &Commit, path: &str, query: &BTreeMap<String, String>) -> Response {
        let recursive = query.get("recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(entries) = commit.list(path, recursive) else {
            return refusal(404, "EntryNotFound", &format!("{path} does not exist on this tree"));
        };
        let start = query.get("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let page = *self.page.lock().unwrap();
        let shown: Vec<Value> = entries.iter().skip(start).take(page).map(|(path, file)| node(path, *file)).collect();
        let response = json_response(&shown);
        if start + page >= entries.len() {
            return response;
        }
        let host = request.header("host").unwrap_or_default();
        let base = request.target.split("&cursor=").next().unwrap_or_default();
        response.header("link", format!("<http://{host}{base}&cursor={}>; rel=\"next\"", start + page))
    }

    fn resolve(&self, request: &Request, id: &str, commit: &Commit, path: &str, question: &str) -> Response {
        let Some(file) = commit.files.get(path) else { return refusal(404, "EntryNotFound", "Entry not found") };
        let about = |response: Response| response.header("x-repo-commit", commit.id.clone());
        if File::is_large(path) {
            return about(Response::new(302))
                .header("location", self.signer.sign(file))
                .header("x-linked-etag", format!("\"{}\"", file.sha256()))
                .header("x-linked-size", file.bytes.len().to_string());
        }
        let etag = format!("\"{}\"", file.git_id());
        if question == "resolve" {
            let path = utf8_percent_encode(path, NON_ALPHANUMERIC).to_string().replace("%2F", "/");
            let location = format!("/api/resolve-cache/{id}/{}/{path}", commit.id);
            return about(Response::new(307)).header("location", location).header("x-linked-etag", etag);
        }
        about(Response::content(request, &file.bytes)).header("etag", etag).header("accept-ranges", "bytes")
    }
}

/// What lies at the paths of a JSON body, or of a form, as the Python client sends it.
fn paths_info(request: &Request, commit: &Commit) -> Response {
    let body = String::from_utf8_lossy(&request.body);
    let paths: Vec<String> = match serde_json::from_str::<Value>(&body) {
        Ok(json) => {
            json["paths"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Err(_) => form(&body).filter(|(name, _)| name == "paths").map(|(_, path)| path).collect(),
    };
    let found = paths.iter().filter_map(|path| match commit.files.get(path) {
        Some(file) => Some(node(path, Some(file))),
        None => commit.list(path, false).map(|_| node(path, None)),
    });
    json_response(&found.collect::<Vec<_>>())
}

fn node(path: &str, file: Option<&File>) -> Value {
    let Some(file) = file else {
        return json!({ "type": "directory", "oid": super::git_id("tree", path.as_bytes()), "size": 0, "path": path });
    };
    if !File::is_large(path) {
        return json!({ "type": "file", "oid": file.git_id(), "size": file.bytes.len(), "path": path });
    }
    let lfs = json!({ "oid": file.sha256(), "size": file.bytes.len(), "pointerSize": 134 });
    let oid = super::git_id("blob", file.sha256().as_bytes());
    json!({ "type": "file", "oid": oid, "size": file.bytes.len(), "path": path, "lfs": lfs })
}

fn json_response(value: &(impl serde::Serialize + ?Sized)) -> Response {
    let body = serde_json::to_vec(value).expect("JSON can be written");
    Response::new(200).header("content-type", "application/json; charset=utf-8").body(body)
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "error": message }).to_string();
    let response = Response::new(status).header("content-type", "application/json; charset=utf-8");
    let response = if code.is_empty() { response } else { response.header("x-error-code", code) };
    response.header("x-error-message", message.replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?")).body(body)
}
