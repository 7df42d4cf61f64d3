//! Lays what was unpacked over one another: the lowest layer first, as the root file system of a container is made.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Unpacked;
use crate::manifest::RelPath;

/// The files that several layers make together, lowest first.
pub(crate) fn stack<'a, F: Clone + 'a>(layers: impl IntoIterator<Item = &'a Unpacked<F>>) -> BTreeMap<RelPath, F> {
    let mut files: BTreeMap<RelPath, F> = BTreeMap::new();
    for layer in layers {
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
        for (path, file) in &layer.files {
            remove_tree(&mut files, path);
            for ancestor in path.ancestors() {
                files.remove(ancestor);
            }
            files.insert(path.clone(), file.clone());
        }
    }
    files
}

fn remove_tree<F>(files: &mut BTreeMap<RelPath, F>, path: &RelPath) {
    files.remove(path);
    // Everything below has the path and a slash before it, and so lies between these two, '0' being the next after '/'.
    let (from, to) = (format!("{path}/"), format!("{path}0"));
    let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
    let below: Vec<RelPath> = files.range::<str, _>(range).map(|(path, _)| path.clone()).collect();
    for path in below {
        files.remove(&path);
    }
}
