//! The keys of a WebSocket handshake, which only HTTP/1.1 has (RFC 6455, section 4; RFC 8441, section 5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
#[must_use]
pub fn websocket_accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

/// A key for the handshake of a client that sent none, because it uses HTTP/2. It need not be secret: the accept value
/// only proves that the server understands WebSockets and the response is not cached.
pub(super) fn new_key() -> String {
    STANDARD.encode(fastrand::u128(..).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc_example() {
        assert_eq!(websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes_and_differ() {
        let (one, two) = (new_key(), new_key());
        assert!(one.len() == 24 && one.ends_with("==") && one != two);
    }
}
