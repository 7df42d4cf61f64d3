//! What a model's files hold, wherever they came from and wherever they lie: the digest that a user may demand.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, RelPath};

const BUFFER: usize = 256 << 10;

/// The digest of a model's content, independent of where it came from: SHA-256 over `<hex digest>  <path>\0` of each
/// file in the order of the paths' bytes. In a shell, in the model's directory:
/// `find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum`.
pub fn content_digest<'a>(files: impl IntoIterator<Item = (&'a RelPath, Digest)>) -> Digest {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_unstable();
    let mut hasher = Sha256::new();
    for (path, digest) in files {
        hasher.update(format!("{}  {path}\0", digest.hex()));
    }
    Digest::from_hasher(hasher)
}

/// [`Content::has_digest`].
pub(crate) fn satisfies(
    demanded: Digest,
    content: Digest,
    archive: Option<Digest>,
    mut files: impl Iterator<Item = Digest>,
) -> bool {
    content == demanded || archive == Some(demanded) || (files.next() == Some(demanded) && files.next().is_none())
}

/// The content of a directory.
#[derive(Clone, Debug)]
pub struct Content {
    /// Digest of all of it: see [`content_digest`].
    pub digest: Digest,
    /// Path, digest and size in bytes of each file, sorted by path.
    pub files: Vec<(RelPath, Digest, u64)>,
    /// Digest of the one archive that all of it was in, where that is known.
    pub archive: Option<Digest>,
}

impl Content {
    /// The content that these files make.
    pub(crate) fn new(mut files: Vec<(RelPath, Digest, u64)>) -> Self {
        files.sort_unstable();
        Self { digest: content_digest(files.iter().map(|(path, digest, _)| (path, *digest))), files, archive: None }
    }

    /// Reads and hashes every file below `directory`, in constant memory.
    ///
    /// # Errors
    /// [`ErrorKind::FailedPrecondition`] for what no model has: symbolic links, devices, names that are not UTF-8;
    /// [`ErrorKind::Io`].
    pub fn read(directory: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut buffer = vec![0; BUFFER];
        let mut pending = vec![directory.to_owned()];
        while let Some(next) = pending.pop() {
            let failed = |error| Error::io(format!("can't list {}", next.display()), error);
            for entry in fs::read_dir(&next).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
                if kind.is_dir() {
                    pending.push(path);
                } else if kind.is_file() {
                    let (digest, size) = hash(&path, &mut buffer)
                        .map_err(|error| Error::io(format!("can't read {}", path.display()), error))?;
                    files.push((relative(directory, &path)?, digest, size));
                } else {
                    let text = format!("{} is neither a file nor a directory", path.display());
                    return Err(Error::new(ErrorKind::FailedPrecondition, text));
                }
            }
        }
        Ok(Self::new(files))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, _, size)| size).sum()
    }

    /// Whether the model is what a user demands: its content digest, or that of the one file or archive that it came in.
    pub fn has_digest(&self, demanded: Digest) -> bool {
        satisfies(demanded, self.digest, self.archive, self.files.iter().map(|(_, digest, _)| *digest))
    }
}

fn relative(directory: &Path, path: &Path) -> Result<RelPath> {
    let text = path.strip_prefix(directory).ok().and_then(Path::to_str);
    let text = text.ok_or_else(|| {
        Error::new(ErrorKind::FailedPrecondition, format!("the name of {} is not UTF-8", path.display()))
    })?;
    RelPath::parse(text)
}

fn hash(path: &Path, buffer: &mut [u8]) -> io::Result<(Digest, u64)> {
    // A file that was swapped for a link since it was listed is not followed.
    let mut file = File::options().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)?;
    let (mut hasher, mut size) = (Sha256::new(), 0);
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok((Digest::from_hasher(hasher), size)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// printf x > a; mkdir b; printf y > b/c; then the command in [`content_digest`]'s documentation.
    const DIGEST_OF_SHELL: &str = "73ec8e6250c7686c00e3e5522eff2961bf383742cecb188275e90736cd32a8cf";

    #[test]
    fn the_digest_is_what_the_documented_shell_command_prints() {
        let (a, c) = (RelPath::parse("a").unwrap(), RelPath::parse("b/c").unwrap());
        let digest = content_digest([(&c, Digest::of("y")), (&a, Digest::of("x"))]);
        assert_eq!(digest.hex(), DIGEST_OF_SHELL);
    }

    #[test]
    fn a_directory_is_read_to_the_last_byte() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("b/empty")).unwrap();
        fs::write(directory.path().join("b/c"), "y").unwrap();
        fs::write(directory.path().join("a"), "x").unwrap();
        let content = Content::read(directory.path()).unwrap();
        assert_eq!((content.digest.hex().as_str(), content.bytes()), (DIGEST_OF_SHELL, 2));
        assert!(content.has_digest(content.digest) && !content.has_digest(Digest::of("x")));

        let long: Vec<u8> = (0..3 * BUFFER + 1).map(|i| i as u8).collect();
        fs::write(directory.path().join("b/c"), &long).unwrap();
        assert_eq!(Content::read(directory.path()).unwrap().files[1].1, Digest::of(&long));
        assert_eq!(Content::read(&directory.path().join("b")).unwrap().files[0].0.as_str(), "c");
        let one = Content::read(&directory.path().join("b")).unwrap();
        assert!(one.has_digest(Digest::of(&long)), "a model of one file may be named by that file's digest");
    }

    #[test]
    fn what_no_model_has_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let error = Content::read(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.report().contains("link is neither a file nor a directory"), "{}", error.report());
        let missing = Content::read(&directory.path().join("none")).unwrap_err();
        assert!(missing.report().contains("can't list"), "{}", missing.report());
    }
}
