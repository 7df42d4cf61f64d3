//! A source in memory that counts what is read, stops where a test wants it to, and lies when told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use modelmount::manifest::{Item, Listing};
use modelmount::source::{ByteStream, Portion};
use modelmount::unpack::{Archives, Unpack};
use modelmount::{Digest, Entry, Error, ErrorKind, Manifest, Model, ModelUri, Selection, Source};
use modelmount_test_support::model::Files;
use tokio::sync::Semaphore;

/// What a stream yields at once.
const CHUNK: usize = 16 << 10;

/// A file's bytes, and how often it was put.
type Version = (Arc<Vec<u8>>, u64);

/// What a listing tells of files beside their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    All,
    Versions,
    Nothing,
}

/// A model in memory. Each file's validator is its version.
#[derive(Debug)]
pub(crate) struct Memory {
    files: Mutex<BTreeMap<String, Version>>,
    declared: Mutex<BTreeMap<String, Digest>>,
    /// Chunks that may yet be given.
    gate: Semaphore,
    /// Whether the gate counts at all.
    gated: bool,
    tells: Tells,
    read: AtomicU64,
    requests: AtomicU64,
}

impl Memory {
    pub(crate) fn new(files: &Files) -> Arc<Self> {
        Arc::new(Self::plain(files))
    }

    /// One that gives nothing until chunks are let through.
    pub(crate) fn gated(files: &Files) -> Arc<Self> {
        Arc::new(Self { gated: true, ..Self::plain(files) })
    }

    /// One that tells neither sizes nor versions.
    pub(crate) fn bare(files: &Files) -> Arc<Self> {
        Arc::new(Self { tells: Tells::Nothing, ..Self::plain(files) })
    }

    /// One that tells versions and no sizes.
    pub(crate) fn without_sizes(files: &Files) -> Arc<Self> {
        Arc::new(Self { tells: Tells::Versions, ..Self::plain(files) })
    }

    /// One that tells neither sizes nor versions, and gives nothing until chunks are let through.
    pub(crate) fn gated_bare(files: &Files) -> Arc<Self> {
        Arc::new(Self { gated: true, tells: Tells::Nothing, ..Self::plain(files) })
    }

    fn plain(files: &Files) -> Self {
        let files = files.iter().map(|(path, bytes)| (path.clone(), (Arc::new(bytes.clone()), 1))).collect();
        Self {
            files: Mutex::new(files),
            declared: Mutex::default(),
            gate: Semaphore::new(0),
            gated: false,
            tells: Tells::All,
            read: AtomicU64::default(),
            requests: AtomicU64::default(),
        }
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut files = self.files.lock().unwrap();
        let version = files.get(path).map_or(0, |(_, version)| *version) + 1;
        files.insert(path.to_owned(), (Arc::new(bytes), version));
    }

    /// Declares a digest, right or wrong.
    pub(crate) fn declare(&self, path: &str, digest: Digest) {
        self.declared.lock().unwrap().insert(path.to_owned(), digest);
    }

    /// Lets so many more chunks through, of [`CHUNK`] bytes or a request's last.
    pub(crate) fn let_through(&self, chunks: usize) {
        self.gate.add_permits(chunks);
    }

    /// Whether everything that was let through has been taken.
    pub(crate) fn is_waiting(&self) -> bool {
        self.gate.available_permits() == 0
    }

    /// Bytes given so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    /// Reads begun so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The manifest of all files now.
    pub(crate) async fn manifest(&self) -> Manifest {
        let uri = ModelUri::parse("s3://memory/model").unwrap();
        Manifest::build(&uri, self.list().await.unwrap(), &Selection::default(), Archives::Never).unwrap()
    }

    /// The manifest of all files now, some of which stand for the files in them.
    pub(crate) async fn manifest_unpacking(&self, how: impl Fn(&str) -> Option<Unpack>) -> Manifest {
        let uri = ModelUri::parse("s3://memory/model").unwrap();
        let mut listing = self.list().await.unwrap();
        for item in &mut listing.items {
            item.unpack = how(&item.path);
        }
        Manifest::build(&uri, listing, &Selection::default(), Archives::Never).unwrap()
    }

    /// The manifest of those files alone whose path begins so.
    pub(crate) async fn manifest_of(&self, prefix: &str) -> Manifest {
        let uri = ModelUri::parse(&format!("s3://memory/{prefix}")).unwrap();
        let selection = Selection::parse(Some(&format!("{prefix}*")), None).unwrap();
        Manifest::build(&uri, self.list().await.unwrap(), &selection, Archives::Never).unwrap()
    }
}

/// This very source, as the library takes it.
pub(crate) fn source(memory: &Arc<Memory>) -> Model {
    source_for(memory, &Account::default())
}

/// The same, opened with somebody's credentials.
pub(crate) fn source_for(memory: &Arc<Memory>, account: &Account) -> Model {
    let source: Arc<dyn Source> = Arc::new(Handle(Arc::clone(memory), account.clone()));
    source.into()
}

/// Somebody who may read, until the rights are taken away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account(Arc<Mutex<Option<ErrorKind>>>);

impl Account {
    /// From here on reads are refused so.
    pub(crate) fn refuse(&self, kind: ErrorKind) {
        *self.0.lock().unwrap() = Some(kind);
    }
}

#[derive(Debug)]
struct Handle(Arc<Memory>, Account);

#[async_trait]
impl Source for Handle {
    async fn list(&self) -> Result<Listing, Error> {
        self.0.list().await
    }

    async fn authorize(&self, _: &Entry) -> Result<(), Error> {
        Ok(())
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream, Error> {
        if let Some(kind) = *self.1.0.lock().unwrap() {
            return Err(Error::new(kind, "no longer"));
        }
        let memory = Arc::clone(&self.0);
        memory.requests.fetch_add(1, Ordering::SeqCst);
        let (bytes, version) = memory.files.lock().unwrap()[&entry.locator].clone();
        if entry.validator.as_ref().is_some_and(|validator| *validator != version.to_string()) {
            return Err(Error::new(ErrorKind::Changed, "it has changed"));
        }
        let (at, end) = match portion {
            Portion::Whole => (0, bytes.len()),
            Portion::Range(range) => (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap()),
        };
        let chunks = stream::unfold(at, move |at| {
            let (memory, bytes) = (Arc::clone(&memory), Arc::clone(&bytes));
            async move {
                if at == end {
                    return None;
                }
                if memory.gated {
                    memory.gate.acquire().await.unwrap().forget();
                }
                let next = end.min(at + CHUNK);
                memory.read.fetch_add((next - at) as u64, Ordering::SeqCst);
                Some((Ok(Bytes::copy_from_slice(&bytes[at..next])), next))
            }
        });
        Ok(chunks.boxed())
    }
}

impl Memory {
    async fn list(&self) -> Result<Listing, Error> {
        let declared = self.declared.lock().unwrap();
        let item = |(path, (bytes, version)): (&String, &Version)| Item {
            path: path.clone(),
            size: (self.tells == Tells::All).then_some(bytes.len() as u64),
            locator: path.clone(),
            validator: (self.tells != Tells::Nothing).then(|| version.to_string()),
            digest: declared.get(path).copied(),
            unpack: None,
        };
        let items = self.files.lock().unwrap().iter().map(item).collect();
        Ok(Listing { store: "memory".into(), revision: None, items, exact: false })
    }
}
