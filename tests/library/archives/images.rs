//! Layers of images: the model is what they make together.

use modelmount::ErrorKind;

use super::*;
use crate::memory::source;
use crate::node::{assert_snapshot, limits};

fn text(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

/// The number of a layer is the digit at its name's end.
fn numbered(path: &str) -> Option<Unpack> {
    Some(layer(u32::from(path.as_bytes()[path.len() - 1] - b'0')))
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_lie_over_one_another() {
    let base = text(&[("models/a", "old"), ("models/b/c", "kept"), ("models/d", "removed"), ("bin/sh", "no model")]);
    let middle = text(&[("models/a", "new"), ("models/.wh.d", ""), ("models/e/f", "hidden")]);
    let top = text(&[("models/e/.wh..wh..opq", ""), ("models/e/g", "seen")]);
    let mut layers = Files::new();
    // Their names in another order than their numbers.
    for (name, files, how) in [
        ("zz-0", &base, "ln -s b models/../link; tar -cf - ."),
        ("mm-1", &middle, "tar -cf - . | gzip"),
        ("aa-2", &top, "tar -cf - . | zstd -q"),
    ] {
        layers.insert(name.to_owned(), pack(files, how).unwrap());
    }
    let memory = Memory::new(&layers);
    let manifest = memory.manifest_unpacking(numbered).await;
    let expected = text(&[("a", "new"), ("b/c", "kept"), ("e/g", "seen")]);
    let node = Node::new(limits(4));
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &expected);

    // An image that has the same base, and another layer.
    let read = memory.bytes_read();
    let top = pack(&text(&[("models/x", "1")]), "tar -cf - .").unwrap();
    memory.put("top-3", top.clone());
    let other = memory.manifest_unpacking(|path| if path.starts_with("aa") { None } else { numbered(path) }).await;
    let entries = other.entries().len();
    let snapshot = node.fetch(&source(&memory), &other).await.unwrap();
    assert_eq!((entries, snapshot.files().len()), (4, 5), "{:?}", snapshot.files());
    assert_eq!(memory.bytes_read() - read, (top.len() + layers["aa-2"].len()) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_the_model() {
    let memory = memory("layer-0", &tar(&text(&[("bin/sh", "x")])).unwrap());
    let manifest = memory.manifest_unpacking(numbered).await;
    let error = Node::new(limits(1)).fetch(&source(&memory), &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

/// Each of them could be unpacked, and what is held of all of them in memory would be too much.
#[tokio::test(flavor = "multi_thread")]
async fn layers_of_endless_names() {
    let deep = [&*"x".repeat(250); 11].join("/");
    let files: Files = (0..2_000).map(|number| (format!("models/{deep}/{number}"), Vec::new())).collect();
    let layer = tar(&files).unwrap();
    let memory = Memory::new(&(0..4).map(|number| (format!("layer-{number}"), layer.clone())).collect());
    let manifest = memory.manifest_unpacking(numbered).await;
    let node = Node::new(limits(4));
    let error = node.fetch(&source(&memory), &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.report().contains("16 MiB of names, with those of \"layer-"), "{error:?}");
}

/// Files that are one on the disk of whoever made the image.
#[tokio::test(flavor = "multi_thread")]
async fn hard_links_within_a_layer() {
    let files = text(&[("models/a", "shared")]);
    let memory = memory("layer-0", &pack(&files, "ln models/a models/b; tar --sort=name -cf - .").unwrap());
    let manifest = memory.manifest_unpacking(numbered).await;
    let expected = text(&[("a", "shared"), ("b", "shared")]);
    let node = Node::new(limits(1));
    assert_snapshot(&node.fetch(&source(&memory), &manifest).await.unwrap(), &expected);
    let destination = tempfile::tempdir().unwrap();
    let pulled =
        modelmount::fetch::pull(&manifest, source(&memory), destination.path(), limits(1), Arc::default()).await;
    assert_eq!(pulled.unwrap().files.len(), 2);
    crate::node::assert_tree(destination.path(), &expected, 0o644);
    fs::write(destination.path().join("a"), "changed").unwrap();
    assert_eq!(fs::read_to_string(destination.path().join("b")).unwrap(), "shared", "they are two files here");
}
