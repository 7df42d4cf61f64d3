//! Lays what was unpacked over one another: the lowest layer first, as the root file system of a container is made.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Unpacked;
use crate::manifest::RelPath;

/// The files of several layers, lowest first, each with the index of its layer and its number in it.
pub(crate) fn stack<'a>(layers: impl IntoIterator<Item = &'a Unpacked>) -> BTreeMap<RelPath, (usize, usize)> {
    let mut files: BTreeMap<RelPath, (usize, usize)> = BTreeMap::new();
    for (index, layer) in layers.into_iter().enumerate() {
        for removed in &layer.removed {
            match removed {
                None => files.clear(),
                Some(path) => remove_tree(&mut files, path),
            }
        }
        for directory in &layer.directories {
            files.remove(directory);
            for ancestor in directory.ancestors() {
                files.remove(ancestor);
            }
        }
        for (path, number) in &layer.files {
            remove_tree(&mut files, path);
            for ancestor in path.ancestors() {
                files.remove(ancestor);
            }
            files.insert(path.clone(), (index, *number));
        }
    }
    files
}

fn remove_tree(files: &mut BTreeMap<RelPath, (usize, usize)>, path: &RelPath) {
    files.remove(path);
    // Everything below has the path and a slash before it, and so lies between these two, '0' being the next after '/'.
    let (from, to) = (format!("{path}/"), format!("{path}0"));
    let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
    let below: Vec<RelPath> = files.range::<str, _>(range).map(|(path, _)| path.clone()).collect();
    for path in below {
        files.remove(&path);
    }
}
