//! The response head for the client is unambiguous, and only Flipgate claims to be Flipgate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::answer(bytes));
