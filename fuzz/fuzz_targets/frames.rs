//! Frames of WebSockets have the same borders however their bytes are cut, and nothing panics. The first byte says who
//! sends, whether messages may be compressed, and how long the pieces are.
#![no_main]

use flipgate::websocket::{Border, Extensions, FrameTracker, Sender};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [choice, bytes @ ..] = bytes else { return };
    let sender = if choice & 1 == 0 { Sender::Client } else { Sender::Server };
    let extensions = if choice & 2 == 0 { Extensions::None } else { Extensions::Deflate };
    let size = usize::from(choice >> 2).max(1);
    let new = || FrameTracker::new(sender, extensions);
    let mut whole = new();
    whole.advance(bytes);
    let mut split = new();
    bytes.chunks(size).for_each(|it| split.advance(it));
    assert_eq!(whole, split);
    for border in [Border::Frame, Border::Message, Border::Close] {
        let mut there = new();
        let mut rest = &bytes[size.min(bytes.len())..];
        there.advance(&bytes[..size.min(bytes.len())]);
        let ahead = there.until(border, rest);
        for piece in rest[..ahead].chunks(size) {
            there.advance(piece);
        }
        rest = &rest[ahead..];
        assert!(rest.is_empty() || there.is_at(border));
    }
});
