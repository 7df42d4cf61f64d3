//! allowPatterns and ignorePatterns: any text parses or is refused, and matching ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelmount::Selection;

fuzz_target!(|input: (Option<&str>, Option<&str>, Vec<&str>)| {
    let (allow, ignore, paths) = input;
    let Ok(selection) = Selection::parse(allow, ignore) else { return };
    for path in paths {
        selection.selects(path);
    }
    if allow.is_none() && ignore.is_none() {
        assert!(selection.selects("anything") && selection.canonical().is_empty());
    }
});
