//! The response head, and the tunnel that a `101` opens.

use super::{
    admitted::AdmittedRequest,
    continued::{Cacheable, NewCookies},
    error::ProxyError,
    forwarding::Via,
    headers::{CookieLines, ResponseRewrite, hsts, is_private, is_stored_by_rule, put_answer},
    interim::SWITCHING,
    peer_cache::PeerCache,
    tunnel::Tunnel,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::{Framing, HttpVersion, ResponseHead},
    net::HttpStream,
    upstream,
    websocket::Extensions,
};

/// How a response is relayed, and what happens to the two connections after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponsePlan {
    /// The framing of the body from the upstream.
    pub(super) framing: Framing,
    /// The framing of the body to the client.
    pub(super) client_framing: Framing,
    /// Whether the upstream connection is reusable.
    pub(super) keeps_alive: bool,
    /// Whether the client connection stays open.
    pub(super) goes_on: bool,
}

impl AdmittedRequest<'_> {
    /// Decides how a response with this head is relayed.
    pub(super) fn plan(
        &mut self,
        head: &ResponseHead,
        connection: &ClientConnection<PeerCache>,
    ) -> ResponsePlan {
        let framing = head.framing(self.traits.is_for_head);
        let client_framing = self.traits.framing_of(framing);
        // An application may send the body that it declares: then it would be read as the next response.
        let is_in_doubt = framing == Framing::None && head.declares_content();
        let keeps_alive = head.keeps_alive && framing != Framing::UntilClose && !is_in_doubt;
        if self.upload.is_held() {
            // It is not known whether the client will send the body that it declared.
            self.upload.give_up();
        }
        let goes_on = self.traits.keeps_alive
            && client_framing != Framing::UntilClose
            // An upstream that closes the connection takes no more of an incomplete request.
            && (self.upload.is_done() || self.upload.is_going() && keeps_alive)
            && !connection.is_closing();
        ResponsePlan { framing, client_framing, keeps_alive, goes_on }
    }

    /// Writes the response head, behind interim responses that are not written yet, and consumes the one of the
    /// upstream.
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
        self.claim.set_status(head.status);
        let mut out = self.interim.take_unwritten();
        let answer = ResponseRewrite {
            version: self.traits.version,
            framing: plan.client_framing,
            goes_on: plan.goes_on,
            is_websocket: head.status == SWITCHING,
            headers: self.headers,
            cookies: self.cookies.as_ref().and_then(|it| cookie_lines(it, head, upstream)),
            hsts: hsts(connection.peer()),
            via: (self.proxy.via == Via::Both).then(|| via(head, upstream)),
            date: connection.date(),
        };
        put_answer(&mut out, head, &upstream.unread()[..head.len], &answer);
        upstream.consume(head.len);
        Ok(out)
    }

    /// Forwards a `101`, and returns the bytes that the tunnel begins with.
    pub(super) fn upgrade(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
        head: &ResponseHead,
    ) -> Result<Vec<u8>, UpstreamFailure> {
        let plan = self.plan(head, client.split().1);
        if !self.upload.is_done() {
            return Err(UpstreamFailure::Error(ProxyError::Protocol));
        }
        let mut first = self.put_head(head, plan, client, upstream)?;
        if let HttpStream::Stream(stream) = client.split().0 {
            // An upstream that does not know the key does not speak WebSocket.
            let sent = stream.send_head(&std::mem::take(&mut first), false);
            sent.map_err(|_| UpstreamFailure::Error(ProxyError::Protocol))?;
        }
        self.note_success(head.status);
        Ok(first)
    }

    /// Counts the request, and moves its claim into the tunnel. The permits are released: a tunnel does not count as in
    /// flight for limits.
    pub(super) fn into_tunnel(
        self,
        upstream: upstream::UpstreamConnection,
        first: Vec<u8>,
        extensions: Extensions,
    ) -> Tunnel {
        let Self { claim, permits, terms, .. } = self;
        drop(permits);
        Tunnel::new(upstream, claim, first, terms.tunnel_timeout, extensions)
    }
}

/// The cookies that keep a client on a version, if the response may set them.
#[cold]
fn cookie_lines<'a>(
    cookies: &'a NewCookies,
    head: &ResponseHead,
    upstream: &HttpStream,
) -> Option<CookieLines<'a>> {
    let fields = head.fields.lines(&upstream.unread()[..head.len]);
    let is_private = is_private(fields);
    let makes_private = !is_private
        && match cookies.cacheable {
            Cacheable::Skip => false,
            Cacheable::PrivateIfUnstated => !is_stored_by_rule(fields),
            Cacheable::Private => true,
        };
    let lines = &cookies.lines;
    (is_private || makes_private).then_some(CookieLines { lines, makes_private })
}

/// The `Via` value for the version of the response. It does not name the process: clients need not know it.
fn via(head: &ResponseHead, upstream: &HttpStream) -> &'static [u8] {
    match (upstream, head.version) {
        (HttpStream::Stream(_), _) => b"Via: 2.0 flipgate\r\n",
        (HttpStream::Socket(_), HttpVersion::Http11) => b"Via: 1.1 flipgate\r\n",
        (HttpStream::Socket(_), HttpVersion::Http10) => b"Via: 1.0 flipgate\r\n",
    }
}
