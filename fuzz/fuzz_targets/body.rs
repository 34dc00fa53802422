//! A chunked body has the same content, trailers and end however its bytes are cut, and never panics.
//! The first byte says how long the pieces are.
#![no_main]

use flipgate::http1::{Decoder, Framing};
use libfuzzer_sys::fuzz_target;

type Decoded = (Vec<u8>, Vec<u8>, usize);

fn decode(bytes: &[u8], size: usize) -> Option<Option<Decoded>> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut content, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let found = decoder.decode(&mut piece).ok()?;
        content.extend_from_slice(&piece[found.skip..][..found.data]);
        used += found.consumed;
        assert!(found.consumed == piece.len() || decoder.is_done());
        if decoder.is_done() {
            return Some(Some((content, decoder.trailers().to_vec(), used)));
        }
    }
    Some(None)
}

fuzz_target!(|bytes: &[u8]| {
    let [size, bytes @ ..] = bytes else { return };
    let whole = decode(bytes, bytes.len().max(1));
    assert_eq!(whole, decode(bytes, usize::from(*size).max(1)));
    assert_eq!(whole, decode(bytes, 1));
});
