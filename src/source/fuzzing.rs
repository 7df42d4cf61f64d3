//! What fuzzing runs (`fuzz/targets`): each parser of what a server sends or a user writes, and what must hold of
//! whatever comes out of it.
//!
//! For fuzzing and for tests alone, which run the kept corpora and mutations of them. Each source says in its own
//! `fuzzing.rs` what holds of it. An input is a letter, which names the parser, and what that parses.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Context, Options};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::manifest::{Item, Listing, Manifest};
use crate::policy::Policy;
use crate::select::Selection;
use crate::unpack::Archives;
use crate::uri::ModelUri;

/// Parses, panics unless everything holds that must, and says whether the input was accepted.
pub(super) type Check = fn(&[u8]) -> bool;

/// The checks of a source, by their letters.
pub(super) type Checks = &'static [(u8, Check)];

/// The fuzz targets, by their names.
const TARGETS: &[(&str, &[Checks])] = &[
    (
        "hub",
        &[
            #[cfg(feature = "huggingface")]
            super::huggingface::fuzzing::CHECKS,
            #[cfg(feature = "modelscope")]
            super::modelscope::fuzzing::CHECKS,
        ],
    ),
    (
        "registry",
        &[
            #[cfg(feature = "oci")]
            super::oci::fuzzing::CHECKS,
        ],
    ),
    (
        "git",
        &[
            #[cfg(feature = "git")]
            super::git::fuzzing::CHECKS,
        ],
    ),
    (
        "hdfs",
        &[
            #[cfg(feature = "hdfs")]
            super::hdfs::fuzzing::CHECKS,
        ],
    ),
    (
        "objects",
        &[
            #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
            super::object::fuzzing::CHECKS,
            #[cfg(feature = "s3")]
            super::s3::fuzzing::CHECKS,
            #[cfg(feature = "gcs")]
            super::gcs::fuzzing::CHECKS,
            #[cfg(feature = "azure")]
            super::azure::fuzzing::CHECKS,
        ],
    ),
    (
        "web",
        &[
            #[cfg(feature = "http")]
            super::http::fuzzing::CHECKS,
        ],
    ),
];

/// Runs the check of `target` that the first byte of `input` names; says whether the rest was accepted.
///
/// # Panics
/// When something does not hold.
pub fn check(target: &str, input: &[u8]) -> bool {
    let Some((letter, rest)) = input.split_first() else { return false };
    named(target, *letter).is_some_and(|check| check(rest))
}

fn named(target: &str, letter: u8) -> Option<Check> {
    let checks = TARGETS.iter().filter(|(name, _)| *name == target).flat_map(|(_, checks)| *checks);
    checks.copied().flatten().find(|(own, _)| *own == letter).map(|(_, check)| *check)
}

/// What all sources are opened with here.
pub(super) static CONTEXT: LazyLock<Context> = LazyLock::new(|| match Context::new(Policy::default()) {
    Ok(context) => context,
    Err(error) => panic!("TLS can't be set up: {error:?}"),
});

/// Most bytes of a sentence that has a server's or a user's words in it.
const MOST_SHOWN: usize = 2048;

/// Checks words that go into an error, an event and a log: on one line, of bounded length. Says `false`, as the check
/// that was refused with these words does.
pub(super) fn refused(words: &str) -> bool {
    assert!(!words.chars().any(char::is_control), "control characters in {words:?}");
    assert!(words.len() <= MOST_SHOWN, "{} bytes: {words:?}", words.len());
    false
}

