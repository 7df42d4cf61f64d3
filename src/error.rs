//! The library's error: a kind that a program can act on, a context that a person can act on, and a source.
//!
//! `Display` is the context alone and never repeats the source; [`Error::report`] joins the chain into one line. No
//! context may hold a secret: URIs are shown through [`crate::ModelUri`]'s `Display`, which drops user and query.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The result of every fallible operation of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type BoxedError = Box<dyn StdError + Send + Sync + 'static>;
type SharedError = Arc<dyn StdError + Send + Sync + 'static>;

/// What went wrong, as far as a caller needs to know it to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: repeating it unchanged is useless.
    InvalidArgument,
    /// The source answered, and has no such model (or bucket, or file).
    NotFound,
    /// The source does not know who asks: credentials are missing, wrong or expired.
    Unauthenticated,
    /// The source knows who asks and refuses; or this machine's policy refuses.
    PermissionDenied,
    /// The model is not in the state that the request demands, for instance not the digest that it named.
    FailedPrecondition,
    /// The source can't be reached, does not answer, or asks to come back later.
    Unavailable,
    /// No room on the disk, or another limit of this machine.
    ResourceExhausted,
    /// The content changed at the source between resolving and fetching.
    Changed,
    /// Bytes are not what their digest or length says.
    Corrupt,
    /// The server does not serve parts of this file; read the whole of it.
    RangesUnsupported,
    /// The operation was given up because nobody wanted its result any more.
    Cancelled,
    /// The file system failed.
    Io,
    /// A defect of this library.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may well succeed later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::ResourceExhausted | Self::Changed | Self::Cancelled | Self::Corrupt)
    }
}

/// An error: see the [module documentation](self). Cheap to clone, since several callers may wait for one download.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<SharedError>,
    wait: Option<Duration>,
}

impl Error {
    /// An error without a deeper cause. `context` is a clause for people: what failed, and what to do about it.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, wait: None }
    }

    /// An error caused by another.
    pub fn with_source(kind: ErrorKind, context: impl Into<String>, source: impl Into<BoxedError>) -> Self {
        Self { kind, context: context.into(), source: Some(source.into().into()), wait: None }
    }

    /// An error of the file system at the given action, its kind told from the operating system's code.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Io,
        };
        Self::with_source(kind, context, source)
    }

    /// What a program can act on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// How long the source asks to be left alone, if it does.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    #[cfg(feature = "net")]
    pub(crate) fn with_wait(self, wait: impl Into<Option<Duration>>) -> Self {
        Self { wait: wait.into(), ..self }
    }

    /// The same error with a wider context in front: "`context`: what was said before".
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.context = format!("{context}: {}", self.context);
        self
    }

    /// The whole chain in one line, outermost first, without repetitions.
    pub fn report(&self) -> String {
        let mut line = self.context.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries print their cause inside their own text; once is enough.
            if !text.is_empty() && !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

/// The beginning of a name from elsewhere, as an error's context has it: long enough to know it by, however long it is.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(120).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_never_repeats_the_source_and_report_tells_the_chain_once() {
        let inner = Error::with_source(ErrorKind::Unavailable, "can't reach the host", io::Error::other("refused"));
        let outer = Error::with_source(ErrorKind::Unavailable, "can't list s3://b/m", inner);
        assert_eq!(outer.to_string(), "can't list s3://b/m");
        assert_eq!(outer.report(), "can't list s3://b/m: can't reach the host: refused");
        assert_eq!(outer.within("pod x").to_string(), "pod x: can't list s3://b/m");
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::io("write", full).kind(), ErrorKind::ResourceExhausted);
        let broken = io::Error::from_raw_os_error(nix::libc::EIO);
        assert_eq!(Error::io("write", broken).kind(), ErrorKind::Io);
    }
}
