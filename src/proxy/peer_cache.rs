//! What a connection keeps from one request to the next.

use std::{cell::OnceCell, net::IpAddr};

use super::address::PeerTrust;
use crate::continuity::LastPin;

/// Values that are computed once for a connection instead of for each request.
#[derive(Debug, Default)]
pub struct PeerCache {
    pub(super) trust: PeerTrust,
    pub(super) last_pin: LastPin,
    peer: OnceCell<AddressText>,
}

/// An address as text. Stored inline, so that an idle connection needs no allocation for it.
#[derive(Debug)]
struct AddressText {
    bytes: [u8; PEER_MAX],
    length: u8,
}

/// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`
const PEER_MAX: usize = 45;

// === impl PeerCache ===

impl PeerCache {
    /// The peer's address as text.
    pub(super) fn peer_text(&self, peer: IpAddr) -> &[u8] {
        let AddressText { bytes, length } = self.peer.get_or_init(|| {
            let text = peer.to_string();
            let mut bytes = [0; PEER_MAX];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            let length = u8::try_from(text.len()).expect("addresses are short");
            AddressText { bytes, length }
        });
        &bytes[..usize::from(*length)]
    }
}
