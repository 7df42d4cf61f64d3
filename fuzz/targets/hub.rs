//! What the model hubs (Hugging Face, ModelScope) answer, and what users write about them: see `source::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| modelmount_fuzz::check("hub", input));
