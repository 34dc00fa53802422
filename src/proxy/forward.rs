//! The request's way up, and the answer's head.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tracing::{debug, warn};

use super::{
    exchange::{Exchange, Failure, Found, SWITCHING, Sending},
    flow::{Broken, Stuck},
    refusal::Refusal,
    worker::Memory,
};
use crate::{
    downstream::{Client, Connection, Wait},
    http1::{ResponseHead, Scan},
    http2::Reset,
    net::Channel,
    upstream::{self, ConnectError, Errand, Member, Pool},
};

/// Endpoints that one request is tried at. More would hold a client and a drain up for minutes when
/// a whole network is gone.
const TRIES_MAX: usize = 3;

/// Bytes behind a request that are read while it is being answered: to notice that its client
/// leaves, not to get ahead.
const AHEAD_MAX: usize = 16 * 1024;

impl Exchange<'_> {
    /// Sends the request to an endpoint of its pool and waits for the head of the answer.
    ///
    /// A connection that cannot be opened costs nothing: the next endpoint is tried. A request
    /// that was sent is sent again only once, only because its connection had been used before and
    /// ended without an answer, and only if doing it twice is the same as doing it once.
    pub(super) async fn forward(
        &mut self,
        client: &mut Client<Memory>,
        found: &mut Option<Found>,
    ) -> Result<ResponseHead, Failure> {
        let mut refusal = Refusal::NoEndpoint;
        let mut tried = Vec::new();
        let mut takes_waiting = true;
        let mut was_turned_down = false;
        loop {
            if tried.len() == TRIES_MAX {
                return Err(Failure::Refused(refusal));
            }
            let pool = self.pool().ok_or(Failure::Refused(refusal))?;
            let seat = pool.pick(&tried, &mut self.proxy.random.borrow_mut());
            let seat = seat.ok_or(Failure::Refused(refusal))?;
            let member = Arc::clone(seat.member());
            let wants_tunnel = self.ask.wants_websocket;
            *found = match takes_waiting {
                true => self.proxy.connections.waiting(&member, wants_tunnel),
                false => None,
            }
            .map(|upstream| Found { upstream, member: Arc::clone(&member) });
            if found.is_none() {
                match self.open(client, pool, &member).await? {
                    Ok(upstream) => *found = Some(Found { upstream, member }),
                    Err(error) => {
                        let (service, color) = (pool.service(), pool.color());
                        match member.has_news() {
                            true => warn!(%service, %color, %error, "an endpoint is down"),
                            false => debug!(%service, %color, %error, "next one"),
                        }
                        refusal = Refusal::Connect(error.reason);
                        tried.push(member);
                        continue;
                    }
                }
            }
            self.sit(seat);
            let Some(Found { upstream, member }) = found else {
                return Err(Failure::Refused(refusal));
            };
            match self.attempt(client, &mut upstream.channel).await {
                Err(Failure::Closed) => {}
                Err(failure) => {
                    if matches!(failure, Failure::Refused(Refusal::Timeout)) {
                        upstream.distrust();
                    }
                    return Err(failure);
                }
                Ok(head) => return Ok(head),
            }
            let (_, connection) = client.split();
            connection.end(Wait::Answer);
            connection.end(Wait::Continue);
            let is_fresh = !upstream.is_reused;
            let is_unprocessed = upstream.channel.broken().is_some_and(Reset::is_unprocessed);
            let may_repeat =
                self.upload.sent() == 0 || is_unprocessed || !is_fresh && self.ask.is_repeatable;
            let (service, color) = self.names();
            let endpoint = member.endpoint();
            if !may_repeat || !self.upload.can_rewind() {
                warn!(%service, %color, %endpoint, "closed without an answer");
                return Err(Failure::Refused(Refusal::Closed));
            }
            debug!(%service, %color, %endpoint, "closed without an answer; once more");
            self.upload.rewind();
            self.sending = Sending::Going;
            if is_unprocessed && !was_turned_down {
                // Its connection is being ended, or has no room; the next one may do.
                was_turned_down = true;
            } else if is_fresh || !takes_waiting {
                // It takes connections and closes them: as good as none.
                refusal = Refusal::Closed;
                tried.push(Arc::clone(member));
            }
            // The endpoint has closed what was waiting; a fresh connection tells whether it lives.
            takes_waiting = false;
        }
    }

    /// Opens a connection, unless the whole exchange takes too long.
    async fn open(
        &self,
        client: &mut Client<Memory>,
        pool: &Pool,
        member: &Arc<Member>,
    ) -> Result<Result<upstream::Connection, ConnectError>, Failure> {
        let (channel, connection) = client.split();
        // In a box of its own, since it is seldom needed and large.
        let errand = Errand {
            client: connection.peer().socket_address(),
            local: connection.peer().listener().address,
            is_for_tunnel: self.ask.wants_websocket,
        };
        let now = connection.now();
        let mut opening = Box::pin(self.proxy.connections.open(pool, member, errand, now));
        poll_fn(|context| match connection.take_alarm() {
            Some(Wait::Exchange) => Poll::Ready(Err(Failure::Refused(Refusal::Timeout))),
            // A stream that was taken back holds no place any more in what its client may have.
            _ if has_left(channel, context) => Poll::Ready(Err(Failure::Left)),
            _ => opening.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// Sends the request and reads the answer's head, which is left where it stands. Interim answers
    /// are passed on as they come.
    async fn attempt(
        &mut self,
        client: &mut Client<Memory>,
        upstream: &mut Channel,
    ) -> Result<ResponseHead, Failure> {
        let (socket, connection) = client.split();
        self.upload.aim(socket, upstream);
        connection.begin_for(Wait::Answer, self.ask.patience);
        if self.upload.is_held() {
            connection.begin(Wait::Continue);
        }
        let mut scan = Scan::up_to(ResponseHead::BYTES_MAX);
        poll_fn(|context| {
            match connection.take_alarm() {
                Some(Wait::Continue) => self.ask_for_body(connection),
                Some(_) => return Poll::Ready(Err(Failure::Refused(Refusal::Timeout))),
                None => {}
            }
            self.send(context, socket, upstream, connection)?;
            loop {
                ready!(self.write_interim(context, socket, connection))?;
                if let Some(head) = self.take_head(&mut scan, upstream, connection)? {
                    return Poll::Ready(Ok(head));
                }
                // An interim answer may have let the body go, or has to be written.
                self.send(context, socket, upstream, connection)?;
                if !self.interim.is_empty() {
                    continue;
                }
                let Poll::Ready(read) = upstream.poll_read(context, ResponseHead::BYTES_MAX) else {
                    self.watch(context, socket, connection)?;
                    if self.upload.is_held() && !socket.unread().is_empty() {
                        // Sent without leave, as it may.
                        self.let_body_go(connection);
                        self.send(context, socket, upstream, connection)?;
                    }
                    return Poll::Pending;
                };
                match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) if upstream.unread().is_empty() && self.interim_count == 0 => {
                        return Poll::Ready(Err(Failure::Closed));
                    }
                    Ok(0) | Err(_) => {
                        return Poll::Ready(Err(Failure::Refused(Refusal::Closed)));
                    }
                }
            }
        })
        .await
    }

    /// The answer's head, if it is there as a whole. Interim answers before it are taken away.
    fn take_head(
        &mut self,
        scan: &mut Scan,
        upstream: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Result<Option<ResponseHead>, Failure> {
        loop {
            let unread = upstream.unread();
            if unread.is_empty() || !scan.is_worth_parsing(unread) {
                return Ok(None);
            }
            match ResponseHead::parse(unread) {
                Ok(Some(head)) if self.is_final(&head) => return Ok(Some(head)),
                Ok(Some(head)) => {
                    self.take_interim(&head, unread, connection)?;
                    upstream.consume(head.len);
                    *scan = Scan::up_to(ResponseHead::BYTES_MAX);
                }
                Ok(None) => return Ok(None),
                Err(defect) => {
                    let (service, color) = self.names();
                    let endpoint = self.endpoint();
                    let speaks_http2 = unread.starts_with(b"\0\0") && unread.get(3) == Some(&4);
                    let hint = if speaks_http2 {
                        Some("it speaks HTTP/2: set protocol = \"h2\"")
                    } else {
                        None
                    };
                    warn!(%service, %color, endpoint, %defect, hint, "an answer that cannot be understood");
                    return Err(Failure::Refused(Refusal::Protocol));
                }
            }
        }
    }

    /// Whether a head is the answer, and not one that comes before it.
    fn is_final(&self, head: &ResponseHead) -> bool {
        let is_tunnel = head.status == SWITCHING && head.is_websocket && self.ask.wants_websocket;
        head.status >= 200 || is_tunnel
    }

    /// Moves the request on, as far as that goes without waiting.
    pub(super) fn send(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Channel,
        upstream: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        if self.sending != Sending::Going {
            return Ok(());
        }
        match self.upload.poll(context, socket, upstream) {
            Poll::Ready(Err(Broken::Writing(error)))
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                let what = "the head cannot be said in HTTP/2, which the service speaks";
                return Err(Failure::Refused(Refusal::Malformed(what)));
            }
            Poll::Ready(Ok(())) => self.sending = Sending::Done,
            // What it said before it closed is still to be read.
            Poll::Ready(Err(Broken::Writing(_))) => self.sending = Sending::Refused,
            Poll::Ready(Err(Broken::Reading(_))) => return Err(Failure::Left),
            Poll::Ready(Err(Broken::Short | Broken::TooSlow)) => {
                return Err(Failure::Refused(Refusal::BodyIncomplete));
            }
            Poll::Ready(Err(Broken::TooLarge)) => {
                return Err(Failure::Refused(Refusal::BodyTooLarge));
            }
            Poll::Ready(Err(Broken::Malformed(error))) => {
                return Err(Failure::Refused(Refusal::Body(error)));
            }
            Poll::Pending => {}
        }
        self.note_upload(connection);
        Ok(())
    }

    /// Reads ahead what the client sends, to notice that it leaves.
    pub(super) fn watch(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
        if socket.is_stream() {
            return if has_left(socket, context) { Err(Failure::Left) } else { Ok(()) };
        }
        let is_body_held = self.ask.expects_continue;
        if self.sending == Sending::Going && !is_body_held {
            // What comes is a part of the body.
            return Ok(());
        }
        while !self.is_half_closed && socket.unread().len() < AHEAD_MAX {
            match socket.poll_read(context, AHEAD_MAX) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    self.is_half_closed = true;
                    connection.begin(Wait::HalfClosed);
                }
                Poll::Ready(Err(_)) => return Err(Failure::Left),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Writes down what the request's way up waits for. The patience with the answer counts from the
    /// last part of the body that was taken, so that a long upload is not too slow an answer.
    fn note_upload(&mut self, connection: &Connection<Memory>) {
        let (stuck, has_moved) = (self.upload.stuck(), self.upload.has_moved());
        let is_going = self.sending == Sending::Going;
        let is_reading = is_going && stuck == Some(Stuck::Reading);
        connection.note(Wait::Body, is_reading && self.code.is_none(), has_moved);
        if self.code.is_some() {
            // A stream may stand still one way while it goes on the other.
            let is_bounded = !self.ask.is_stream || self.is_answered;
            connection.note(Wait::Rest, is_going && is_bounded, has_moved);
            if has_moved && connection.is_waiting(Wait::AnswerBody) {
                connection.begin(Wait::AnswerBody);
            }
        } else if is_reading {
            connection.end(Wait::Answer);
        } else if has_moved || !connection.is_waiting(Wait::Answer) {
            connection.begin_for(Wait::Answer, self.ask.patience);
        }
    }

    /// Sends the rest of a request that was answered before it was there as a whole. The upstream may
    /// still be taking it, so the claim stays.
    pub(super) async fn send_rest(
        &mut self,
        socket: &mut Channel,
        upstream: &mut Channel,
        connection: &Connection<Memory>,
    ) {
        poll_fn(|context| {
            if connection.take_alarm().is_some()
                || self.send(context, socket, upstream, connection).is_err()
            {
                self.sending = Sending::Refused;
            }
            if self.sending != Sending::Going {
                return Poll::Ready(());
            }
            if !upstream.unread().is_empty() {
                self.sending = Sending::Refused;
                return Poll::Ready(());
            }
            // Whatever it says now, or that it says nothing any more: it is done with this request.
            upstream.poll_read(context, AHEAD_MAX).map(|_| self.sending = Sending::Refused)
        })
        .await;
    }
}

/// Whether the client of a stream has taken its request back.
fn has_left(channel: &mut Channel, context: &mut Context<'_>) -> bool {
    match channel {
        Channel::Socket(_) => false,
        Channel::Stream(stream) => stream.poll_reset(context).is_ready(),
    }
}
