//! What object stores (S3, Google, Azure) answer, and what users write about them: see `source::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| modelmount_fuzz::check("objects", input));
