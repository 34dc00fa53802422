//! An upstream's answer begins: its head, and the tunnel that a `101` opens.

use super::{
    admitted::AdmittedRequest,
    error::ProxyError,
    forwarding::Via,
    headers::{ResponseRewrite, hsts, put_answer},
    interim::SWITCHING,
    peer_cache::PeerCache,
    tunnel::Tunnel,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::{Framing, ResponseHead, Version},
    net::HttpStream,
    upstream,
};

/// What becomes of an answer's body and of the two connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponsePlan {
    /// How the body comes from the upstream.
    pub(super) framing: Framing,
    /// How the client is told that it comes.
    pub(super) told: Framing,
    /// Whether the upstream takes another request behind this one.
    pub(super) keeps_alive: bool,
    /// Whether the client may send another request behind the answer.
    pub(super) goes_on: bool,
}

impl AdmittedRequest<'_> {
    /// Decides how an answer with this head is passed on.
    pub(super) fn plan(
        &mut self,
        head: &ResponseHead,
        connection: &ClientConnection<PeerCache>,
    ) -> ResponsePlan {
        let framing = head.framing(self.ask.is_for_head);
        let told = self.ask.framing_of(framing);
        // An application may send what it tells of all the same: then it would be the next answer.
        let is_in_doubt = framing == Framing::None && head.declares_content();
        let keeps_alive = head.keeps_alive && framing != Framing::UntilClose && !is_in_doubt;
        if self.upload.is_held() {
            // Nobody knows whether the client sends the body that it has announced.
            self.upload.give_up();
        }
        let goes_on = self.ask.keeps_alive
            && told != Framing::UntilClose
            // An upstream that closes takes no more of a request that is not there as a whole.
            && (self.upload.is_done() || self.upload.is_going() && keeps_alive)
            && !connection.is_closing();
        ResponsePlan { framing, told, keeps_alive, goes_on }
    }

    /// Writes the head that the client gets, behind interim answers that are not written yet, and takes
    /// the one that the upstream sent away.
    pub(super) fn put_head(
        &mut self,
        head: &ResponseHead,
        plan: ResponsePlan,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let (socket, connection) = client.split();
        self.interim.send(socket)?;
        connection.disarm(Timeout::ResponseHead);
        connection.disarm(Timeout::Continue);
        self.hold.answer(head.status);
        let mut out = self.interim.take_unwritten();
        let answer = ResponseRewrite {
            version: self.ask.version,
            framing: plan.told,
            goes_on: plan.goes_on,
            is_websocket: head.status == SWITCHING,
            marks: self.marks,
            hsts: hsts(connection.peer()),
            via: (self.proxy.via == Via::Both).then(|| via(head, upstream)),
            date: connection.date(),
        };
        put_answer(&mut out, head, &upstream.unread()[..head.len], &answer);
        upstream.consume(head.len);
        Ok(out)
    }

    /// Passes a `101` on, as far as that is not what the tunnel begins with. Returns the latter.
    pub(super) fn upgrade(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
        head: &ResponseHead,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let plan = self.plan(head, client.split().1);
        if !self.upload.is_done() {
            return Err(UpstreamFailure::Refused(ProxyError::Protocol));
        }
        let mut first = self.put_head(head, plan, client, upstream)?;
        if let HttpStream::Stream(stream) = client.split().0 {
            // An upstream that has not understood the key is none that speaks WebSocket.
            let sent = stream.send_head(&std::mem::take(&mut first), false);
            sent.map_err(|_| UpstreamFailure::Refused(ProxyError::Protocol))?;
        }
        self.note_success(head.status);
        Ok(first)
    }

    /// Counts the request, and hands its hold on to the tunnel that its connection becomes. Its permits
    /// are given back: a tunnel is not in flight.
    pub(super) fn into_tunnel(
        self,
        upstream: upstream::UpstreamConnection,
        first: Vec<u8>,
    ) -> Tunnel {
        let Self { hold, permits, terms, .. } = self;
        drop(permits);
        Tunnel::new(upstream, hold, first, terms.tunnel_patience)
    }
}

/// How an answer came, as `Via` says it. It does not say by which process: clients need not know.
fn via(head: &ResponseHead, upstream: &HttpStream) -> &'static [u8] {
    match (upstream, head.version) {
        (HttpStream::Stream(_), _) => b"Via: 2.0 flipgate\r\n",
        (HttpStream::Socket(_), Version::Http11) => b"Via: 1.1 flipgate\r\n",
        (HttpStream::Socket(_), Version::Http10) => b"Via: 1.0 flipgate\r\n",
    }
}
