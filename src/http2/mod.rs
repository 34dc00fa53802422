//! HTTP/2 for the rest of Flipgate: heads in the form of HTTP/1, and streams that read and write bodies.
//!
//! The `h2` library does frames, header compression and flow control. This room makes an exchange over HTTP/2 look like
//! one over HTTP/1, so that there is one set of rules and one strict parser for heads: a received head becomes the
//! bytes of an HTTP/1 head, and a sent head is made from such bytes. Bodies and trailers pass unchanged.
//!
//! Sections without a document are those of RFC 9113.

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

/// A request head converted to HTTP/2 and back; `ends` means that no body follows.
///
/// # Errors
///
/// [`MalformedHead`] for a head that HTTP/2 cannot represent or does not allow.
#[cfg(any(test, fuzzing))]
pub fn round_trip(bytes: &[u8], ends: bool) -> Result<Vec<u8>, MalformedHead> {
    let (request, _) = head::to_http2_request(bytes, true)?;
    let mut out = Vec::new();
    head::write_http1_request(&mut out, &request, ends).map(|_| out)
}

/// The connection preface, which a client with prior knowledge sends first (section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
