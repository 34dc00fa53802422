//! What goes up can be read in one way only, and says what came; over HTTP/2 too.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| flipgate::proxy::checks::request(bytes));
