//! The same files as the real git clones, and as the real Git LFS puts in place of pointers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use modelmount::source::Portion;
use modelmount::{Credentials, ErrorKind, Manifest};
use modelmount_test_support::git::Options;
use modelmount_test_support::{GitServer, model, tools};

use super::{at, uri};
use crate::single::{assert_says, read, read_all, read_whole, resolve};

/// A work tree without git's own directory, links followed.
fn files_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for found in fs::read_dir(next).unwrap() {
            let path = found.unwrap().path();
            match path {
                path if path.ends_with(".git") => {}
                path if path.is_dir() => pending.push(path),
                path => {
                    let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    files
}

/// The commit that a manifest is pinned to.
fn commit(manifest: &Manifest) -> &str {
    manifest.revision().and_then(|revision| revision.rsplit(' ').next()).unwrap()
}

/// Many versions and similar files, so that git's packs hold differences.
fn fill(server: &GitServer) {
    for version in 0..4u8 {
        server.write("config.json", format!("{{\"version\": {version}}}").repeat(40).as_bytes());
        for i in 0..60 {
            server.write(
                &format!("layers/{}/{i}.json", i % 3),
                format!("layer {i} of {version}\n").repeat(30).as_bytes(),
            );
        }
        server.commit();
    }
    server.put_model("deep/", &model::small(1));
    server.put_model("odd/", &model::odd(2));
    server.write("bin/run.sh", b"#!/bin/sh\n");
    server.link("bin/again.sh", "run.sh");
    server.link("bin/config", "../deep/./config.json");
    server.link("shortcut", "bin/config");
    server.commit();
    server.git(&["repack", "-adfq", "--depth=50", "--window=50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_as_the_real_git_clones() {
    for options in [
        Options::default(),
        Options { filter: false, ..Options::default() },
        Options { sizes: true, format: "sha256", ..Options::default() },
    ] {
        let Some(server) = GitServer::start(options).await else { return };
        fill(&server);
        let target = tempfile::tempdir().unwrap();
        server
            .client(target.path(), &["clone", "--quiet", "--depth=1", &format!("{}/model.git", server.url()), "clone"]);
        let expected = files_below(&target.path().join("clone"));
        assert!(expected.len() > 70);

        let (source, manifest) =
            resolve(&uri(&format!("git+{}/model.git", server.url())), &Credentials::none()).await.unwrap();
        assert_eq!(commit(&manifest), server.git(&["rev-parse", "HEAD"]).trim());
        let found = read_all(&*source, &manifest).await.unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(found == expected, "{options:?}");
        for entry in manifest.entries() {
            let size = expected[entry.path.as_str()].len() as u64;
            let told = entry.size == Some(size) || (entry.size.is_none() && options.filter && !options.sizes);
            assert!(told, "{:?} of {size}: {:?}", entry.path, entry.size);
        }
    }
}

/// The emulator is what the real client takes for a server; then both must find the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_as_the_real_git_lfs_puts_in_place() {
    if tools::require("git-lfs").is_none() {
        return;
    }
    let Some(server) = GitServer::start(Options::default()).await else { return };
    let weights = model::Pattern::new(1).bytes(0, 300_000);
    server.write(".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n");
    server.put_lfs("model.bin", &weights);
    server.put_lfs("deep/tokenizer.bin", b"tokens");
    server.put("config.json", b"{}");
    let target = tempfile::tempdir().unwrap();
    let url = format!("{}/model.git", server.url());
    let mut arguments = vec!["-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.required=true"];
    arguments.extend(["-c", "filter.lfs.smudge=git-lfs smudge -- %f", "clone", "--quiet", "--depth=1", &url, "clone"]);
    server.client(target.path(), &arguments);
    let expected = files_below(&target.path().join("clone"));
    assert_eq!(expected["model.bin"], weights);

    let (source, manifest) = resolve(&uri(&format!("git+{url}")), &Credentials::none()).await.unwrap();
    assert_eq!(read_all(&*source, &manifest).await.unwrap(), expected);
    let entry = manifest.entries().iter().find(|entry| entry.path.as_str() == "model.bin").unwrap();
    assert_eq!((entry.size, entry.digest), (Some(300_000), Some(modelmount::Digest::of(&weights))));
    for range in [0..1, 100_000..200_001, 299_999..300_000] {
        let part = read(&*source, entry, Portion::Range(range.start..range.end)).await.unwrap();
        assert!(part == weights[range.start as usize..range.end as usize]);
    }
    server.serve_ranges(false);
    let refused = read(&*source, entry, Portion::Range(5..9)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RangesUnsupported);
    assert!(read_whole(&*source, entry).await.unwrap() == weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_pinned() {
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.put("m/weights", b"first");
    let first = server.git(&["rev-parse", "HEAD"]).trim().to_owned();
    server.git(&["tag", "--annotate", "--message=first", "v1"]);
    server.git(&["tag", "light", "HEAD"]);
    server.git(&["branch", "feature/x"]);
    server.put("m/weights", b"second");
    for (revision, content) in [
        ("main", "second"),
        ("refs/heads/main", "second"),
        ("v1", "first"),
        ("light", "first"),
        ("feature/x", "first"),
        ("refs/tags/v1", "first"),
        (&first, "first"),
    ] {
        let (source, manifest) = resolve(&at(&server.url(), revision, "m"), &Credentials::none()).await.unwrap();
        let read = read_whole(&*source, &manifest.entries()[0]).await.unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), content, "{revision}");
        assert_eq!(commit(&manifest) == first, content == "first", "{revision}");
    }
    // What was listed is read, wherever the branch goes.
    let (source, manifest) = resolve(&at(&server.url(), "main", "m/weights"), &Credentials::none()).await.unwrap();
    server.put("m/weights", b"third");
    assert_eq!(read_whole(&*source, &manifest.entries()[0]).await.unwrap(), b"second");
    // A whole tag object can be named too.
    let tag = server.git(&["rev-parse", "v1"]).trim().to_owned();
    let (_, manifest) = resolve(&at(&server.url(), &tag, "m"), &Credentials::none()).await.unwrap();
    assert_eq!(commit(&manifest), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_followed_inside_and_never_out() {
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.put("m/weights", b"weights");
    server.write("shared/vocab", b"vocab");
    server.link("m/vocab", "../shared/vocab");
    server.link("m/chain", "vocab");
    server.link("by-directory", "m");
    server.link("m/through", "../by-directory/weights");
    for (name, target) in [
        ("passwd", "/etc/passwd"),
        ("up", "../../../etc/passwd"),
        ("dangling", "no-such-file"),
        ("circle", "circle"),
        ("directory", "../shared"),
        ("below-a-file", "weights/x"),
    ] {
        server.link(&format!("m/{name}"), target);
    }
    server.commit();
    let bad = "passwd,up,dangling,circle,directory,below-a-file";
    let mut some = at(&server.url(), "main", "m");
    some.insert("ignorePatterns".into(), bad.into());
    let (source, manifest) = resolve(&some, &Credentials::none()).await.unwrap();
    let read = read_all(&*source, &manifest).await.unwrap();
    let expected: [(&str, &[u8]); 4] =
        [("chain", b"vocab"), ("through", b"weights"), ("vocab", b"vocab"), ("weights", b"weights")];
    assert_eq!(read, expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into());

    let (source, manifest) = resolve(&at(&server.url(), "main", "m"), &Credentials::none()).await.unwrap();
    for name in bad.split(',') {
        let entry = manifest.entries().iter().find(|entry| entry.path.as_str() == name).unwrap();
        for refused in [source.authorize(entry).await, read_whole(&*source, entry).await.map(drop)] {
            let error = refused.unwrap_err();
            assert_says(
                &error,
                ErrorKind::FailedPrecondition,
                &["git+http://", name, "symbolic link", "ignorePatterns"],
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_left_out() {
    let Some(server) = GitServer::start(Options::default()).await else { return };
    server.put("weights", b"weights");
    let commit = server.git(&["rev-parse", "HEAD"]);
    server.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", commit.trim())]);
    server.git(&["commit", "--quiet", "--message=submodule"]);
    let (_, manifest) = resolve(&at(&server.url(), "main", ""), &Credentials::none()).await.unwrap();
    assert_eq!(manifest.entries().len(), 1);
}
