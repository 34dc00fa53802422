//! Heads as they are rewritten for a client of whom nothing is known, without a connection to either side:
//! for whoever wants to see what forwarding makes of a head, or what that costs.

use std::net::SocketAddr;

use super::{
    forwarding::Via,
    headers::{FlipgateHeaders, RequestRewrite, ResponseRewrite, put_answer, put_request},
    peer_cache::PeerCache,
    via::{LoopMark, ReceivedVersion, ViaLines},
};
use crate::{
    downstream::{DATE_LENGTH, Listener, ListenerContext, Peer, PeerIdentity},
    http1::{Framing, RequestHead, ResponseHead, Version},
};

/// A client that came in the clear and directly, and is neither internal nor a proxy that is trusted.
pub struct DirectClient {
    peer: Peer<PeerCache>,
    mark_lines: ViaLines,
    random: fastrand::Rng,
}

/// Where it came in.
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 80);

/// When it is answered: the date of RFC 9110, section 5.6.7.
const DATE: [u8; DATE_LENGTH] = *b"Sun, 06 Nov 1994 08:49:37 GMT";

// === impl DirectClient ===

impl DirectClient {
    /// The client at `address`, whose requests get their ids by `seed`.
    #[must_use]
    pub fn new(address: SocketAddr, seed: u64) -> Self {
        let entrance = ListenerContext::unbound(Listener::plain(LISTENER.into()));
        let peer = Peer::new(PeerIdentity::Known(address), entrance, None);
        Self {
            peer,
            mark_lines: LoopMark::of(seed).lines(Via::Both),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The head that an upstream gets for this one, which stands at the beginning of `bytes`.
    pub fn ask(&mut self, head: &RequestHead, bytes: &[u8]) -> Vec<u8> {
        let Self { peer, mark_lines, random } = self;
        let onward = RequestRewrite {
            expects_continue: head.expects_continue,
            client: Some(peer.address()),
            peer,
            told: None,
            keeps_trace: false,
            mark: mark_lines.of(ReceivedVersion::Http11),
        };
        put_request(head, bytes, &onward, random)
    }

    /// Writes the head that the client gets for this one, which stands at the beginning of `bytes`, to
    /// the end of `out`: over HTTP/1.1, with a body framed by `framing`, and the connection goes on.
    pub fn answer(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], framing: Framing) {
        let answer = ResponseRewrite {
            version: Version::Http11,
            framing,
            goes_on: true,
            is_websocket: false,
            marks: FlipgateHeaders::default(),
            hsts: None,
            via: Some(b"Via: 1.1 flipgate\r\n"),
            date: DATE,
        };
        put_answer(out, head, bytes, &answer);
    }
}
