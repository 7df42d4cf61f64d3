//! Puts a damaged model right where it lies: pods may have it mounted, and would lose all of it with its directory.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::blob::same_file;
use super::layout::Layout;
use super::snapshot::{Contents, MANIFEST, TREE};

/// Makes the snapshot in `damaged` what the one in `whole` is, whose files it takes. Whoever reads a file meanwhile reads the
/// old one or the new one. Killed at any step, it leaves a snapshot that is damaged, and is mended again.
pub(super) fn mend(layout: &Layout, whole: &Path, damaged: &Path, contents: &Contents) -> io::Result<()> {
    let (new, old) = (whole.join(TREE), damaged.join(TREE));
    let directories = contents.directories();
    let files: BTreeSet<&str> = contents.files().iter().map(|file| file.path.as_str()).collect();
    make_directory(layout, &old)?;
    // Outermost first: none is looked into that is a link to elsewhere.
    for directory in &directories {
        make_directory(layout, &old.join(directory))?;
    }
    for directory in directories.iter().chain([&""]) {
        let below = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        for entry in fs::read_dir(old.join(directory))? {
            let entry = entry?;
            let path = entry.file_name().to_str().map(below);
            let belongs = |path: &String| files.contains(path.as_str()) || directories.contains(path.as_str());
            if !path.as_ref().is_some_and(belongs) {
                out_of_sight(layout, &entry.path())?;
            }
        }
    }
    for path in files {
        let (from, to) = (new.join(path), old.join(path));
        match fs::symlink_metadata(&to) {
            Ok(there) if same_file(&there, &fs::symlink_metadata(&from)?) => continue,
            Ok(there) if there.is_dir() => out_of_sight(layout, &to)?,
            _ => {}
        }
        fs::rename(from, to)?;
    }
    fs::rename(whole.join(MANIFEST), damaged.join(MANIFEST))
}

fn make_directory(layout: &Layout, path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => return Ok(()),
        Ok(_) => out_of_sight(layout, path)?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    DirBuilder::new().mode(0o755).create(path)
}

fn out_of_sight(layout: &Layout, path: &Path) -> io::Result<()> {
    layout.discard(path).map_err(io::Error::other)
}
