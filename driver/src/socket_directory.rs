//! The directory of the plugin's socket, `<kubelet>/plugins/<driver name>`: made at the start, gone after a clean stop,
//! so that an uninstall leaves nothing on the node.
//!
//! A directory is the plugin's own if it made it, or if it is called by the driver's name, as one is that an earlier
//! process left when it was killed. No other is ever removed, nor one in which there is anything.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Nobody but root has any business there.
const MODE: u32 = 0o750;

/// The directory can't be made.
#[derive(Debug, thiserror::Error)]
#[error("can't make the directory {path:?} of the socket")]
pub struct SocketDirectoryError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct SocketDirectory {
    path: PathBuf,
    own: bool,
}

impl SocketDirectory {
    /// Makes the directory of `socket` if there is none. The directory above must be there.
    ///
    /// # Errors
    /// The file system's.
    pub fn prepare(socket: &Path, driver_name: &str) -> Result<Self, SocketDirectoryError> {
        let path = socket.parent().unwrap_or(Path::new("/")).to_owned();
        let named = path.file_name().is_some_and(|name| name == driver_name);
        let made = match DirBuilder::new().mode(MODE).create(&path) {
            // Whatever the umask is.
            Ok(()) => fs::set_permissions(&path, Permissions::from_mode(MODE)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        };
        match made {
            Ok(made) => Ok(Self { path, own: made || named }),
            Err(source) => Err(SocketDirectoryError { path, source }),
        }
    }

    /// Removes it if it is the plugin's own and empty.
    pub fn remove(self) {
        if !self.own {
            return;
        }
        match fs::remove_dir(&self.path).map_err(|error| error.kind()) {
            // Something else is there, or it is mounted (a container's view of the node's directory).
            Ok(()) | Err(io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "the socket's directory is left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let prepare = |directory: &Path| SocketDirectory::prepare(&directory.join("csi.sock"), "csi.example.com");
        let new = root.path().join("new");
        let prepared = prepare(&new).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o7777, MODE);
        prepared.remove();
        assert!(!new.exists());

        // Somebody else's, whether empty or not.
        fs::create_dir(&new).unwrap();
        prepare(&new).unwrap().remove();
        assert!(new.is_dir());

        // Left by a process that was killed.
        let left = root.path().join("csi.example.com");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("other"), "").unwrap();
        prepare(&left).unwrap().remove();
        assert!(left.join("other").exists());
        fs::remove_file(left.join("other")).unwrap();
        prepare(&left).unwrap().remove();
        assert!(!left.exists());

        let error = prepare(&root.path().join("no/where")).unwrap_err();
        assert!(error.to_string().contains("can't make the directory"), "{error}");
    }
}
