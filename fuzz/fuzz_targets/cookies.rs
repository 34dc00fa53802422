//! No cookie of ours goes further, and every other one does.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::cookie(bytes));
