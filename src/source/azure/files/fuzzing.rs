//! What must hold of a share's listings.

use super::page::{self, Child, Problem};
use crate::source::fuzzing::refused;

/// Names lead nowhere but into their directory.
pub(in crate::source::azure) fn listing(body: &[u8]) -> bool {
    match page::parse(body) {
        Ok(page) => {
            for child in &page.children {
                let (Child::Directory { name } | Child::File { name, .. }) = child;
                assert!(!name.contains(['/', '\\', '\0']) && !matches!(name.as_str(), "" | "." | ".."), "{name:?}");
            }
            assert!(page.next.is_none_or(|next| !next.is_empty()));
            true
        }
        Err(Problem::NoListing) => false,
        Err(Problem::Name(name)) => refused(&format!("{name:?}")),
    }
}
