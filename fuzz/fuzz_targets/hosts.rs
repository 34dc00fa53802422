//! A host has one form, which stays.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::host(bytes));
