//! One try: the request's way up, and the answer's head.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tracing::warn;

use super::{
    exchange::{Exchange, SWITCHING, Sending},
    failure::Failure,
    flow::{Broken, Stuck},
    memory::Memory,
    refusal::Refusal,
    said::Line,
};
use crate::{
    downstream::{Client, Connection, Wait},
    http1::{ResponseHead, Scan},
    net::Channel,
    upstream::Member,
};

/// Bytes behind a request that are read while it is being answered: to notice that its client
/// leaves, not to get ahead.
const AHEAD_MAX: usize = 16 * 1024;

impl Exchange<'_> {
    /// Sends the request and reads the answer's head, which is left where it stands. Interim answers
    /// are passed on as they come. A request that can be sent once more leaves an endpoint that nobody
    /// can speak with any more, or that takes longer than a try may, if there is another one.
    pub(super) async fn attempt(
        &mut self,
        client: &mut Client<Memory>,
        upstream: &mut Channel,
        tried: &[Arc<Member>],
    ) -> Result<ResponseHead, Failure> {
        let (socket, connection) = client.split();
        self.upload.aim(socket, upstream);
        connection.begin_for(Wait::Answer, self.ask.patience);
        let began = connection.now();
        let patience = self.pool().and_then(|it| it.policy().retry.try_patience);
        match patience {
            _ if !self.ask.is_repeatable => {}
            Some(patience) => connection.begin_for(Wait::Try, patience),
            None => connection.begin(Wait::Try),
        }
        if self.upload.is_held() {
            connection.begin(Wait::Continue);
        }
        let mut scan = Scan::up_to(ResponseHead::BYTES_MAX);
        poll_fn(|context| {
            match connection.take_alarm() {
                Some(Wait::Continue) => self.ask_for_body(connection),
                Some(Wait::Try) => {
                    if self.should_leave(tried, began, connection) {
                        return Poll::Ready(Err(Failure::Late));
                    }
                    connection.begin(Wait::Try);
                }
                // Whose fault it is depends on who was waited for.
                Some(Wait::Exchange)
                    if self.sending == Sending::Going
                        && self.upload.stuck() == Some(Stuck::Reading) =>
                {
                    return Poll::Ready(Err(Failure::Refused(Refusal::TooLong)));
                }
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

    /// Whether the request is better off elsewhere. If so, that is one retry of the pool's.
    fn should_leave(
        &self,
        tried: &[Arc<Member>],
        began: Instant,
        connection: &Connection<Memory>,
    ) -> bool {
        let (Some(pool), Some(member)) = (self.pool(), self.member()) else { return false };
        let now = connection.now();
        let took = now.saturating_duration_since(began);
        let retry = &pool.policy().retry;
        let is_late = retry.try_patience.is_some_and(|it| took >= it);
        (is_late || member.is_silent())
            && self.interim_count == 0
            && self.upload.can_rewind()
            && tried.len() + 1 < retry.tries
            && pool.has_other(tried, member)
            && pool.withdraw(now)
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
                    if let Some(suppressed) =
                        self.proxy.said.may_say(Line::Protocol, connection.now())
                    {
                        warn!(%service, %color, endpoint, %defect, hint, suppressed, "an answer that cannot be understood");
                    }
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
        self.read_ahead(context, socket, connection)
    }

    /// Reads what the client has sent behind what is known, as far as there is room for it.
    pub(super) fn read_ahead(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Result<(), Failure> {
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
pub(super) fn has_left(channel: &mut Channel, context: &mut Context<'_>) -> bool {
    match channel {
        Channel::Socket(_) => false,
        Channel::Stream(stream) => stream.poll_reset(context).is_ready(),
    }
}
