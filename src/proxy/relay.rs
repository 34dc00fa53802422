//! The answer's way down: an upstream's, or one of our own.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use tracing::warn;

use super::{
    exchange::{Exchange, Found, SWITCHING, Sending},
    failure::Failure,
    flow::{Broken, Flow, Stuck, Trailers, intake},
    headers::{Answer, put_answer},
    memory::Memory,
    refusal::{Refusal, Told},
    said::Line,
    tunnel::Tunnel,
};
use crate::{
    downstream::{After, Client, Connection, Wait},
    http1::{Framing, ResponseHead},
    net::Channel,
    upstream,
};

impl Exchange<'_> {
    /// Passes the answer on to the client, while the rest of the request may still be on its way.
    pub(super) async fn relay(
        &mut self,
        client: &mut Client<Memory>,
        found: &mut Option<Found>,
        head: ResponseHead,
    ) -> Result<After<Tunnel>, Failure> {
        let Some(Found { upstream, .. }) = found else { return Err(Failure::Left) };
        let (socket, connection) = client.split();
        let framing = head.framing(self.ask.is_for_head);
        let told = self.ask.framing_of(framing);
        let keeps_alive = head.keeps_alive && framing != Framing::ToClose;
        let goes_on = self.goes_on(told, keeps_alive, connection);
        let is_tunnel = head.status == SWITCHING;
        if self.ask.is_stream && self.ask.wants_websocket && matches!(head.status, 200..=299) {
            // To a client of HTTP/2 it would say that the WebSocket is open: RFC 8441, section 5.
            return Err(Failure::Refused(Refusal::Protocol));
        }
        if is_tunnel && self.sending != Sending::Done {
            return Err(Failure::Refused(Refusal::Protocol));
        }
        let trailers = match self.ask.takes_trailers {
            true => {
                Trailers::Pass { listed: head.fields.lines(upstream.channel.unread()).listed() }
            }
            false => Trailers::Drop,
        };
        self.send_interim(socket)?;
        let mut out = self.begin_answer(&head, told, goes_on, &mut upstream.channel, connection);
        if is_tunnel {
            if let Channel::Stream(stream) = socket {
                // An upstream that has not understood the key is none that speaks WebSocket.
                let sent = stream.send_head(&std::mem::take(&mut out), false);
                sent.map_err(|_| Failure::Refused(Refusal::Protocol))?;
            }
            // While it is known whose it was.
            self.count();
            self.note_success();
            let (found, hold) = (found.take(), self.hold.take());
            let tunnel = found
                .zip(hold)
                .map(|(it, hold)| Tunnel::new(it.upstream, hold, out, self.ask.tunnel_patience));
            return tunnel.map(After::Tunnel).ok_or(Failure::Left);
        }
        let came = intake(&upstream.channel, framing);
        let mut download = Flow::new(out, came, told, trailers);
        download.demand(self.proxy.least_progress);
        // An answer up to the end of the connection must not look whole, however it comes to be cut.
        let is_to_close = told == Framing::ToClose;
        if is_to_close {
            socket.closes_with_reset(true);
        }
        let relayed = poll_fn(|context| {
            match connection.take_alarm() {
                // The request is given up then, but not its answer.
                Some(Wait::Rest) => self.sending = Sending::Refused,
                Some(_) => return Poll::Ready(Err(Broken::TooSlow)),
                None => {}
            }
            let relayed = download.poll(context, &mut upstream.channel, socket);
            self.note_download(&mut download, connection);
            if relayed.is_pending()
                && self.keep_sending(context, socket, upstream, connection).is_err()
            {
                return Poll::Ready(Err(Broken::Writing(io::ErrorKind::ConnectionReset.into())));
            }
            relayed
        })
        .await;
        if is_to_close && (relayed.is_ok() || download.sent() == 0) {
            socket.closes_with_reset(false);
        }
        if let Err(broken) = relayed {
            socket.reset(upstream.channel.broken());
            return self.give_up(&broken, found, &download, connection);
        }
        self.is_answered = true;
        connection.end(Wait::Exchange);
        self.note_success();
        if self.sending == Sending::Going && keeps_alive {
            self.send_rest(socket, &mut upstream.channel, connection).await;
        }
        let is_sent = self.sending == Sending::Done;
        if let Some(Found { upstream, member }) = found.take()
            && is_sent
            && keeps_alive
            && !self.is_expectation_open
            && upstream.channel.unread().is_empty()
        {
            self.proxy.connections.put_back(&member, upstream, connection.now());
        }
        Ok(if goes_on && is_sent { After::GoOn } else { After::Close })
    }

    /// Whether the client may send another request behind the answer that is about to begin.
    fn goes_on(
        &mut self,
        told: Framing,
        keeps_alive: bool,
        connection: &Connection<Memory>,
    ) -> bool {
        if self.upload.is_held() {
            // Nobody knows whether the client sends the body that it has announced.
            self.sending = Sending::Refused;
        }
        self.ask.keeps_alive
            && told != Framing::ToClose
            // An upstream that closes takes no more of a request that is not there as a whole.
            && (self.sending == Sending::Done || self.sending == Sending::Going && keeps_alive)
            && !connection.is_closing()
    }

    /// Writes the head that the client gets, and takes the one that the upstream sent away.
    fn begin_answer(
        &mut self,
        head: &ResponseHead,
        told: Framing,
        goes_on: bool,
        upstream: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Vec<u8> {
        connection.end(Wait::Answer);
        connection.end(Wait::Continue);
        self.code = Some(head.status);
        let mut out = std::mem::take(&mut self.interim);
        let answer = Answer {
            version: self.ask.version,
            framing: told,
            goes_on,
            is_websocket: head.status == SWITCHING,
            marks: self.marks,
            hsts: hsts(connection),
            date: connection.date(),
        };
        put_answer(&mut out, head, &upstream.unread()[..head.len], &answer);
        upstream.consume(head.len);
        out
    }

    /// Moves the rest of a request on while its answer is relayed. A request that breaks off does not
    /// break its answer.
    fn keep_sending(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Channel,
        upstream: &mut upstream::Connection,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        match self.send(context, socket, &mut upstream.channel, connection) {
            Ok(()) => {}
            Err(Failure::Left) => return Err(Failure::Left),
            Err(Failure::Refused(_) | Failure::Closed | Failure::Late) => {
                self.sending = Sending::Refused;
                // Nobody knows where the next request would begin.
                self.ask.keeps_alive = false;
                connection.end(Wait::Rest);
            }
        }
        self.watch(context, socket, connection)
    }

    /// An answer that does not come to its end: the client must not take it for whole.
    fn give_up(
        &self,
        broken: &Broken,
        found: &Option<Found>,
        download: &Flow,
        connection: &Connection<Memory>,
    ) -> Result<After<Tunnel>, Failure> {
        if matches!(broken, Broken::Writing(_)) {
            return Ok(After::Cut);
        }
        // One that is too slow may be so for its client.
        let is_theirs =
            !matches!(broken, Broken::TooSlow) || download.stuck() == Some(Stuck::Reading);
        if let Some(member) = self.member().filter(|_| is_theirs) {
            self.note_failure(member, "its answer broke off", connection);
        }
        let (service, color) = self.names();
        let endpoint = found.as_ref().map(|it| it.member.endpoint().to_string());
        if let Some(suppressed) = self.proxy.said.may_say(Line::BrokeOff, connection.now()) {
            warn!(%service, %color, endpoint, %broken, suppressed, "an answer broke off");
        }
        match (download.sent(), broken) {
            (0, Broken::TooSlow) => Err(Failure::Refused(Refusal::Timeout)),
            (0, _) => Err(Failure::Refused(Refusal::Protocol)),
            _ => Ok(After::Cut),
        }
    }

    /// Notes that an endpoint has answered as it should.
    fn note_success(&self) {
        if let (Some(pool), Some(member), Some(code)) = (self.pool(), self.member(), self.code)
            && !pool.policy().ejection.statuses.contains(code)
        {
            pool.succeeded(member);
        }
    }

    fn note_download(&self, download: &mut Flow, connection: &Connection<Memory>) {
        let (stuck, has_moved) = (download.stuck(), download.has_moved());
        connection.note(Wait::Taken, stuck == Some(Stuck::Writing), has_moved);
        connection.note(Wait::AnswerBody, stuck == Some(Stuck::Reading), has_moved);
        if self.is_half_closed && has_moved {
            connection.begin(Wait::HalfClosed);
        }
    }

    /// Gives an answer of our own. The connection goes on if the request's end is known to be there.
    pub(super) async fn refuse(
        &mut self,
        client: &mut Client<Memory>,
        refusal: Refusal,
    ) -> After<Tunnel> {
        let (out, body, goes_on) = self.put_refusal(client, refusal);
        let (head, body) = out.split_at(out.len() - body);
        match client.answer(head, body).await {
            Ok(()) if goes_on => After::GoOn,
            Ok(()) => After::Close,
            Err(_) => After::Cut,
        }
    }

    /// The answer, how many bytes of it are its body, and whether the connection goes on.
    fn put_refusal(
        &mut self,
        client: &mut Client<Memory>,
        refusal: Refusal,
    ) -> (Vec<u8>, usize, bool) {
        self.code = Some(refusal.status().0.as_u16());
        let (socket, connection) = client.split();
        connection.wait_for_nothing();
        let goes_on = self.ask.keeps_alive
            && !refusal.ends_connection()
            && !connection.is_closing()
            && (self.sending == Sending::Done || self.upload.discard(socket));
        // One that has left is found out by what is written next.
        let _ = self.send_interim(socket);
        let mut out = std::mem::take(&mut self.interim);
        let told = Told {
            version: self.ask.version,
            is_for_head: self.ask.is_for_head,
            goes_on,
            marks: self.marks,
            hsts: hsts(connection),
            is_grpc: self.ask.is_grpc,
            location: self.location.as_deref(),
            date: connection.date(),
        };
        let body = refusal.put(&mut out, &told);
        (out, body, goes_on)
    }
}

/// What is said of the use of TLS, to whoever uses it: RFC 6797, section 7.2.
fn hsts(connection: &Connection<Memory>) -> Option<&str> {
    let peer = connection.peer();
    peer.listener().hsts.as_deref().filter(|_| peer.security().is_some())
}
