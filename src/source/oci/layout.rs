//! Which files a manifest stands for. Pure.
//!
//! | what it is | told by | its files |
//! | --- | --- | --- |
//! | modelcar | the config is a container image's | those below `models/` of the file system that its layers make |
//! | ModelPack | layers `application/vnd.cncf.model.…` | a raw layer is the file at its `filepath`; a tar's entries |
//! | Docker model | layers `application/vnd.docker.ai.…` | a layer is a file, named by annotation or after its type |
//! | ModelKit | layers `application/vnd.kitops.modelkit.…` | the entries of its tars |
//! | any other artifact, as ORAS makes them | – | a layer is the file of its title; a directory's tar is unpacked |
//!
//! Names come from the manifest unchecked: `Manifest::build` refuses those that lead out of the model.

use std::collections::HashMap;

use super::manifest::{Layer, Manifest};
use crate::manifest::{Item, RelPath};
use crate::unpack::{Kind, Unpack};

/// The directory of a modelcar that is the model, as in KServe.
const MODELS: &str = "models";
/// Layers that an image may have. containerd and Docker stop at 127.
const MAX_IMAGE_LAYERS: usize = 1024;

const TITLE: &str = "org.opencontainers.image.title";
const FILE_PATHS: &[&str] = &["org.cncf.model.filepath", "org.cnai.model.filepath"];
/// Set by ORAS on a directory, which it packs as a tar with the directory's name in front of every entry.
const ORAS_UNPACK: &str = "io.deis.oras.content.unpack";

