//! A source's listing, as a hostile server sends it: what becomes a manifest can be laid out below a directory.
#![no_main]

use std::collections::BTreeSet;
use std::path::{Component, Path};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use modelmount::manifest::{Item, Listing};
use modelmount::unpack::Archives;
use modelmount::{Manifest, ModelUri, RelPath, Selection};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    items: Vec<(&'a str, Option<u64>, Option<&'a str>)>,
    exact: bool,
    never: bool,
    allow: Option<&'a str>,
    ignore: Option<&'a str>,
    below: Option<&'a str>,
}

fuzz_target!(|input: Input<'_>| {
    let Ok(selection) = Selection::parse(input.allow, input.ignore) else { return };
    let uri = ModelUri::parse("s3://bucket/model").expect("it is one");
    let item = |(path, size, validator): &(&str, Option<u64>, Option<&str>)| Item {
        path: (*path).to_owned(),
        size: *size,
        locator: (*path).to_owned(),
        validator: validator.map(str::to_owned),
        digest: None,
        unpack: None,
    };
    let items = input.items.iter().map(item).collect();
    let listing = Listing { store: "store".to_owned(), revision: None, items, exact: input.exact };
    let archives = if input.never { Archives::Never } else { Archives::Auto };
    let Ok(manifest) = Manifest::build(&uri, listing, &selection, archives) else { return };
    check(&manifest);
    if let Some(Ok(below)) = input.below.map(RelPath::parse)
        && let Ok(joined) = Manifest::join(vec![(None, manifest.clone()), (Some(below), manifest)])
    {
        check(&joined);
    }
});

fn check(manifest: &Manifest) {
    let paths: BTreeSet<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert!(!paths.is_empty() && paths.len() == manifest.entries().len());
    for entry in manifest.entries() {
        let path = entry.path.as_str();
        assert!(Path::new(path).components().all(|component| matches!(component, Component::Normal(_))), "{path:?}");
        let blocked = entry.path.ancestors().any(|ancestor| {
            manifest.entries().iter().any(|other| other.unpack.is_none() && other.path.as_str() == ancestor)
        });
        assert!(!blocked, "{path:?}");
    }
    manifest.known_bytes();
}
