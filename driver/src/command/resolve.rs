//! `modelmount resolve`: what a URI stands for, without downloading it.

use modelmount::size::Size;
use modelmount::unpack::{Kind, Unpack};
use modelmount::{Entry, Manifest, RelPath};
use serde::Serialize;

use super::environment::Environment;
use super::pull::{request, unrestricted};
use super::terminal::files;
use super::{Failure, print, runtime};
use crate::args::{Output, Resolve};

#[derive(Serialize)]
struct Answer<'a> {
    uri: String,
    revision: Option<&'a str>,
    /// None when the source tells no versions: then nothing can be pinned to it.
    id: Option<String>,
    bytes: u64,
    files: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    size: Option<u64>,
    digest: Option<String>,
    validator: Option<&'a str>,
    /// What it is unpacked as; absent for a file that is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unpack: Option<Unpacked<'a>>,
}

#[derive(Serialize)]
struct Unpacked<'a> {
    kind: &'static str,
    below: Option<&'a str>,
    into: Option<&'a str>,
}

pub(super) fn run(args: &Resolve) -> Result<(), Failure> {
    let environment = Environment::of_this_process()?;
    let request = request(&args.uri, &args.attribute, &environment)?;
    let context = unrestricted(&environment, &args.trust)?;
    let manifest = runtime()?.block_on(async {
        let model = request.open(&environment.credentials(), &context)?;
        request.resolve(&model).await
    })?;
    let answer = answer(&manifest);
    print(&match args.output {
        Output::Text => text(&answer),
        Output::Json => json(&answer)?,
    });
    Ok(())
}

fn answer(manifest: &Manifest) -> Answer<'_> {
    Answer {
        uri: manifest.name().to_owned(),
        revision: manifest.revision(),
        id: manifest.tells_versions().then(|| manifest.id().to_string()),
        bytes: manifest.known_bytes(),
        files: manifest.entries().iter().map(|entry| file(entry)).collect(),
    }
}

fn file(entry: &Entry) -> File<'_> {
    let Entry { path, size, digest, validator, unpack, .. } = entry;
    let digest = digest.map(|digest| digest.to_string());
    let unpack = unpack.as_ref().map(unpacked);
    File { path: path.as_str(), size: *size, digest, validator: validator.as_deref(), unpack }
}

fn unpacked(unpack: &Unpack) -> Unpacked<'_> {
    let kind = match unpack.kind {
        Kind::Archive => "archive",
        Kind::Perhaps => "archive, if its first bytes say so",
        Kind::Layer(_) => "layer",
    };
    let (below, into) = (&unpack.below, &unpack.into);
    Unpacked { kind, below: below.as_ref().map(RelPath::as_str), into: into.as_ref().map(RelPath::as_str) }
}

fn text(answer: &Answer<'_>) -> String {
    let mut text = format!("{}: {}, {}\n", answer.uri, files(answer.files.len()), Size(answer.bytes));
    if let Some(revision) = answer.revision {
        text.push_str(&format!("revision {revision}\n"));
    }
    for File { path, size, digest, validator, unpack } in &answer.files {
        let size = size.map_or_else(|| "?".to_owned(), |size| size.to_string());
        let identity = digest.as_deref().or(*validator).unwrap_or("no version");
        text.push_str(&format!("{size:>14}  {path}  {identity}"));
        if let Some(Unpacked { kind, below, into }) = unpack {
            text.push_str(&format!("  unpacked as {kind}"));
            for (word, directory) in [("from", below), ("into", into)] {
                if let Some(directory) = directory {
                    text.push_str(&format!(", {word} {directory}/"));
                }
            }
        }
        text.push('\n');
    }
    text
}

/// One JSON document and a line's end.
pub(super) fn json(answer: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(answer).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(text + "\n")
}
