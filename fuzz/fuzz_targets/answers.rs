//! What comes down can be read in one way only, and nobody but us says that it is ours.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::answer(bytes));
