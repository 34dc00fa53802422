//! A request's head is the same whether its bytes come whole or one by one, and never panics.
#![no_main]

use flipgate::http1::{HeadScanner, RequestHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = RequestHead::parse(bytes);
    let mut scan = HeadScanner::new(RequestHead::BYTES_MAX);
    let mut found = Ok(None);
    for end in 1..=bytes.len() {
        if scan.is_worth_parsing(&bytes[..end]) {
            found = RequestHead::parse(&bytes[..end]);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
    }
    match (&whole, &found) {
        (Ok(Some(whole)), Ok(Some(found))) => {
            assert_eq!((whole.len, whole.framing), (found.len, found.framing));
            let head = &bytes[..whole.len];
            assert_eq!(whole.path(head), found.path(head));
            assert!(head.ends_with(b"\r\n\r\n") && !whole.path(head).is_empty());
            assert!(whole.fields.lines(head).each().all(|(_, name, _)| !name.is_empty()));
        }
        // What comes later can only make it worse, never good.
        (Ok(Some(_)), _) | (_, Ok(Some(_))) => panic!("whole {whole:?}, in pieces {found:?}"),
        _ => {}
    }
});