/// Checks that files, as a source lists them, are refused or can be laid out in a directory; says which.
pub(super) fn laid_out(items: Vec<Item>, exact: bool) -> bool {
    if items.is_empty() {
        return true;
    }
    let Ok(uri) = ModelUri::parse("s3://bucket/model") else { return false };
    let listing = Listing { store: "store".to_owned(), revision: None, items, exact };
    let manifest = match Manifest::build(&uri, listing, &Selection::default(), Archives::Auto) {
        Ok(manifest) => manifest,
        Err(error) => return refused(&error.report()),
    };
    let files: BTreeSet<&str> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(files.len(), manifest.entries().len(), "two files of one name");
    for entry in manifest.entries().iter().filter(|entry| entry.unpack.is_none()) {
        assert!(entry.path.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", entry.path);
        assert!(entry.path.ancestors().all(|above| !files.contains(above)), "{} lies in a file", entry.path);
    }
    true
}

/// What a user writes: a URI; on the lines after it attributes as `@name=value`, and keys of a Secret as `name=value`.
/// A tab in a value stands for the end of a line.
pub(super) struct Written {
    pub(super) uri: ModelUri,
    pub(super) options: Options,
    pub(super) credentials: Credentials,
    /// Whether nothing but values of the Secret has the word that no error may have.
    secret: bool,
}

/// What no error may show, where only a Secret has it.
const CANARY: &str = "CANARY";

/// Ends of the names of keys whose values say where something is: they may be shown.
const PLACES: &[&str] = &["ENDPOINT", "ENDPOINT_URL", "DOMAIN", "NAMENODE", "ROOTPATH", "ACCOUNT"];

impl Written {
    pub(super) fn parse(input: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(input).ok()?.lines();
        let first = lines.next()?;
        let (mut options, mut secrets, mut open) = (Options::new(), Vec::new(), first.to_owned());
        for line in lines {
            let (name, value) = line.split_once('=')?;
            let text = value.replace('\t', "\n");
            open.push_str(name);
            if name.starts_with('@') || PLACES.iter().any(|end| name.ends_with(end)) {
                open.push_str(value);
            }
            match name.strip_prefix('@') {
                Some(name) => {
                    options.insert(name.to_owned(), text);
                }
                None => secrets.push((name.to_owned(), text)),
            }
        }
        // Where text is shown, control characters are left out.
        open.retain(|c| !c.is_control());
        let secret = !open.contains(CANARY);
        let uri = ModelUri::parse(first).ok()?;
        Some(Self { uri, options, credentials: secrets.into_iter().collect(), secret })
    }

    /// As the function [`refused`]; nor may the words have anything of the Secret.
    pub(super) fn refused(&self, error: &Error) -> bool {
        let words = error.report();
        assert!(!self.secret || !words.contains(CANARY), "a secret in {words:?}");
        refused(&words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::Index;

    /// The kept inputs, of parsers that this build has: target, file name, content.
    fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut all = Vec::new();
        for (target, _) in TARGETS {
            for file in fs::read_dir(directory.join(target)).unwrap() {
                let file = file.unwrap();
                let input = fs::read(file.path()).unwrap();
                if named(target, input[0]).is_some() {
                    all.push((*target, file.file_name().into_string().unwrap(), input));
                }
            }
        }
        all
    }

    #[test]
    fn the_kept_inputs_are_accepted_unless_their_names_say_otherwise() {
        for (target, name, input) in corpus() {
            assert_eq!(check(target, &input), !name.starts_with("refused-"), "{target}/{name}");
        }
    }

    #[test]
    fn every_parser_has_kept_inputs_of_its_own_letter() {
        let corpus = corpus();
        for (target, checks) in TARGETS {
            let letters: Vec<u8> = checks.iter().flat_map(|checks| checks.iter().map(|(letter, _)| *letter)).collect();
            assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), letters.len(), "{target} has a letter twice");
            for letter in letters {
                let accepted = |(of, name, input): &(&str, String, Vec<u8>)| {
                    of == target && input[0] == letter && !name.starts_with("refused-")
                };
                assert!(corpus.iter().any(accepted), "{target}: nothing of {:?} is accepted", char::from(letter));
            }
        }
    }

    proptest! {
        #[test]
        fn what_must_hold_holds_of_anything(input in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            for (target, checks) in TARGETS {
                for (letter, _) in checks.iter().copied().flatten() {
                    for rest in [input.as_slice(), text.as_bytes()] {
                        check(target, &[&[*letter], rest].concat());
                    }
                }
            }
        }

        #[test]
        fn what_must_hold_holds_of_mutations_of_the_kept_inputs(
            seed: Index, other: Index, cut: Index, how in 0..4,
            changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        ) {
            let corpus = corpus();
            // A build may have none of these sources.
            if corpus.is_empty() {
                return Ok(());
            }
            let (target, _, mut input) = seed.get(&corpus).clone();
            // Behind the letter.
            let mut rest = input.split_off(1);
            let at = cut.index(rest.len());
            match how {
                0 => rest.truncate(at),
                1 => rest.extend_from_within(at..),
                2 => {
                    rest.truncate(at);
                    rest.extend_from_slice(&other.get(&corpus).2[1..]);
                }
                _ => {}
            }
            for (place, byte) in changes {
                if !rest.is_empty() {
                    let place = place.index(rest.len());
                    rest[place] = byte;
                }
            }
            input.append(&mut rest);
            check(target, &input);
        }
    }
}
