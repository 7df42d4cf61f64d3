//! The files of a commit: its trees walked, symbolic links inside it replaced by what they point to.

use super::lfs::Pointer;
use super::object::{Format, Id, Kind, Mode, TreeEntry, parse_tree};
use super::pack::Objects;
use crate::manifest::MAX_ENTRIES;

/// One file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// Its size, if its content came along.
    Blob(Id, Option<u64>),
    /// Kept outside the repository.
    Pointer(Pointer),
    /// A symbolic link that is no file of this commit, and why.
    Link(&'static str),
}

/// What a path of a commit names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File(File),
    /// Files by their paths below it.
    Directory(Vec<(String, File)>),
}

/// As many links lead to another as in Linux.
const MAX_HOPS: usize = 40;
/// Longest path of a tree, in bytes. No file system holds longer ones.
const MAX_PATH: usize = 4096;

/// Trees and small blobs of one commit.
pub(super) struct Commit<'a> {
    pub(super) objects: &'a Objects,
    pub(super) format: Format,
    pub(super) root: Id,
}

impl Commit<'_> {
    /// What there is at `path`, which is relative and may be empty.
    pub(super) fn find(&self, path: &str) -> Result<Found, String> {
        let mut at = TreeEntry { name: String::new(), mode: Mode::Tree, id: self.root.clone() };
        let mut directory = String::new();
        for component in path.split('/').filter(|component| !component.is_empty()) {
            if at.mode != Mode::Tree {
                return Ok(Found::Nothing);
            }
            let Some(next) = self.tree(&at.id)?.into_iter().find(|entry| entry.name == component) else {
                return Ok(Found::Nothing);
            };
            if !at.name.is_empty() {
                directory.push_str(&at.name);
                directory.push('/');
            }
            at = next;
        }
        match at.mode {
            Mode::Tree => self.below(path, &at.id).map(Found::Directory),
            Mode::Submodule => Ok(Found::Nothing),
            Mode::File | Mode::Symlink => self.file(&directory, &at).map(Found::File),
        }
    }

    fn tree(&self, id: &Id) -> Result<Vec<TreeEntry>, String> {
        match self.objects.get(id) {
            Some((Kind::Tree, bytes)) => parse_tree(bytes, self.format),
            _ => Err("a directory of it is missing".to_owned()),
        }
    }

    fn below(&self, path: &str, id: &Id) -> Result<Vec<(String, File)>, String> {
        let mut files = Vec::new();
        let mut pending = vec![(String::new(), id.clone())];
        let mut directories = 0;
        while let Some((below, id)) = pending.pop() {
            directories += 1;
            for entry in self.tree(&id)? {
                let name = format!("{below}{}", entry.name);
                match entry.mode {
                    Mode::Tree if name.len() > MAX_PATH => return Err("its directories never end".to_owned()),
                    Mode::Tree => pending.push((format!("{name}/"), entry.id)),
                    Mode::Submodule => {}
                    Mode::File | Mode::Symlink => {
                        let directory = if path.is_empty() { below.clone() } else { format!("{path}/{below}") };
                        files.push((name, self.file(&directory, &entry)?));
                    }
                }
            }
            // One tree may be named by any number of others.
            if files.len() + directories + pending.len() > MAX_ENTRIES {
                return Err(format!("it has more than {MAX_ENTRIES} files"));
            }
        }
        Ok(files)
    }

    /// `directory`, in which the entry is, ends in a slash or is empty.
    fn file(&self, directory: &str, entry: &TreeEntry) -> Result<File, String> {
        if entry.mode == Mode::Symlink {
            return match self.follow(directory, entry)? {
                Ok(target) => Ok(self.blob(target)),
                Err(problem) => Ok(File::Link(problem)),
            };
        }
        Ok(self.blob(entry.id.clone()))
    }

    fn blob(&self, id: Id) -> File {
        match self.objects.get(&id) {
            Some((Kind::Blob, content)) => match Pointer::parse(content) {
                Some(pointer) => File::Pointer(pointer),
                None => File::Blob(id, Some(content.len() as u64)),
            },
            _ => File::Blob(id, None),
        }
    }

    /// The blob that a link leads to, or why there is none.
    fn follow(&self, directory: &str, link: &TreeEntry) -> Result<Result<Id, &'static str>, String> {
        const OUTSIDE: &str = "leads out of the repository";
        let mut hops = 0;
        // The directories that lead to where we are, and what is still to be walked, last first.
        let mut parents: Vec<Id> = vec![self.root.clone()];
        let mut ahead: Vec<String> = vec![link.name.clone()];
        ahead.extend(directory.split('/').rev().filter(|part| !part.is_empty()).map(str::to_owned));
        while let Some(component) = ahead.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." if parents.len() == 1 => return Ok(Err(OUTSIDE)),
                ".." => {
                    parents.pop();
                    continue;
                }
                _ => {}
            }
            let here = parents.last().unwrap_or(&self.root);
            let Some(entry) = self.tree(here)?.into_iter().find(|entry| entry.name == component) else {
                return Ok(Err("leads to nothing"));
            };
            match entry.mode {
                Mode::Tree => parents.push(entry.id),
                Mode::File if ahead.iter().all(String::is_empty) => return Ok(Ok(entry.id)),
                Mode::File => return Ok(Err("leads to nothing")),
                Mode::Submodule => return Ok(Err(OUTSIDE)),
                Mode::Symlink => {
                    hops += 1;
                    let Some((Kind::Blob, target)) = self.objects.get(&entry.id) else {
                        return Ok(Err("leads to nothing"));
                    };
                    let target = String::from_utf8_lossy(target);
                    if target.starts_with('/') {
                        return Ok(Err(OUTSIDE));
                    }
                    if hops > MAX_HOPS {
                        return Ok(Err("leads in a circle"));
                    }
                    ahead.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        Ok(Err("leads to a directory"))
    }
}
