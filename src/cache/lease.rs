//! Leases: who has which model. A lease is written before the model is fetched and removed after it was unmounted, so
//! that nothing in use is ever evicted, and so that a restarted plugin knows what it had published.
//!
//! A lease survives a kill. It need not survive a power loss, which takes the mount that it stands for as well; it is
//! therefore written in one step but not flushed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::Digest;

/// One volume's right to one model, at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The volume's id.
    pub volume_id: String,
    /// Where it is, or will be, mounted.
    pub target: String,
    /// Digest of the arguments that it was asked for with.
    pub arguments: Digest,
    /// The model, once it is resolved.
    pub snapshot: Option<Digest>,
    /// Bytes of the model, once it is complete.
    pub bytes: u64,
    /// Files of the model, once it is complete.
    pub files: u64,
}

type Key = (String, String);

/// All leases of a cache, in memory and on disk.
#[derive(Debug)]
pub struct Leases {
    directory: PathBuf,
    table: Mutex<BTreeMap<Key, Lease>>,
}

impl Leases {
    pub(super) fn load(directory: PathBuf) -> Result<Self> {
        let failed = |error| Error::io(format!("can't read the leases in {}", directory.display()), error);
        let mut table = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let lease = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Lease>(&text).ok());
            match lease {
                Some(lease) if path == file_of(&directory, &lease.volume_id, &lease.target) => {
                    table.insert((lease.volume_id.clone(), lease.target.clone()), lease);
                }
                _ => tracing::warn!(path = %path.display(), "not a lease, or a damaged one: ignored"),
            }
        }
        Ok(Self { directory, table: Mutex::new(table) })
    }

    /// The lease of this volume at this target.
    pub fn get(&self, volume_id: &str, target: &str) -> Option<Lease> {
        self.table().get(&(volume_id.to_owned(), target.to_owned())).cloned()
    }

    /// All leases at one target.
    pub fn at_target(&self, target: &str) -> Vec<Lease> {
        self.table().values().filter(|lease| lease.target == target).cloned().collect()
    }

    /// How many leases name this model.
    pub fn of_snapshot(&self, id: Digest) -> usize {
        self.table().values().filter(|lease| lease.snapshot == Some(id)).count()
    }

    /// How many volumes have their model.
    pub fn published(&self) -> usize {
        self.table().values().filter(|lease| lease.files > 0).count()
    }

    /// All leases.
    pub fn all(&self) -> Vec<Lease> {
        self.table().values().cloned().collect()
    }

    /// Writes a lease, in place of the one of the same volume and target.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] and [`crate::ErrorKind::ResourceExhausted`]; the lease is then not held.
    pub fn put(&self, lease: Lease) -> Result<()> {
        self.write(&mut self.table(), lease)
    }

    /// Changes a lease, if it is still held; tells whether it is. What is changed is not which lease it is.
    ///
    /// # Errors
    /// As [`Leases::put`]; the lease is then as it was.
    pub fn update(&self, volume_id: &str, target: &str, change: impl FnOnce(&mut Lease)) -> Result<bool> {
        let mut table = self.table();
        let Some(mut lease) = table.get(&(volume_id.to_owned(), target.to_owned())).cloned() else { return Ok(false) };
        change(&mut lease);
        self.write(&mut table, lease).map(|()| true)
    }

    fn write(&self, table: &mut BTreeMap<Key, Lease>, lease: Lease) -> Result<()> {
        let path = file_of(&self.directory, &lease.volume_id, &lease.target);
        let failed = |error| Error::io(format!("can't write the lease {}", path.display()), error);
        let scratch = path.with_extension("new");
        let text = serde_json::to_vec(&lease).map_err(|error| failed(error.into()))?;
        fs::write(&scratch, text).and_then(|()| fs::rename(&scratch, &path)).map_err(failed)?;
        table.insert((lease.volume_id.clone(), lease.target.clone()), lease);
        Ok(())
    }

    /// Gives a lease up. That there is none is success. On a disk that takes no more writes the lease is given up too, but
    /// is there again for the next process.
    pub fn remove(&self, volume_id: &str, target: &str) {
        let path = file_of(&self.directory, volume_id, target);
        let mut table = self.table();
        table.remove(&(volume_id.to_owned(), target.to_owned()));
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(path = %path.display(), %error, "a lease can't be removed from the disk");
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Key, Lease>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids and targets come from outside and never become a path: their digest does.
fn file_of(directory: &Path, volume_id: &str, target: &str) -> PathBuf {
    directory.join(Digest::of(format!("{volume_id}\0{target}")).hex()).with_extension("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(volume_id: &str, target: &str) -> Lease {
        let (volume_id, target) = (volume_id.to_owned(), target.to_owned());
        Lease { volume_id, target, arguments: Digest::of("a"), snapshot: Some(Digest::of("s")), bytes: 3, files: 1 }
    }

    #[test]
    fn leases_are_found_again_by_a_new_process() {
        let root = tempfile::tempdir().unwrap();
        let leases = Leases::load(root.path().into()).unwrap();
        for (volume, target) in [("v1", "/a"), ("v1", "/b"), ("v10", "/a"), ("../../etc/passwd\0", "/c")] {
            leases.put(lease(volume, target)).unwrap();
        }
        leases.remove("v1", "/b");
        leases.remove("unknown", "/b");
        assert!(leases.update("v10", "/a", |lease| lease.bytes = 7).unwrap());
        assert!(!leases.update("v1", "/b", |lease| lease.bytes = 7).unwrap(), "a dropped lease does not come back");
        fs::write(root.path().join("torn.json"), b"").unwrap();
        let again = Leases::load(root.path().into()).unwrap();
        assert_eq!(again.all(), leases.all());
        assert_eq!(again.get("v10", "/a").unwrap().bytes, 7);
        assert_eq!((again.get("v1", "/a"), again.get("v1", "/b")), (Some(lease("v1", "/a")), None));
        assert_eq!(again.at_target("/a").len(), 2);
        assert_eq!(again.of_snapshot(Digest::of("s")), 3);
        assert_eq!(again.published(), 3);
        assert_eq!(
            fs::read_dir(root.path().parent().unwrap())
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_name() == "passwd")
                .count(),
            0
        );
    }

    #[test]
    fn a_lease_under_another_name_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let leases = Leases::load(root.path().into()).unwrap();
        leases.put(lease("v1", "/a")).unwrap();
        fs::rename(file_of(root.path(), "v1", "/a"), file_of(root.path(), "v2", "/a")).unwrap();
        assert!(Leases::load(root.path().into()).unwrap().all().is_empty());
    }
}
