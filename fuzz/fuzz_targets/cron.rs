#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskgate::decoders::run("cron", bytes));
