#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_e2e::fuzzed::webhook_url(bytes));
