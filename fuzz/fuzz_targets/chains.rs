//! Whatever a client writes before what a trusted proxy has seen, its address is none but that.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::chain(bytes));