const IMAGE_CONFIGS: &[&str] =
    &["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const IMAGE_LAYERS: &[&str] =
    &["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
/// What ORAS puts where an artifact has no content.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The files of a manifest, and whether it is one single file.
///
/// # Errors
/// A clause that says which layer can't be a file, to follow the name of the model.
pub(super) fn items(manifest: &Manifest) -> Result<(Vec<Item>, bool), String> {
    let layers: Vec<&Layer> = manifest.layers.iter().filter(|layer| layer.media_type != EMPTY).collect();
    let is_image = manifest.artifact_type.is_none()
        && IMAGE_CONFIGS.contains(&manifest.config_type.as_str())
        && !layers.iter().any(|layer| layer.annotations.contains_key(TITLE));
    if is_image && layers.len() > MAX_IMAGE_LAYERS {
        return Err(format!("has {} layers, and an image may have {MAX_IMAGE_LAYERS}", layers.len()));
    }
    let mut items = Vec::with_capacity(layers.len());
    for (number, (layer, place)) in layers.iter().zip(places(&layers)).enumerate() {
        let content = if is_image { image_layer(layer)? } else { artifact_layer(layer, place)? };
        let digest = layer.digest.to_string();
        let (path, unpack) = match content {
            Content::File(path) => (path, None),
            // The number keeps two equal layers apart.
            Content::Layer(below) => {
                (packed(number, layer), Some(Unpack::layer(u32::try_from(number).unwrap_or(u32::MAX), below)))
            }
            Content::Archive(directory) => {
                let unpack = Unpack {
                    kind: Kind::Archive,
                    below: directory.clone(),
                    into: directory,
                    selection: crate::Selection::default(),
                };
                (packed(number, layer), Some(unpack))
            }
        };
        items.push(Item {
            path,
            size: Some(layer.size),
            locator: digest.clone(),
            validator: Some(digest),
            digest: Some(layer.digest),
            unpack,
        });
    }
    let exact = matches!(items.as_slice(), [only] if only.unpack.is_none());
    Ok((items, exact))
}

/// A name for what is unpacked, for messages and progress.
fn packed(number: usize, layer: &Layer) -> String {
    let hex = layer.digest.hex();
    format!("layers/{number}-sha256-{}", &hex[..12])
}

/// Where a layer stands among those of its media type.
#[derive(Clone, Copy)]
struct Place {
    /// From 1 on.
    number: usize,
    count: usize,
}

/// The places of all layers. There may be tens of thousands.
fn places(layers: &[&Layer]) -> Vec<Place> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(layers.len());
    for layer in layers {
        let count = counts.entry(&layer.media_type).or_default();
        *count += 1;
        numbers.push(*count);
    }
    let count = |layer: &&Layer| counts.get(layer.media_type.as_str()).copied().unwrap_or(1);
    numbers.into_iter().zip(layers).map(|(number, layer)| Place { number, count: count(layer) }).collect()
}

/// What a layer holds.
enum Content {
    /// The file of this path.
    File(String),
    /// A tar that is laid over those before it, of which this directory is taken.
    Layer(Option<RelPath>),
    /// A tar whose entries are files of the model, all below this directory.
    Archive(Option<RelPath>),
}

fn image_layer(layer: &Layer) -> Result<Content, String> {
    if !is_image_tar(&layer.media_type) {
        return Err(format!("is an image with a layer of type {}, which is no tar", shown(&layer.media_type)));
    }
    Ok(Content::Layer(RelPath::parse(MODELS).ok()))
}

fn artifact_layer(layer: &Layer, place: Place) -> Result<Content, String> {
    let media_type = layer.media_type.as_str();
    let kind = media_type.strip_prefix("application/vnd.").unwrap_or_default();
    let named = FILE_PATHS.iter().copied().chain([TITLE]).find_map(|key| layer.annotations.get(key));
    let named = named.map(|name| name.strip_prefix("./").unwrap_or(name).to_owned());
    if layer.annotations.get(ORAS_UNPACK).is_some_and(|unpack| unpack == "true") {
        return oras_directory(named.as_deref(), layer);
    }
    let is_tar = [".tar", ".tar+gzip", ".tar+zstd"].iter().any(|end| media_type.ends_with(end));
    if is_tar
        && ["cncf.model.", "cnai.model.", "docker.ai.", "kitops.modelkit."].iter().any(|own| kind.starts_with(own))
    {
        return Ok(Content::Archive(None));
    }
    if let Some(name) = named {
        return Ok(Content::File(name));
    }
    if let Some(own) = kind.strip_prefix("docker.ai.") {
        return docker_name(own, layer, place).map(Content::File);
    }
    // Kubernetes' image volumes lay such layers over each other, whatever the artifact calls itself.
    if is_image_tar(media_type) {
        return Ok(Content::Layer(None));
    }
    Err(format!(
        "has a layer of type {} without a file name (annotation {TITLE}), so that it is no model; push it with a name",
        shown(media_type)
    ))
}

fn oras_directory(named: Option<&str>, layer: &Layer) -> Result<Content, String> {
    let problem = |text: &str| format!("has a directory {text} (layer {})", layer.digest);
    match named.map(|name| name.trim_end_matches('/')) {
        None | Some("") => Err(problem("without a name")),
        Some(".") => Ok(Content::Archive(None)),
        Some(name) => {
            let directory =
                RelPath::parse(name).map_err(|error| problem(&format!("that can't be laid out: {error}")))?;
            Ok(Content::Archive(Some(directory)))
        }
    }
}

/// The names that Docker's own tools give to layers without one.
fn docker_name(own: &str, layer: &Layer, place: Place) -> Result<String, String> {
    let (stem, extension) = match own {
        "gguf.v3" => ("model", ".gguf"),
        "gguf.v3.lora" => ("adapter", ".gguf"),
        "gguf.v3.mmproj" | "mmproj" => ("model", ".mmproj"),
        "safetensors" => ("model", ".safetensors"),
        "dduf" => ("model", ".dduf"),
        "chat.template.jinja" => ("template", ".jinja"),
        "license" => ("LICENSE", ""),
        _ => return Err(format!("has a layer of type {} without a file name", shown(&layer.media_type))),
    };
    Ok(match place {
        Place { count: 1, .. } => format!("{stem}{extension}"),
        Place { number, count } => format!("{stem}-{number:05}-of-{count:05}{extension}"),
    })
}

fn is_image_tar(media_type: &str) -> bool {
    IMAGE_LAYERS.iter().any(|tar| {
        let rest = media_type.strip_prefix(tar);
        rest.is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    })
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Digest;
    use proptest::prelude::*;

    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

    fn layer(media_type: &str, annotations: &[(&str, &str)]) -> Layer {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Layer { media_type: media_type.to_owned(), digest: Digest::of(media_type), size: 7, annotations }
    }

    fn manifest(config: &str, layers: Vec<Layer>) -> Manifest {
        Manifest { artifact_type: None, config_type: config.to_owned(), layers }
    }

    fn artifact(layers: Vec<Layer>) -> Result<Vec<String>, String> {
        let (items, _) = items(&manifest("application/vnd.oci.empty.v1+json", layers))?;
        let described = items.iter().map(|item| match &item.unpack {
            None => item.path.clone(),
            Some(Unpack { kind, below, into, .. }) => {
                assert!(item.path.starts_with("layers/"), "{item:?}");
                format!("{kind:?} {:?} {:?}", below.as_ref().map(RelPath::as_str), into.as_ref().map(RelPath::as_str))
            }
        });
        Ok(described.collect())
    }

    #[test]
    fn an_image_is_its_layers_below_models() {
        for media_type in [
            LAYER,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            let twice = vec![layer(media_type, &[]), layer(media_type, &[])];
            let (items, exact) = items(&manifest(IMAGE, twice)).unwrap();
            assert!(!exact && items[0].path != items[1].path, "{items:?}");
            for (number, item) in items.iter().enumerate() {
                let unpack = item.unpack.as_ref().unwrap();
                assert_eq!(unpack.kind, Kind::Layer(number as u32));
                assert_eq!(unpack.below.as_ref().unwrap().as_str(), "models");
                assert_eq!((item.size, item.digest), (Some(7), Some(Digest::of(media_type))));
            }
        }
        let error = items(&manifest(IMAGE, vec![layer("application/x-tar", &[])])).unwrap_err();
        assert!(error.contains("application/x-tar"), "{error}");
        let many = (0..2000).map(|_| layer(LAYER, &[])).collect();
        assert!(items(&manifest(IMAGE, many)).unwrap_err().contains("2000 layers"));
    }

    #[test]
    fn artifacts_are_the_files_of_their_titles() {
        let title = |name: &'static str| layer("application/octet-stream", &[(TITLE, name)]);
        assert_eq!(artifact(vec![title("a/b.bin"), title("./c")]).unwrap(), ["a/b.bin", "c"]);
        // Old ORAS gave every artifact the config of an image.
        let (found, exact) = items(&manifest(IMAGE, vec![layer(LAYER, &[(TITLE, "m.gguf")])])).unwrap();
        assert!(exact && found[0].path == "m.gguf" && found[0].unpack.is_none(), "{found:?}");
        assert_eq!(artifact(vec![layer(EMPTY, &[])]).unwrap(), [""; 0]);
        assert_eq!(artifact(vec![layer(LAYER, &[])]).unwrap(), ["Layer(0) None None"]);
        let error = artifact(vec![layer("application/vnd.dev.cosign.simplesigning.v1+json", &[])]).unwrap_err();
        assert!(error.contains("without a file name"), "{error}");
    }

    #[test]
    fn directories_of_oras_are_unpacked_below_their_own_name() {
        let directory = |name| {
            artifact(vec![layer(
                "application/vnd.oci.image.layer.v1.tar+gzip",
                &[(TITLE, name), (ORAS_UNPACK, "true")],
            )])
        };
        assert_eq!(directory("weights").unwrap(), ["Archive Some(\"weights\") Some(\"weights\")"]);
        assert_eq!(directory(".").unwrap(), ["Archive None None"]);
        for bad in ["", "../up", "/etc"] {
            assert!(directory(bad).unwrap_err().contains("has a directory"), "{bad}");
        }
    }

    #[test]
    fn model_packs_have_raw_files_and_tars() {
        let path = |media_type, path| layer(media_type, &[(FILE_PATHS[0], path)]);
        let layers = vec![
            path("application/vnd.cncf.model.weight.v1.raw", "model/weights.safetensors"),
            layer("application/vnd.cnai.model.weight.v1", &[(FILE_PATHS[1], "old.bin")]),
            path("application/vnd.cncf.model.weight.config.v1.tar", "config.json"),
            path("application/vnd.cncf.model.doc.v1.tar+gzip", "README.md"),
            path("application/vnd.cncf.model.code.v1.tar+zstd", "run.py"),
            layer("application/vnd.kitops.modelkit.model.v1.tar+gzip", &[]),
        ];
        let tar = "Archive None None";
        assert_eq!(artifact(layers).unwrap(), ["model/weights.safetensors", "old.bin", tar, tar, tar, tar]);
        let error = artifact(vec![layer("application/vnd.cncf.model.weight.v1.raw", &[])]).unwrap_err();
        assert!(error.contains("application/vnd.cncf.model.weight.v1.raw"), "{error}");
    }

    #[test]
    fn docker_models_have_names_of_their_types() {
        let plain = |own: &str| layer(&format!("application/vnd.docker.ai.{own}"), &[]);
        let one =
            vec![plain("gguf.v3"), plain("mmproj"), plain("license"), plain("chat.template.jinja"), plain("dir.tar")];
        assert_eq!(
            artifact(one).unwrap(),
            ["model.gguf", "model.mmproj", "LICENSE", "template.jinja", "Archive None None"]
        );
        let shards = vec![plain("safetensors"), plain("safetensors"), plain("vllm.config.tar")];
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "Archive None None"];
        assert_eq!(artifact(shards).unwrap(), names);
        let named = layer("application/vnd.docker.ai.safetensors", &[(FILE_PATHS[0], "first.safetensors")]);
        assert_eq!(
            artifact(vec![named, plain("safetensors")]).unwrap(),
            ["first.safetensors", "model-00002-of-00002.safetensors"]
        );
        let many = (0..60_000).map(|_| plain("safetensors")).collect();
        assert_eq!(artifact(many).unwrap().last().unwrap(), "model-60000-of-60000.safetensors");
        let annotated = layer("application/vnd.docker.ai.gguf.v3", &[(FILE_PATHS[0], "sub/q4.gguf")]);
        assert_eq!(artifact(vec![annotated]).unwrap(), ["sub/q4.gguf"]);
        assert!(artifact(vec![plain("news")]).unwrap_err().contains("docker.ai.news"));
    }

    proptest! {
        #[test]
        fn every_layer_is_one_item_or_the_manifest_is_refused(
            types in prop::collection::vec("application/vnd\\.(docker\\.ai\\.(gguf\\.v3|safetensors|dir\\.tar)|cncf\\.model\\.weight\\.v1\\.raw|oci\\.image\\.layer\\.v1\\.tar)", 1..6),
            key in 0..3usize, name in "[a-z./é]{0,9}", config in prop::sample::select(vec![IMAGE, EMPTY]),
        ) {
            let layers: Vec<_> = types.iter().map(|own| layer(own, &[([TITLE, FILE_PATHS[0], ORAS_UNPACK][key], &name)])).collect();
            if let Ok((found, exact)) = items(&manifest(config, layers)) {
                prop_assert_eq!(found.len(), types.len());
                prop_assert!(found.iter().all(|item| item.digest.is_some() && item.size == Some(7)));
                prop_assert_eq!(exact, types.len() == 1 && found[0].unpack.is_none());
            }
        }
    }
}
