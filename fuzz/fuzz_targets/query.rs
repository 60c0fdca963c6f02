#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskgate::fuzz_entry::run("query", bytes));
