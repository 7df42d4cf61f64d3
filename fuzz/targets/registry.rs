//! What container registries answer, and what users and operators write about them: see `source::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| modelmount_fuzz::check("registry", input));
