//! What a model's tree holds in the end: files as they came, and those that archives and layers were unpacked to.

use std::collections::BTreeMap;

use super::job::{Arrival, Arrived};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Count, Digest, Entry, Manifest, RelPath, TOO_MANY};
use crate::unpack::{Kind, Member, Unpack, Unpacked, stack};

type NumberedLayer<'a> = (u32, &'a Unpacked<Member>);

/// The files of a model, by their paths.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::FailedPrecondition`] when two are in each other's way.
pub(super) fn assemble(manifest: &Manifest, arrived: &[Arrived]) -> Result<BTreeMap<RelPath, Member>> {
    let mut tree = Tree { name: manifest.name(), files: BTreeMap::new(), count: Count::default() };
    // Layers, which lie over one another, by the model and the directory that they make.
    let mut layers: BTreeMap<(usize, Option<&RelPath>), Vec<NumberedLayer<'_>>> = BTreeMap::new();
    for Arrived { entry, arrival } in arrived {
        match (arrival, &entry.unpack) {
            (Arrival::File { digest, size }, _) => {
                let member = Member { digest: *digest, size: *size, origin: entry.origin };
                tree.put(entry.path.clone(), member)?;
            }
            (Arrival::Members(members), Some(Unpack { kind: Kind::Layer(number), into, .. })) => {
                layers.entry((entry.part, into.as_ref())).or_default().push((*number, members));
            }
            (Arrival::Members(members), unpack) => {
                let into = unpack.as_ref().and_then(|unpack| unpack.into.as_ref());
                if members.files.is_empty() {
                    return Err(empty(entry));
                }
                tree.put_all(into, members.files.clone())?;
            }
        }
    }
    for ((_, into), mut layers) in layers {
        layers.sort_by_key(|(number, _)| *number);
        tree.put_all(into, stack(layers.into_iter().map(|(_, members)| members)))?;
    }
    let image = manifest.entries().iter().find_map(|entry| entry.unpack.as_ref()?.below.as_ref());
    tree.finish(image)
}

/// The digest of the one archive that makes the whole model.
pub(super) fn archive(arrived: &[Arrived]) -> Option<Digest> {
    match arrived {
        [Arrived { arrival: Arrival::Members(members), .. }] => members.whole,
        _ => None,
    }
}

struct Tree<'a> {
    name: &'a str,
    files: BTreeMap<RelPath, Member>,
    count: Count,
}

impl Tree<'_> {
    fn put_all(&mut self, into: Option<&RelPath>, files: BTreeMap<RelPath, Member>) -> Result<()> {
        for (path, member) in files {
            let path = match into {
                Some(into) => into.join(&path).map_err(|error| error.within(self.name))?,
                None => path,
            };
            self.put(path, member)?;
        }
        Ok(())
    }

    fn put(&mut self, path: RelPath, member: Member) -> Result<()> {
        if !self.count.add(path.as_str()) {
            let text = format!("{} {TOO_MANY}: use allowPatterns", self.name);
            return Err(Error::new(ErrorKind::ResourceExhausted, text));
        }
        if self.files.contains_key(&path) {
            return Err(self.conflict(&path, "is there twice"));
        }
        self.files.insert(path, member);
        Ok(())
    }

    /// `image` is the directory of layers that the model is in.
    fn finish(self, image: Option<&RelPath>) -> Result<BTreeMap<RelPath, Member>> {
        if self.files.is_empty() {
            let place = image.map(|path| format!(" below /{path}")).unwrap_or_default();
            let text = format!("{} has no files{place}, or the patterns leave none of them", self.name);
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        for path in self.files.keys() {
            if let Some(file) = path.ancestors().find(|ancestor| self.files.contains_key(*ancestor)) {
                return Err(self.conflict(file, &format!("is a file and also the directory of \"{path}\"")));
            }
        }
        Ok(self.files)
    }

    fn conflict(&self, path: impl std::fmt::Display, problem: &str) -> Error {
        let text = format!("{} can't be laid out as files: \"{path}\" {problem}", self.name);
        Error::new(ErrorKind::FailedPrecondition, text)
    }
}

fn empty(entry: &Entry) -> Error {
    let text = format!("\"{}\" has no files, or the patterns leave none of them", entry.path);
    Error::new(ErrorKind::NotFound, text)
}
