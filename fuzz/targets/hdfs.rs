//! What namenodes answer, and what users write about HDFS: see `source::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| modelmount_fuzz::check("hdfs", input));
