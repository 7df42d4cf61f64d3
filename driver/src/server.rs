//! Serves gRPC on a unix socket, the way kubelet and the sidecars expect it.
//!
//! A plugin that crashed leaves its socket behind, so a socket is replaced if nobody listens on it; one that somebody
//! serves is never taken away. The socket is never accessible to more than its owner and group. On shutdown it
//! vanishes first, so that whoever comes next finds either a plugin that answers or no socket.
//!
//! Knows nothing of the services that it serves.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tonic::transport::server::Router;

use crate::endpoint::{EndpointError, socket_path};

mod authority;

use authority::Lenient;

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// How often a socket is looked for that should be there.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long to wait before accepting again after the system has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Somebody else is there.
    #[error("another plugin is serving on {path:?}; stop it first, or choose another path")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file that nobody would expect there.
    #[error("{path:?} exists and is not a socket; it was left alone: remove it, or choose another path")]
    NotSocket {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("can't {action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The transport gave up.
    #[error("can't go on serving")]
    Transport(#[source] tonic::transport::Error),
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every call was answered.
    Drained,
    /// The grace period was over before the last call was.
    CutShort,
}

/// A socket on which clients can connect already, and wait.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    // Tells our socket from one that somebody has put in its place.
    inode: (u64, u64),
}

impl Server {
    /// Starts to listen on `endpoint` (see [`socket_path`]), whose directory must exist. Needs a tokio runtime.
    pub async fn bind(endpoint: &str) -> Result<Self, ServerError> {
        let path = socket_path(endpoint)?;
        remove_stale(&path).await?;
        let at = |action| {
            let path = path.clone();
            move |source: io::Error| ServerError::Io { action, path, source }
        };
        let socket = UnixSocket::new_stream().map_err(at("make a socket for"))?;
        // bind(2) gives the file the socket's mode without what the umask forbids. Set before, no umask can make the
        // file too open; set after, none can make it too closed. The umask itself belongs to the whole process.
        fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE)).map_err(|errno| at("restrict the socket")(errno.into()))?;
        socket.bind(&path).map_err(at("bind a socket to"))?;
        fs::set_permissions(&path, Permissions::from_mode(SOCKET_MODE)).map_err(at("set the mode of"))?;
        let inode = inode(&path).map_err(at("look at"))?;
        let listener = socket.listen(BACKLOG).map_err(at("listen on"))?;
        Ok(Self { listener, path, inode })
    }

    /// Is ready when the socket is not at its path any more, because somebody removed or replaced it: nobody can connect
    /// then, however well it is served.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + 'static {
        let (path, own) = (self.path.clone(), self.inode);
        async move {
            let mut ticks = tokio::time::interval(LOOK_INTERVAL);
            loop {
                ticks.tick().await;
                let path = path.clone();
                // Not on this thread: the disk may hang.
                if tokio::task::spawn_blocking(move || inode(&path)).await.is_ok_and(|found| is_other(&found, own)) {
                    return;
                }
            }
        }
    }

    /// Serves until `shutdown` is ready. Then the socket is removed, no call is accepted any more, and those in flight
    /// get `grace` to end; connections that remain end with the runtime.
    pub async fn serve(
        self,
        router: Router,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<Ended, ServerError> {
        let Self { listener, path, inode } = self;
        let (told, shutting_down) = oneshot::channel();
        let signal = async {
            shutdown.await;
            // Still listening: nobody can have taken the socket for a stale one and be in its place by right.
            remove_own(&path, inode);
            let _ = told.send(());
        };
        let too_late = async {
            match shutting_down.await {
                Ok(()) => tokio::time::sleep(grace).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            result = router.serve_with_incoming_shutdown(incoming(listener), signal) => {
                result.map(|()| Ended::Drained).map_err(ServerError::Transport)
            }
            () = too_late => Ok(Ended::CutShort),
        }
    }
}

/// Is ready on SIGTERM (kubelet) or SIGINT (a terminal). From this call on, neither kills the process.
pub fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn remove_stale(path: &Path) -> Result<(), ServerError> {
    let at = |action| move |source| ServerError::Io { action, path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServerError::NotSocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove the stale socket")(error)),
            _ => Ok(()),
        },
        Err(io::ErrorKind::NotFound) => Ok(()),
        // Whatever else went wrong (no permission, too many waiting): somebody may well be there.
        _ => Err(ServerError::InUse { path: path.to_path_buf() }),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Whether it is certain that a path does not lead to `own`.
fn is_other(found: &io::Result<(u64, u64)>, own: (u64, u64)) -> bool {
    match found {
        Ok(found) => *found != own,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn remove_own(path: &Path, own: (u64, u64)) {
    if inode(path).is_ok_and(|found| found == own)
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "the socket could not be removed");
    }
}

fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Lenient<UnixStream>>> {
    futures_util::stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(Lenient::new(stream)), listener)),
                // Usually too many open files. That passes; handed on, it would end the server.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
