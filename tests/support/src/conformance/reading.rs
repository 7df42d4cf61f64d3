//! Checks 10 to 15: exactly the bytes that were listed, or an error.

use std::ops::Range;

use futures_util::TryStreamExt;
use modelmount::source::{Portion, Source};
use modelmount::{Entry, ErrorKind};

use super::{Suite, expect_error, read};
use crate::model::Pattern;

/// Reads a range, or says that the source has none of this file.
async fn read_range(check: &str, source: &dyn Source, entry: &Entry, range: Range<u64>) -> Option<Vec<u8>> {
    match read(source, entry, Portion::Range(range.clone())).await {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::RangesUnsupported => None,
        Err(error) => panic!("{check}: {range:?}: {error:?}"),
    }
}

pub(super) async fn portions(suite: &Suite<'_>) {
    let content = Pattern::new(10).bytes(0, 200_003);
    let size = content.len() as u64;
    suite.fixture.put("conformance/portions.bin", content.clone()).await;
    let (source, entry) = suite.resolve_file("conformance/portions.bin").await;

    let check = "10 (the whole is exactly the content)";
    let whole = read(&*source, &entry, Portion::Whole).await.unwrap_or_else(|error| panic!("{check}: {error:?}"));
    assert!(whole == content, "{check}: {} bytes instead of {size}", whole.len());
    let again = read(&*source, &entry, Portion::Whole).await.unwrap_or_else(|error| panic!("11: {error:?}"));
    assert!(again == whole, "11 (a second read gives the same)");

    let check = "12 (a range is exactly its bytes)";
    for range in [0..1, size - 1..size, 100_000..150_000, 65_530..65_545, 1..size, 0..size] {
        // A server may refuse ranges of a file, but then of all of them: the whole serves instead.
        let Some(bytes) = read_range(check, &*source, &entry, range.clone()).await else { break };
        let expected = &content[range.start as usize..range.end as usize];
        assert!(bytes == expected, "{check}: {range:?} gave {} bytes, or other ones", bytes.len());
    }

    suite.fixture.put("conformance/empty.bin", Vec::new()).await;
    let (source, entry) = suite.resolve_file("conformance/empty.bin").await;
    let check = "13 (a file of zero bytes is read as zero bytes)";
    let nothing = read(&*source, &entry, Portion::Whole).await.unwrap_or_else(|error| panic!("{check}: {error:?}"));
    assert!(nothing.is_empty(), "{check}");
}

pub(super) async fn replaced_content(suite: &Suite<'_>) {
    let check = "14 (content replaced after listing is reported as changed)";
    let (old, new) = (Pattern::new(14).bytes(0, 50_000), Pattern::new(15).bytes(0, 50_000));
    suite.fixture.put("conformance/replaced.bin", old.clone()).await;
    let (source, entry) = suite.resolve_file("conformance/replaced.bin").await;
    suite.fixture.replace("conformance/replaced.bin", new.clone()).await;
    let whole = read(&*source, &entry, Portion::Whole).await;
    if entry.validator.is_none() {
        assert!(whole.is_ok_and(|bytes| bytes == new), "{check}: without a validator, it is the new content");
        return;
    }
    if suite.fixture.keeps_versions() {
        let whole = whole.unwrap_or_else(|error| panic!("{check}: {error:?}"));
        assert!(whole == old, "{check}: where versions are kept, it is the listed content");
        let part = read_range(check, &*source, &entry, 10..20).await;
        assert!(part.is_none_or(|bytes| bytes == old[10..20]), "{check}: where versions are kept, parts of it too");
        return changing_content(suite).await;
    }
    expect_error(check, whole.map(|bytes| bytes.len()), &[ErrorKind::Changed]);
    let part = read(&*source, &entry, Portion::Range(10..20)).await;
    expect_error(check, part, &[ErrorKind::Changed, ErrorKind::RangesUnsupported]);
    changing_content(suite).await;
}

async fn changing_content(suite: &Suite<'_>) {
    let check = "15 (content replaced while it is read is never mixed)";
    // More than the kernel's buffers hold, so that most of it is still to be sent when it is replaced.
    let (old, new) = (Pattern::new(16).bytes(0, 16 << 20), Pattern::new(17).bytes(0, 16 << 20));
    suite.fixture.put("conformance/changing.bin", old.clone()).await;
    let (source, entry) = suite.resolve_file("conformance/changing.bin").await;
    let mut stream = source.read(&entry, Portion::Whole).await.unwrap_or_else(|error| panic!("{check}: {error:?}"));
    let first = stream.try_next().await.unwrap_or_else(|error| panic!("{check}: {error:?}"));
    suite.fixture.replace("conformance/changing.bin", new).await;
    let mut bytes = first.unwrap_or_default().to_vec();
    loop {
        match stream.try_next().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            // All of it, of one version.
            Ok(None) => return assert!(bytes == old, "{check}: {} bytes of both versions", bytes.len()),
            Err(error) => return assert!(error.kind().is_transient(), "{check}: {error:?}"),
        }
    }
}
