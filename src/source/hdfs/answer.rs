//! What a namenode's JSON says. The text comes from a server that need not be friendly.

use serde::Deserialize;

use crate::error::shown;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
}

/// What the namenode knows about a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    /// Its name in the directory that was listed; empty when it was asked for by its path.
    #[serde(rename = "pathSuffix")]
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    /// In bytes.
    pub(super) length: u64,
    /// In milliseconds.
    #[serde(rename = "modificationTime")]
    modified: i64,
    /// Never given to another file. Gateways may leave it out.
    #[serde(rename = "fileId", default)]
    id: u64,
}

impl Status {
    /// What changes whenever the content does.
    pub(super) fn validator(&self) -> String {
        format!("file {} modified {} length {}", self.id, self.modified, self.length)
    }

    fn has_a_name(&self) -> bool {
        !self.name.is_empty() && !self.name.contains('/') && !matches!(self.name.as_str(), "." | "..")
    }
}

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Status>,
    /// How many follow.
    pub(super) remaining: u64,
}

#[derive(Deserialize)]
struct FileStatus {
    #[serde(rename = "FileStatus")]
    status: Status,
}

#[derive(Deserialize)]
struct FileStatuses {
    #[serde(rename = "FileStatuses")]
    statuses: Statuses,
}

#[derive(Deserialize)]
struct Statuses {
    #[serde(rename = "FileStatus")]
    entries: Vec<Status>,
}

#[derive(Deserialize)]
struct DirectoryListing {
    #[serde(rename = "DirectoryListing")]
    listing: Batch,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    partial_listing: FileStatuses,
    remaining_entries: u64,
}

/// The answer to `GETFILESTATUS`.
pub(super) fn status(json: &[u8]) -> Result<Status, String> {
    serde_json::from_slice::<FileStatus>(json).map(|answer| answer.status).map_err(unexpected)
}

/// The answer to `LISTSTATUS`.
pub(super) fn listing(json: &[u8]) -> Result<Page, String> {
    let answer: FileStatuses = serde_json::from_slice(json).map_err(unexpected)?;
    page(answer.statuses.entries, 0)
}

/// The answer to `LISTSTATUS_BATCH`.
pub(super) fn batch(json: &[u8]) -> Result<Page, String> {
    let DirectoryListing { listing } = serde_json::from_slice(json).map_err(unexpected)?;
    page(listing.partial_listing.statuses.entries, listing.remaining_entries)
}

fn page(entries: Vec<Status>, remaining: u64) -> Result<Page, String> {
    match entries.iter().find(|entry| !entry.has_a_name()) {
        Some(entry) => {
            let shown = shown(&entry.name);
            Err(format!("a directory has an entry with the name {shown:?}"))
        }
        None if entries.is_empty() && remaining > 0 => Err("a listing does not go on".to_owned()),
        None => Ok(Page { entries, remaining }),
    }
}

fn unexpected(error: serde_json::Error) -> String {
    // The text of the error could quote the answer.
    format!("its answer is not what WebHDFS says (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str) -> String {
        let name = serde_json::to_string(name).unwrap();
        format!(r#"{{"fileId":7,"length":5,"modificationTime":1,"pathSuffix":{name},"type":"FILE","group":"g"}}"#)
    }

    #[test]
    fn answers_are_read() {
        let one = format!(r#"{{"FileStatus":{}}}"#, entry(""));
        assert_eq!(status(one.as_bytes()).unwrap().validator(), "file 7 modified 1 length 5");
        let two = format!(r#"{{"FileStatuses":{{"FileStatus":[{},{}]}}}}"#, entry("a"), entry("b"));
        assert_eq!(listing(two.as_bytes()).unwrap().entries.len(), 2);
        let some = format!(r#"{{"DirectoryListing":{{"partialListing":{two},"remainingEntries":9}}}}"#);
        assert_eq!(batch(some.as_bytes()).unwrap().remaining, 9);
        let old = r#"{"FileStatus":{"length":5,"modificationTime":1,"pathSuffix":"","type":"DIRECTORY"}}"#;
        assert_eq!(status(old.as_bytes()).unwrap().kind, Kind::Directory);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "../a", "/etc", &"/".repeat(10_000)] {
            let json = format!(r#"{{"FileStatuses":{{"FileStatus":[{}]}}}}"#, entry(name));
            let problem = listing(json.as_bytes()).unwrap_err();
            assert!(problem.contains("entry with the name") && problem.len() < 200, "{problem}");
        }
        let stuck =
            r#"{"DirectoryListing":{"partialListing":{"FileStatuses":{"FileStatus":[]}},"remainingEntries":1}}"#;
        assert!(batch(stuck.as_bytes()).unwrap_err().contains("does not go on"));
        assert!(status(br#"{"FileStatus":{"length":-5}}"#).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
            for json in [bytes.as_slice(), text.as_bytes()] {
                let _ = (status(json), listing(json), batch(json));
            }
        }

        #[test]
        fn every_name_in_a_page_is_one_component(names in prop::collection::vec(".{0,9}", 0..5), remaining: u64) {
            let entries: Vec<String> = names.iter().map(|name| entry(name)).collect();
            let listed = format!(r#"{{"FileStatuses":{{"FileStatus":[{}]}}}}"#, entries.join(","));
            let json = format!(r#"{{"DirectoryListing":{{"partialListing":{listed},"remainingEntries":{remaining}}}}}"#);
            if let Ok(page) = batch(json.as_bytes()) {
                prop_assert_eq!(page.entries.len(), names.len());
                prop_assert!(page.entries.iter().all(|entry| !entry.name.contains('/') && !entry.name.is_empty()));
            }
        }
    }
}
