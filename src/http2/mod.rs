//! HTTP/2 as the rest of the house sees it: heads in the one form that policy reads, and a stream as
//! one end of a body's way.
//!
//! Frames, header compression and flow control are the library's (`h2`). What is here makes an
//! exchange over HTTP/2 look like one over HTTP/1 to whoever decides on it, so that there is one
//! policy and one strict reader of heads, and not a second one to rot: a head becomes the bytes of an
//! HTTP/1 head on its way in, and is made from them on its way out. Bodies and trailers are not
//! translated; they pass as they are.
//!
//! The sections are those of RFC 9113 where no other is named.

mod guard;
mod head;
mod pseudo;
mod stream;
mod websocket;

pub use self::{
    guard::FrameValidator,
    head::MalformedHead,
    stream::{ByteMeter, Http2Stream, StreamReset},
    websocket::websocket_accept,
};

/// What becomes of a request's head on its way through HTTP/2 and back; `ends` tells whether no body
/// follows.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 has no words for, or does not allow.
#[cfg(any(test, fuzzing))]
pub fn round_trip(bytes: &[u8], ends: bool) -> Result<Vec<u8>, MalformedHead> {
    let (request, _) = head::to_http2_request(bytes, true)?;
    let mut out = Vec::new();
    head::write_http1_request(&mut out, &request, ends).map(|_| out)
}

/// What a client with prior knowledge sends first: section 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
