//! Files of this machine: `file:///models/m`, a file or a directory, below a root that the operator allows.
//!
//! The kernel keeps every path below its root (`openat2` with `RESOLVE_BENEATH`): a symbolic link is followed to a
//! file as long as it stays below the root, as in a Hugging Face cache; one that leads out is refused.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{ByteStream, Context, Options, Portion, Registration, Source};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Entry, Item, Listing};
use crate::uri::ModelUri;

pub(super) const REGISTRATION: Registration = Registration {
    name: "file",
    forms: &["file:///path"],
    attributes: &[],
    place_keys: &[],
    claims: |uri| uri.scheme().as_str() == "file",
    open: |uri, options, credentials, context| Ok(Arc::new(Local::open(uri, options, credentials, context)?)),
};

const CHUNK: usize = 256 << 10;

#[derive(Clone, Debug)]
struct Local {
    uri: ModelUri,
    /// The allowed directory.
    root: PathBuf,
    /// The model, relative to the root; empty for the root itself.
    path: PathBuf,
}

impl Local {
    fn open(uri: &ModelUri, _: &Options, _: &Credentials, context: &Context) -> Result<Self> {
        let invalid = |problem: &str| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        if !matches!(uri.authority(), "" | "localhost") {
            return Err(invalid("names a host; write file:///path with three slashes"));
        }
        let path = Path::new(uri.path());
        if !path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
            || !path.is_absolute()
        {
            return Err(invalid("is not an absolute path without \"..\""));
        }
        let roots = context.policy.file_roots();
        let below =
            roots.iter().find_map(|root| path.strip_prefix(root).ok().map(|rest| (root.clone(), rest.to_owned())));
        let Some((root, path)) = below else {
            let text = if roots.is_empty() {
                format!(
                    "{uri}: file:// is switched off on this node; its operator can allow a directory with --allow-file-root"
                )
            } else {
                format!("{uri} is below none of the directories that this node's operator allows for file://")
            };
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        };
        Ok(Self { uri: uri.clone(), root, path })
    }

    /// Opens a path below the root, following links as long as they stay there.
    fn open_beneath(&self, path: &Path) -> Result<File> {
        let explain = |error: io::Error| {
            let shown = path.display();
            let uri = &self.uri;
            match error.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {
                    Error::new(ErrorKind::NotFound, format!("{uri}: there is no \"{shown}\" on this node"))
                }
                Some(nix::errno::Errno::EXDEV | nix::errno::Errno::ELOOP) => Error::new(
                    ErrorKind::PermissionDenied,
                    format!("{uri}: \"{shown}\" is a symbolic link that leads out of {}", self.root.display()),
                ),
                Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
                    Error::with_source(ErrorKind::PermissionDenied, format!("{uri}: may not read \"{shown}\""), error)
                }
                _ => Error::with_source(ErrorKind::Unavailable, format!("{uri}: can't open \"{shown}\""), error),
            }
        };
        let root = File::options().read(true).custom_flags(nix::libc::O_DIRECTORY).open(&self.root).map_err(explain)?;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            // Not to hang on a FIFO.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(root.as_fd(), path, how).map(File::from).map_err(|errno| explain(errno.into()))
    }

    fn metadata(&self, file: &File) -> Result<std::fs::Metadata> {
        file.metadata()
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, format!("{} can't be read", self.uri), error))
    }

    fn scan(&self) -> Result<Listing> {
        let store = format!("file|{}", self.root.display());
        let listing = |items, exact| Listing { store, revision: None, items, exact };
        let top = self.metadata(&self.open_beneath(&self.path)?)?;
        if top.is_file() {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            return Ok(listing(vec![item(&self.path, &name, &top)?], true));
        }
        let (mut items, mut count) = (Vec::new(), Count::default());
        let mut pending = vec![self.path.clone()];
        while let Some(directory) = pending.pop() {
            let failed =
                |error| Error::with_source(ErrorKind::Unavailable, format!("{} can't be listed", self.uri), error);
            for found in std::fs::read_dir(self.root.join(&directory)).map_err(failed)? {
                let found = found.map_err(failed)?;
                let path = directory.join(found.file_name());
                if !count.add(&path.to_string_lossy()) {
                    return Err(super::too_many(&self.uri));
                }
                let kind = found.file_type().map_err(failed)?;
                if kind.is_dir() {
                    pending.push(path);
                    continue;
                }
                let metadata = self.metadata(&self.open_beneath(&path)?)?;
                if !metadata.is_file() {
                    let text = format!(
                        "{}: \"{}\" is neither a file nor a directory (links to directories are not followed); exclude it \
                         from the directory",
                        self.uri,
                        path.display()
                    );
                    return Err(Error::new(ErrorKind::FailedPrecondition, text));
                }
                let name = path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy().into_owned();
                items.push(item(&path, &name, &metadata)?);
            }
        }
        Ok(listing(items, false))
    }

    /// Opens a listed file and checks that it is the version that was listed.
    fn open_entry(&self, entry: &Entry) -> Result<File> {
        let file = self.open_beneath(Path::new(&entry.locator))?;
        if Some(validator(&self.metadata(&file)?)) != entry.validator {
            return Err(self.changed(entry));
        }
        Ok(file)
    }

    fn changed(&self, entry: &Entry) -> Error {
        Error::new(ErrorKind::Changed, format!("{}: \"{}\" has changed since it was listed", self.uri, entry.path))
    }
}

