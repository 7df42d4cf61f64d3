//! Modelcars: images with a model below `models/`, made by buildah and unpacked by crane as well as by us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelmount::Manifest;
use modelmount::unpack::Kind;
use modelmount_test_support::model::Files;
use modelmount_test_support::{Pattern, Registry, RegistryKind, model, tools};
use serde_json::Value;

use super::{assert_same, files, found, read, run};

/// How an image is pushed.
#[derive(Clone, Copy, Debug)]
enum Format {
    Gzip,
    Zstd,
    Plain,
    Docker,
}

impl Format {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Gzip => &["--compression-format", "gzip"],
            Self::Zstd => &["--compression-format", "zstd"],
            Self::Plain => &["--disable-compression"],
            Self::Docker => &["--format", "v2s2"],
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// A modelcar of three layers, of which the later ones replace, remove and hide files of the earlier; and what it holds.
struct Car {
    registry: Registry,
    crane: PathBuf,
    expected: Files,
}

impl Car {
    async fn push(format: Format) -> Option<Self> {
        let (buildah, crane) = (tools::require("buildah")?, tools::require("crane")?);
        if !nix::unistd::geteuid().is_root() {
            tools::skip("buildah needs root to look into an image");
            return None;
        }
        let registry = Registry::start(RegistryKind::Distribution).await?;
        let work = registry.scratch().join("work");
        let buildah = |arguments: &[&str]| {
            let mut command = Command::new(&buildah);
            command.arg("--root").arg(work.join("storage")).arg("--runroot").arg(work.join("run"));
            run(command.args(["--storage-driver", "vfs"]).args(arguments)).trim().to_owned()
        };
        let layer = |base: &str, name: &str, files: &Files, outside: &Files, removed: &[&str]| {
            let container = buildah(&["from", base]);
            for (files, place) in [(files, "/models"), (outside, "/")] {
                let directory = work.join(format!("{name}{}", place.replace('/', "-")));
                model::write(files, &directory).unwrap();
                if !files.is_empty() {
                    buildah(&["copy", "--quiet", &container, directory.to_str().unwrap(), place]);
                }
            }
            let mounted = PathBuf::from(buildah(&["mount", &container]));
            for path in removed {
                remove(&mounted.join("models").join(path));
            }
            buildah(&["umount", &container]);
            buildah(&["commit", "--quiet", &container, name]);
        };
        let file = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
        let mut expected = model::small(21);
        expected.insert("weights.bin".into(), Pattern::new(21).bytes(0, 300_001));
        let mut first = expected.clone();
        first.extend([file("gone.txt", "gone"), file("old/a", "a"), file("old/b/c", "c"), file("kept/x", "old x")]);
        let outside = Files::from([file("etc/passwd", "root"), file("models.txt", "no part of it")]);
        layer("scratch", "first", &first, &outside, &[]);
        // A directory that is removed and made anew in one layer hides what was in it (an opaque whiteout, for some).
        // Of another length: buildah does not see a change of content alone within a second.
        layer("first", "second", &Files::from([file("kept/x", "replaced x")]), &Files::new(), &["gone.txt", "old"]);
        layer("second", "third", &Files::from([file("old/d", "d")]), &Files::new(), &[]);
        expected.extend([file("kept/x", "replaced x"), file("old/d", "d")]);

        let destination = format!("docker://{}", registry.reference("car:v1"));
        let flags = [&["push", "--quiet", "--tls-verify=false"], format.flags(), &["third", &destination]].concat();
        buildah(&flags);
        let manifest = run(Command::new(&crane).args(["manifest", &registry.reference("car:v1")]));
        assert_eq!(manifest.matches(format.layer()).count(), 3, "{manifest}");
        Some(Self { registry, crane, expected })
    }

    /// What crane makes of the image's layers.
    fn flattened(&self) -> Files {
        let tar = self.registry.scratch().join("flat.tar");
        run(Command::new(&self.crane).args(["export", &self.registry.reference("car:v1")]).arg(&tar));
        let directory = self.registry.scratch().join("flat");
        fs::create_dir(&directory).unwrap();
        run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&directory));
        read(&directory.join("models"))
    }
}

fn remove(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

fn assert_layers(manifest: &Manifest, shown: &Value) {
    let layers = shown["layers"].as_array().unwrap();
    assert_eq!(manifest.entries().len(), layers.len());
    for (number, (entry, layer)) in manifest.entries().iter().zip(layers).enumerate() {
        let unpack = entry.unpack.as_ref().unwrap();
        assert_eq!((unpack.kind, unpack.below.as_ref().unwrap().as_str()), (Kind::Layer(number as u32), "models"));
        assert!(entry.path.as_str().starts_with(&format!("layers/{number}-sha256-")), "{:?}", entry.path);
        assert_eq!(layer["digest"], entry.digest.unwrap().to_string());
        assert_eq!(layer["size"], entry.size.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelcar_is_listed_as_its_layers() {
    for format in [Format::Gzip, Format::Zstd, Format::Plain, Format::Docker] {
        let Some(car) = Car::push(format).await else { return };
        let (_, manifest) = found(&car.registry, "car:v1").await;
        let shown = run(Command::new(&car.crane).args(["manifest", &car.registry.reference("car:v1")]));
        assert_layers(&manifest, &serde_json::from_str(&shown).unwrap());
    }
}

async fn arrives_as_crane_has_it(format: Format) {
    let Some(car) = Car::push(format).await else { return };
    let (model, manifest) = found(&car.registry, "car:v1").await;
    let ours = files(&model, &manifest).await.unwrap();
    assert_same(&ours, &car.flattened());
    assert_same(&ours, &car.expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelcar_of_gzip_layers() {
    arrives_as_crane_has_it(Format::Gzip).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelcar_of_zstd_layers() {
    arrives_as_crane_has_it(Format::Zstd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelcar_of_plain_layers() {
    arrives_as_crane_has_it(Format::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelcar_of_docker_layers() {
    arrives_as_crane_has_it(Format::Docker).await;
}
