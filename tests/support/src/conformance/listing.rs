//! Checks 1 to 9: which files there are, by which names, and what identifies them.

use modelmount::Manifest;

use super::{Suite, paths, sole};
use crate::model::{self, Files};

fn assert_is(suite: &Suite<'_>, check: &str, manifest: &Manifest, files: &Files) {
    let expected: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(paths(manifest), expected, "{check}: the paths");
    for entry in manifest.entries() {
        let size = files[entry.path.as_str()].len() as u64;
        let untold = entry.size.is_none() && !suite.fixture.knows_sizes();
        assert!(untold || entry.size == Some(size), "{check}: the size of {:?} is {:?}", entry.path, entry.size);
    }
}

pub(super) async fn directories(suite: &Suite<'_>) {
    let mut files = model::small(1);
    // Names that begin with another's: a prefix is not a directory, nor a file.
    files.insert("config.json.bak".into(), b"other".to_vec());
    suite.put_all("conformance/model", &files).await;
    suite.put_all("conformance/model-v2", &model::small(2)).await;
    suite.fixture.put("conformance/model.json", b"no part of it".to_vec()).await;

    let (_, manifest) = suite.resolve("conformance/model").await;
    let check = "1 (a directory lists all its files, at their sizes, by paths relative to it)";
    assert!(paths(&manifest).iter().any(|path| path.contains('/')), "{check}: {:?}", paths(&manifest));
    assert!(
        !paths(&manifest).iter().any(|path| path.contains("v2")),
        "2 (siblings of the same beginning are not listed)"
    );
    assert!(paths(&manifest).contains(&"empty"), "3 (files of zero bytes are kept): {:?}", paths(&manifest));
    assert_is(suite, check, &manifest, &files);

    let (_, slashed) = suite.resolve("conformance/model/").await;
    assert_eq!(slashed.id(), manifest.id(), "4 (a slash at the URI's end makes no difference)");

    let (_, inner) = suite.resolve("conformance/model/tokenizer").await;
    assert_eq!(paths(&inner), ["deep/er/merges.txt", "vocab.txt"], "5 (a directory inside is a model as well)");

    if suite.fixture.odd_names() {
        let odd = model::odd(3);
        suite.put_all("conformance/odd", &odd).await;
        let (source, manifest) = suite.resolve("conformance/odd").await;
        assert_is(suite, "6 (odd names are listed exactly)", &manifest, &odd);
        for entry in manifest.entries() {
            let bytes = super::read(&*source, entry, super::Portion::Whole).await;
            let bytes = bytes.unwrap_or_else(|error| panic!("6 (odd names can be read): {:?}: {error:?}", entry.path));
            assert_eq!(bytes, odd[entry.path.as_str()], "6 (odd names are read): {:?}", entry.path);
        }
    }
}

pub(super) async fn single_files(suite: &Suite<'_>) {
    let check = "7 (a URI that names one file lists it, exactly, by its base name)";
    let mut files: Files = [("deep/file.bin".to_owned(), b"content".to_vec())].into();
    files.insert("deep/file.bin.sha256".into(), b"another".to_vec());
    if suite.fixture.odd_names() {
        // Where directories are listed, a URI holds names literally, and `?` may begin a query.
        let literal = suite.fixture.holds_directories();
        files.extend(model::odd(4).into_iter().filter(|(name, _)| !(literal && name.contains('?'))));
    }
    suite.put_all("conformance/files", &files).await;
    for (path, bytes) in &files {
        let path = format!("conformance/files/{path}");
        let (_, model) = suite.open(&suite.fixture.attributes(&path), &suite.fixture.credentials());
        let listing = sole(&model).list().await.unwrap_or_else(|error| panic!("{check}: {path:?}: {error:?}"));
        assert!(listing.exact, "{check}: {path:?}: {listing:?}");
        let [item] = listing.items.as_slice() else { panic!("{check}: {path:?}: {listing:?}") };
        assert_eq!(Some(item.path.as_str()), path.rsplit('/').next(), "{check}");
        assert!(item.size.is_none_or(|size| size == bytes.len() as u64), "{check}: {item:?}");
        let (source, entry) = suite.resolve_file(&path).await;
        let read = super::read(&*source, &entry, super::Portion::Whole).await;
        assert_eq!(read.unwrap_or_else(|error| panic!("{check}: {path:?}: {error:?}")), *bytes, "{check}: {path:?}");
    }
}

pub(super) async fn identity(suite: &Suite<'_>) {
    let path = "conformance/identity.bin";
    suite.fixture.put(path, b"first".to_vec()).await;
    let (_, first) = suite.resolve(path).await;
    let (_, again) = suite.resolve(path).await;
    // Without a version, what is listed twice may be two contents.
    let same = first.id() == again.id();
    assert_eq!(same, first.tells_versions(), "8 (listing twice gives the same manifest, if the source tells versions)");
    suite.fixture.replace(path, b"other".to_vec()).await;
    let (_, other) = suite.resolve(path).await;
    assert_ne!(first.id(), other.id(), "9 (replacing a file changes the manifest's id)");
}
