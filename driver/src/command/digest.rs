//! `modelmount digest`: what a directory holds, as the attribute `digest` wants it.

use modelmount::Content;
use modelmount::size::Size;
use serde::Serialize;

use super::resolve::json;
use super::terminal::{files, note};
use super::{Failure, print};
use crate::args::{Digest, Output};

#[derive(Serialize)]
struct Answer {
    digest: String,
    bytes: u64,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: String,
    size: u64,
    digest: String,
}

pub(super) fn run(args: &Digest) -> Result<(), Failure> {
    let content = Content::read(&args.directory)?;
    if content.files.is_empty() {
        return Err(Failure::Failed(format!("{} has no files", args.directory.display())));
    }
    match args.output {
        Output::Text => {
            note(&format!("{}: {}, {}", args.directory.display(), files(content.files.len()), Size(content.bytes())));
            print(&format!("{}\n", content.digest));
        }
        Output::Json => print(&json(&answer(&content))?),
    }
    Ok(())
}

fn answer(content: &Content) -> Answer {
    let file = |(path, digest, size): &(modelmount::RelPath, modelmount::Digest, u64)| File {
        path: path.to_string(),
        size: *size,
        digest: digest.to_string(),
    };
    Answer {
        digest: content.digest.to_string(),
        bytes: content.bytes(),
        files: content.files.iter().map(file).collect(),
    }
}
