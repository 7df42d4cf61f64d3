//! What git servers answer, packs included, and the URIs of repositories: see `source::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| modelmount_fuzz::check("git", input));
