//! Azure Files: an emulator of the documented REST calls that reading takes, since there is no other.
//!
//! | call | as documented under |
//! | --- | --- |
//! | `GET share/directory?restype=directory&comp=list` | "List Directories and Files": pages, markers, ETags when asked for |
//! | `HEAD share/file` | "Get File Properties" |
//! | `GET share/file` | "Get File": `x-ms-range`, `Range` |
//!
//! Every request must be signed: with the account's key ("Authorize with Shared Key"), which is checked here by code of
//! its own, with an account's shared access signature ("Create an account SAS"), or with a token that the emulator was
//! told of. Errors carry their code in `x-ms-error-code`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::azure_blob::{Account, query};
use crate::script::{Request, Response, ScriptedServer};

mod listing;
mod signing;

/// Characters that no name on a share has ("Naming and referencing shares, directories, files").
const FORBIDDEN: &[char] = &['"', '\\', '/', ':', '|', '<', '>', '*', '?'];

/// A running emulator.
#[derive(Debug)]
pub struct FileShares {
    server: ScriptedServer,
    state: Arc<Mutex<State>>,
    account: Account,
}

/// What the emulator does on demand.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Entries of one page of a listing.
    pub page_size: usize,
    /// Whether listings tell ETags; older services do not.
    pub etags: bool,
    /// Whether files may be read, and not only listed.
    pub readable: bool,
    /// A bearer token that is good.
    pub token: Option<String>,
    /// So many requests are answered that the server is busy.
    pub busy: usize,
}

#[derive(Debug)]
struct State {
    account: Account,
    behaviour: Behaviour,
    shares: BTreeMap<String, Share>,
    changes: u64,
}

type Share = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File { content: Vec<u8>, etag: String, md5: Option<String> },
}

impl FileShares {
    /// Starts an emulator without shares.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let account = Account::new();
        let behaviour = Behaviour { page_size: 3, etags: true, readable: true, token: None, busy: 0 };
        let state = State { account: account.clone(), behaviour, shares: BTreeMap::new(), changes: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server = ScriptedServer::start(move |request| shared.lock().unwrap().answer(request)).await;
        Self { server, state, account }
    }

    /// Where it listens, for a proxy.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Its URL, without a slash at the end.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// The name of its account.
    pub fn account(&self) -> &str {
        &self.account.name
    }

    /// The account's key.
    pub fn key(&self) -> String {
        self.account.key_text()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// An account's shared access signature: permissions such as `rl`, and the time when it ends.
    pub fn signature(&self, permissions: &str, expiry: &str) -> String {
        let fields = [("sv", "2022-11-02"), ("ss", "f"), ("srt", "sco"), ("sp", permissions), ("se", expiry)];
        let signature = signing::account_signature(&self.account, &fields.into_iter().collect());
        query(&[fields.as_slice(), &[("sig", &signature)]].concat())
    }

    /// Changes what the emulator does.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state().behaviour);
    }

    /// Makes a share.
    pub fn create_share(&self, share: &str) {
        self.state().shares.insert(share.to_owned(), Share::new());
    }

    /// Makes a directory, and those that it lies in.
    ///
    /// # Panics
    /// As all that follow, when there is no such share, or a share can't have such a name.
    pub fn make_directory(&self, share: &str, path: &str) {
        let mut state = self.state();
        let nodes = state.shares.get_mut(share).expect("the share was made");
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for directory in ends.map(|end| &path[..end]).filter(|directory| !directory.is_empty()) {
            let name = directory.rsplit('/').next().unwrap_or_default();
            assert!(!name.is_empty() && !name.contains(FORBIDDEN), "no share has a name such as {name:?}");
            let node = nodes.entry(directory.to_owned()).or_insert(Node::Directory);
            assert!(matches!(node, Node::Directory), "{directory:?} is a file");
        }
    }

    /// Puts a file, and makes the directories that it lies in.
    pub fn put(&self, share: &str, path: &str, content: impl Into<Vec<u8>>) {
        self.put_with_md5(share, path, content, None);
    }

    /// As [`Self::put`], with what the file's writer says its MD5 is.
    pub fn put_with_md5(&self, share: &str, path: &str, content: impl Into<Vec<u8>>, md5: Option<&str>) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        assert!(!name.is_empty() && !name.contains(FORBIDDEN), "no share has a name such as {name:?}");
        self.make_directory(share, directory);
        let mut state = self.state();
        state.changes += 1;
        let etag = format!("\"0x8D{:012X}\"", state.changes);
        let file = Node::File { content: content.into(), etag, md5: md5.map(str::to_owned) };
        state.shares.get_mut(share).expect("the share was made").insert(path.to_owned(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        if self.behaviour.busy > 0 {
            self.behaviour.busy -= 1;
            return error(503, "ServerBusy");
        }
        let url = url::Url::parse(&format!("http://host{}", request.target)).expect("a request's target is a path");
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let is_listing = query.get("comp").is_some_and(|comp| comp == "list");
        let wanted = if is_listing { 'l' } else { 'r' };
        if let Err((status, code)) = signing::check(&self.account, &self.behaviour, request, &url, &query, wanted) {
            return error(status, code);
        }
        let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().expect("names are UTF-8");
        let path = path.trim_matches('/');
        let (share, path) = path.split_once('/').unwrap_or((path, ""));
        let Some(nodes) = self.shares.get(share) else { return error(404, "ShareNotFound") };
        if is_listing {
            return listing::answer(nodes, path, &query, request, &self.behaviour);
        }
        match nodes.get(path) {
            Some(Node::File { .. }) if !self.behaviour.readable => error(403, "AuthorizationPermissionMismatch"),
            Some(Node::File { content, etag, md5 }) => file(request, content, etag, md5.as_deref()),
            _ => error(404, "ResourceNotFound"),
        }
    }
}

fn file(request: &Request, content: &[u8], etag: &str, md5: Option<&str>) -> Response {
    let range = request.header("x-ms-range").or(request.header("range"));
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.map(|(first, last)| (first.parse::<usize>().unwrap_or(0), last.parse::<usize>().ok()));
    let headed = |status| {
        let response = Response::new(status).header("etag", etag).header("x-ms-type", "File");
        response.header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT").header("accept-ranges", "bytes")
    };
    let whole = |response: Response| match md5 {
        Some(md5) => response.header("content-md5", md5),
        None => response,
    };
    match (request.method.as_str(), range) {
        ("HEAD", _) => whole(headed(200)).header("content-length", content.len().to_string()),
        (_, None) => whole(headed(200)).body(content.to_vec()),
        (_, Some((first, _))) if first >= content.len() => error(416, "InvalidRange"),
        (_, Some((first, last))) => {
            let last = last.map_or(content.len() - 1, |last| last.min(content.len() - 1));
            let range = format!("bytes {first}-{last}/{}", content.len());
            headed(206).header("content-range", range).body(content[first..=last].to_vec())
        }
    }
}

/// An error as Azure writes it. What follows the code must never be shown.
fn error(status: u16, code: &str) -> Response {
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>CANARY-BODY</Message></Error>");
    Response::new(status).header("x-ms-error-code", code).header("content-type", "application/xml").body(xml)
}
