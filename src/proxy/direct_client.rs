//! Rewrites heads for an unknown client, without connections: for tests and benchmarks of the rewriting.

use std::net::SocketAddr;

use super::{
    cookies::OwnCookies,
    forwarding::Via,
    headers::{FlipgateHeaders, RequestRewrite, ResponseRewrite, put_answer, put_request},
    peer_cache::PeerCache,
    via::{LoopMark, ReceivedVersion, ViaLines},
};
use crate::{
    downstream::{DATE_LENGTH, Listener, ListenerContext, Peer, PeerIdentity},
    http1::{Framing, HttpVersion, RequestHead, ResponseHead},
};

/// A public client without TLS that is connected directly.
pub struct DirectClient {
    peer: Peer<PeerCache>,
    mark_lines: ViaLines,
    random: fastrand::Rng,
}

/// Its listener.
const LISTENER: ([u8; 4], u16) = ([127, 0, 0, 1], 80);

/// The date of its responses: RFC 9110, section 5.6.7.
const DATE: [u8; DATE_LENGTH] = *b"Sun, 06 Nov 1994 08:49:37 GMT";

// === impl DirectClient ===

impl DirectClient {
    /// The client at `address`; `seed` decides its request ids.
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

    /// The request head for the upstream. The head is at the beginning of `bytes`.
    pub fn ask(&mut self, head: &RequestHead, bytes: &[u8]) -> Vec<u8> {
        let Self { peer, mark_lines, random } = self;
        let rewrite = RequestRewrite {
            expects_continue: head.expects_continue,
            client: Some(peer.address()),
            peer,
            forwarded: None,
            keeps_trace: false,
            own_cookies: OwnCookies::of(head.fields.lines(bytes)),
            mark: mark_lines.of(ReceivedVersion::Http11),
        };
        put_request(head, bytes, &rewrite, random)
    }

    /// Appends the response head for the client to `out`: HTTP/1.1, with a body framed by `framing`, on a connection
    /// that stays open. The head is at the beginning of `bytes`.
    pub fn answer(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], framing: Framing) {
        let answer = ResponseRewrite {
            version: HttpVersion::Http11,
            framing,
            goes_on: true,
            is_websocket: false,
            headers: FlipgateHeaders::default(),
            cookies: None,
            hsts: None,
            via: Some(b"Via: 1.1 flipgate\r\n"),
            date: DATE,
        };
        put_answer(out, head, bytes, &answer);
    }
}
