//! `Transfers` into a `Cache`: whole, once, resumable, and never of two versions.

mod arrival;
mod change;
mod credentials;
mod faults;
mod resume;
mod space;

use modelmount_test_support::Pattern;
use modelmount_test_support::model::Files;

/// What a request and its answer's head take beside the bytes that were asked for, at most.
const HEAD: u64 = 2 << 10;

/// Files of these sizes.
fn sized(sizes: &[(&str, u64)]) -> Files {
    let file = |(i, (name, size)): (usize, &(&str, u64))| {
        ((*name).to_owned(), Pattern::new(i as u64).bytes(0, usize::try_from(*size).unwrap()))
    };
    sizes.iter().enumerate().map(file).collect()
}

fn size(files: &Files) -> u64 {
    files.values().map(|bytes| bytes.len() as u64).sum()
}
