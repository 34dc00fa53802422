//! A response's head is the same whether its bytes come whole or one by one, and never panics.
#![no_main]

use flipgate::http1::ResponseHead;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = ResponseHead::parse(bytes);
    let steps = (1..=bytes.len()).map(|end| ResponseHead::parse(&bytes[..end]));
    let found = steps.into_iter().find(|it| !matches!(it, Ok(None))).unwrap_or(Ok(None));
    match (&whole, &found) {
        (Ok(Some(whole)), Ok(Some(found))) => {
            assert_eq!((whole.len, whole.status), (found.len, found.status));
            assert_eq!(whole.framing(false), found.framing(false));
            let head = &bytes[..whole.len];
            assert!(head.ends_with(b"\r\n\r\n") && !whole.code_and_reason(head).contains(&b'\r'));
        }
        (Ok(Some(_)), _) | (_, Ok(Some(_))) => panic!("whole {whole:?}, in pieces {found:?}"),
        _ => {}
    }
});
