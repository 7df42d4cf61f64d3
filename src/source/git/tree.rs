//! The files of a commit: its trees walked, symbolic links inside it replaced by what they point to.

use std::cell::Cell;

use super::lfs::Pointer;
use super::object::{Format, Id, Kind, Mode, TreeEntry, parse_tree};
use super::pack::Objects;
use crate::manifest::{Count, TOO_MANY};

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

/// Most bytes of trees and links that are read. Each is read as often as it is named, and a small pack can name one any
/// number of times.
const MAX_READ: u64 = 512 << 20;

/// Trees and small blobs of one commit.
pub(super) struct Commit<'a> {
    objects: &'a Objects,
    format: Format,
    root: Id,
    /// What may still be read, in bytes.
    unread: Cell<u64>,
}

impl<'a> Commit<'a> {
    /// The commit whose tree is `root`.
    pub(super) fn new(objects: &'a Objects, format: Format, root: Id) -> Self {
        Self { objects, format, root, unread: Cell::new(MAX_READ) }
    }

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
            Some((Kind::Tree, bytes)) => {
                self.spend(bytes.len())?;
                parse_tree(bytes, self.format)
            }
            _ => Err("a directory of it is missing".to_owned()),
        }
    }

    fn spend(&self, bytes: usize) -> Result<(), String> {
        let left = self.unread.get().checked_sub(bytes as u64);
        self.unread.set(left.ok_or_else(|| {
            format!("to follow its directories and links, more than {} MiB must be read", MAX_READ >> 20)
        })?);
        Ok(())
    }

    fn below(&self, path: &str, id: &Id) -> Result<Vec<(String, File)>, String> {
        let (mut files, mut count) = (Vec::new(), Count::default());
        let mut pending = vec![(String::new(), id.clone())];
        while let Some((below, id)) = pending.pop() {
            for entry in self.tree(&id)? {
                let name = format!("{below}{}", entry.name);
                // One tree may be named by any number of others.
                if entry.mode != Mode::Submodule && !count.add(&name) {
                    return Err(format!("it {TOO_MANY}"));
                }
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
                    if target.len() > MAX_PATH {
                        return Ok(Err("leads to nothing"));
                    }
                    self.spend(target.len())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::git::object::id_of;
    use crate::source::git::pack::{Body, Event};
    use proptest::prelude::*;

    const ROOM: u64 = 16 << 20;

    /// Objects that name each other by their ids.
    struct Repository(Objects);

    impl Repository {
        fn new() -> Self {
            Self(Objects::new(Format::Sha1, ROOM))
        }

        fn add(&mut self, kind: Kind, content: &[u8]) -> Id {
            let begin = Event::Begin { offset: 0, body: Body::Whole(kind), size: content.len() as u64 };
            for event in [begin, Event::Bytes(content), Event::End] {
                self.0.take(event).unwrap();
            }
            id_of(Format::Sha1, kind, content).unwrap()
        }

        fn tree(&mut self, entries: impl IntoIterator<Item = (&'static str, String, Id)>) -> Id {
            let mut content = Vec::new();
            for (mode, name, id) in entries {
                content.extend(format!("{mode} {name}\0").bytes());
                let hex = id.to_string();
                content.extend((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()));
            }
            self.add(Kind::Tree, &content)
        }

        fn files(&self, root: Id) -> Result<Found, String> {
            // As much as is kept of a pack, so that the tests are quick.
            Commit { unread: Cell::new(ROOM), ..Commit::new(&self.0, Format::Sha1, root) }.find("")
        }
    }

    #[test]
    fn a_small_pack_does_not_make_endless_work_of_its_trees() {
        let mut repository = Repository::new();
        let id = repository.add(Kind::Blob, b"");
        let wide = repository.tree((0..30_000).map(|number| ("160000", number.to_string(), id.clone())));
        let root = repository.tree((0..2_000).map(|number| ("40000", number.to_string(), wide.clone())));
        assert!(repository.files(root).unwrap_err().contains("more than 512 MiB"));
    }

    #[test]
    fn nor_of_its_files() {
        let mut repository = Repository::new();
        let id = repository.add(Kind::Blob, b"");
        let wide = repository.tree((0..1_000).map(|number| ("100644", number.to_string(), id.clone())));
        let root = repository.tree((0..100).map(|number| ("40000", number.to_string(), wide.clone())));
        assert!(repository.files(root).unwrap_err().contains("more than 100,000 files"));
    }

    #[test]
    fn nor_of_its_links() {
        let mut repository = Repository::new();
        let target = repository.add(Kind::Blob, format!("{}f", "d/../".repeat(800)).as_bytes());
        let empty = repository.tree([]);
        let links = (0..1_000).map(|number| ("120000", format!("l{number}"), target.clone()));
        let directory = [("40000", "d".to_owned(), empty), ("100644", "f".to_owned(), target.clone())];
        let root = repository.tree(directory.into_iter().chain(links));
        assert!(repository.files(root).unwrap_err().contains("more than 512 MiB"));
    }

    #[test]
    fn a_link_is_no_longer_than_a_path_can_be() {
        for (dots, leads) in [(MAX_PATH / 2 - 1, true), (MAX_PATH / 2, false)] {
            let mut repository = Repository::new();
            let file = repository.add(Kind::Blob, b"x");
            let link = repository.add(Kind::Blob, format!("{}f", "./".repeat(dots)).as_bytes());
            let root = repository.tree([("100644", "f".to_owned(), file.clone()), ("120000", "l".to_owned(), link)]);
            let Found::Directory(files) = repository.files(root).unwrap() else { panic!("a directory") };
            let expected = if leads { File::Blob(file, Some(1)) } else { File::Link("leads to nothing") };
            assert_eq!(files[1], ("l".to_owned(), expected));
        }
    }

    proptest! {
        #[test]
        fn any_link_leads_to_a_file_of_the_commit_or_nowhere(
            one in "(\\.|\\.\\.|d|f|l|m|/|//){0,6}(f|l|m)?", two in "[./dflm]{0,6}", path in "(d|l|f|d/l)?",
        ) {
            let mut repository = Repository::new();
            let file = repository.add(Kind::Blob, b"x");
            let (one, two) = (repository.add(Kind::Blob, one.as_bytes()), repository.add(Kind::Blob, two.as_bytes()));
            let links = [("120000", "l".to_owned(), one), ("120000", "m".to_owned(), two)];
            let directory = repository.tree(links.clone().into_iter().chain([("100755", "f".to_owned(), file.clone())]));
            let entries = [("100644", "f".to_owned(), file.clone()), ("40000", "d".to_owned(), directory)];
            let root = repository.tree(entries.into_iter().chain(links));
            let files = match Commit::new(&repository.0, Format::Sha1, root).find(&path).unwrap() {
                Found::Nothing => Vec::new(),
                Found::File(file) => vec![file],
                Found::Directory(files) => files.into_iter().map(|(_, file)| file).collect(),
            };
            for found in files {
                prop_assert!(found == File::Blob(file.clone(), Some(1)) || matches!(found, File::Link(_)), "{:?}", found);
            }
        }
    }
}