fn item(path: &Path, name: &str, metadata: &std::fs::Metadata) -> Result<Item> {
    let locator = path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::FailedPrecondition, format!("the name {:?} is not UTF-8; rename it", path.display()))
    })?;
    let validator = Some(validator(metadata));
    Ok(Item {
        path: name.to_owned(),
        size: Some(metadata.len()),
        locator: locator.to_owned(),
        validator,
        digest: None,
        unpack: None,
    })
}

/// Device, inode, size and both times in nanoseconds: `ctime` can't be set back by `touch`.
fn validator(m: &std::fs::Metadata) -> String {
    format!("{}:{}:{}:{}.{}:{}.{}", m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, "reading files failed", error)))
}

#[async_trait]
impl Source for Local {
    async fn list(&self) -> Result<Listing> {
        let this = self.clone();
        blocking(move || this.scan()).await
    }

    async fn authorize(&self, entry: &Entry) -> Result<()> {
        let (this, entry) = (self.clone(), entry.clone());
        blocking(move || this.open_entry(&entry).map(drop)).await
    }

    async fn read(&self, entry: &Entry, portion: Portion) -> Result<ByteStream> {
        let (this, entry) = (self.clone(), entry.clone());
        let range = match portion {
            Portion::Whole => 0..entry.size.unwrap_or_default(),
            Portion::Range(range) => range,
        };
        let length = range.end - range.start;
        let opened = {
            let (this, entry) = (this.clone(), entry.clone());
            blocking(move || this.open_entry(&entry)).await?
        };
        let name = this.uri.to_string();
        let bytes = futures_util::stream::try_unfold((Arc::new(opened), range.start), move |(file, offset)| {
            let (this, entry, end) = (this.clone(), entry.clone(), range.end);
            async move {
                let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(CHUNK);
                if wanted == 0 {
                    // Somebody may have written to it in the meantime.
                    let (file, unchanged) = (Arc::clone(&file), this.clone());
                    let now = blocking(move || unchanged.metadata(&file)).await?;
                    return if Some(validator(&now)) == entry.validator { Ok(None) } else { Err(this.changed(&entry)) };
                }
                let reader = Arc::clone(&file);
                let chunk = blocking(move || {
                    let mut chunk = vec![0; wanted];
                    let read = reader.read_at(&mut chunk, offset).map_err(|error| {
                        Error::with_source(ErrorKind::Unavailable, format!("{} can't be read", this.uri), error)
                    })?;
                    chunk.truncate(read);
                    if read == 0 { Err(this.changed(&entry)) } else { Ok(Bytes::from(chunk)) }
                });
                let chunk = chunk.await?;
                let next = offset + chunk.len() as u64;
                Ok(Some((chunk, (file, next))))
            }
        });
        Ok(super::exactly(bytes.boxed(), Some(length), name))
    }
}
