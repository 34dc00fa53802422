//! A connection of HTTP/2: many requests at once, each a client of its own to whoever answers.

mod activity;
mod monitored;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{self, Builder, SendResponse},
};
use http::Request;
use tracing::debug;

use self::{
    activity::{SessionActivity, StreamActivity},
    monitored::{CONNECTION_WINDOW, MonitoredSocket},
};
use super::{
    AfterExchange, Handler, HeadError, RejectReason,
    client_stream::ClientStream,
    connection::ClientConnection,
    context::{ConnectionGuard, MonitoredContext},
    timeout::Timeout,
};
use crate::{
    http1::{Framing, RequestHead},
    http2::{Http2Stream, StreamReset},
    net::HttpStream,
};

/// How much a client may send of one request before it was passed on.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of an answer that are with the connection and not yet with the system.
const SEND_BUFFER: usize = 32 * 1024;

/// Streams that were reset before anybody looked at them.
const RESETS_PENDING_MAX: usize = 20;

/// Serves a connection to its end.
pub(super) async fn live<H: Handler>(
    client: ClientStream<H::ConnectionCache>,
    guard: ConnectionGuard,
    worker: MonitoredContext<H>,
) {
    let (channel, connection, place) = client.into_parts();
    let HttpStream::Socket(socket) = channel else { return };
    connection.wait_for_nothing();
    connection.begin(Timeout::Head);
    let course = Rc::new(SessionActivity::new(&connection));
    let watched = MonitoredSocket::new(socket, Rc::clone(&course));
    let fields_max = list_size(worker.limits.head.head);
    let mut handshake = Builder::new()
        .max_concurrent_streams(worker.limits.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(fields_max)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(watched);
    let handshake =
        connection.hurry(Timeout::Head, poll_fn(|it| Pin::new(&mut handshake).poll(it))).await;
    let peer = connection.peer().address();
    let mut driven = match handshake {
        Ok(driven) => driven,
        Err(error) => {
            debug!(%peer, %error, "HTTP/2 that did not come to a request");
            return;
        }
    };
    connection.wait_for_nothing();
    let ping = driven.ping_pong();
    let mut driver = Driver { ping, course, requests: 0, is_ending: false, is_turned_away: false };
    poll_fn(|context| driver.poll(context, &mut driven, &worker)).await;
    drop((place, guard));
}

/// What drives a connection: takes its streams, watches it, and has it end.
struct Driver<M> {
    ping: Option<PingPong>,
    course: Rc<SessionActivity<M>>,
    requests: usize,
    is_ending: bool,
    /// Whether it was told to calm down.
    is_turned_away: bool,
}

type Driven<M> = server::Connection<MonitoredSocket<M>, Bytes>;

// === impl Driver ===

impl<M: 'static> Driver<M> {
    fn poll<H: Handler<ConnectionCache = M>>(
        &mut self,
        context: &mut Context<'_>,
        driven: &mut Driven<M>,
        worker: &MonitoredContext<H>,
    ) -> Poll<()> {
        let course = Rc::clone(&self.course);
        let connection = &course.connection;
        connection.remember(context.waker());
        course.remember(context.waker());
        match connection.take_expired() {
            Some(Timeout::FirstByte | Timeout::Stream) => self.end(driven),
            Some(Timeout::Sound) => {
                if let Some(ping) = &mut self.ping
                    && ping.send_ping(Ping::opaque()).is_ok()
                {
                    connection.begin(Timeout::Pong);
                }
            }
            _ => {}
        }
        if let Some(ping) = &mut self.ping {
            // That it came is known from its bytes.
            let _ = ping.poll_pong(context);
        }
        if connection.is_closing() || self.requests >= worker.limits.requests {
            self.end(driven);
        }
        if connection.is_evicted() && course.streams.get() == 0 {
            // With the number of the last stream, so that the client knows what it may ask again.
            driven.abrupt_shutdown(Reason::NO_ERROR);
        }
        if !self.is_turned_away && course.is_attack(worker.limits.resets) {
            self.is_turned_away = true;
            worker.handler.turned_away(RejectReason::Http2Abuse(connection.peer().address()));
            driven.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        loop {
            match driven.poll_accept(context) {
                Poll::Ready(Some(Ok((request, response)))) => {
                    self.requests += 1;
                    begin(request, response, &course, worker);
                }
                Poll::Ready(Some(Err(error))) => {
                    let peer = connection.peer().address();
                    debug!(%peer, %error, "HTTP/2 ended");
                    if !self.is_turned_away && is_abuse(&error) {
                        worker.handler.turned_away(RejectReason::Http2Abuse(peer));
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let is_idle = course.streams.get() == 0;
        let has_begun = self.requests > 0;
        connection.note(Timeout::FirstByte, is_idle && !self.is_ending && !has_begun, false);
        connection.note(Timeout::Stream, is_idle && !self.is_ending && has_begun, false);
        // Whoever does not close when nothing is left is cut.
        connection.note(Timeout::Linger, is_idle && self.is_ending, false);
        if is_idle {
            connection.end(Timeout::Sound);
            connection.end(Timeout::Pong);
        } else if !connection.is_waiting(Timeout::Pong) && !connection.is_waiting(Timeout::Sound) {
            connection.begin(Timeout::Sound);
        }
        Poll::Pending
    }

    /// Takes no more requests, and tells the client in two steps: what it sends before it has heard of
    /// it is still answered (RFC 9113, section 6.8).
    fn end(&mut self, driven: &mut Driven<M>) {
        if !std::mem::replace(&mut self.is_ending, true) {
            driven.graceful_shutdown();
        }
    }
}

/// Whether a connection was ended for what its client did, and not for what it did not understand.
fn is_abuse(error: &h2::Error) -> bool {
    let is_noise = error.get_io().is_some_and(|it| it.kind() == std::io::ErrorKind::Other);
    is_noise || error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// What HTTP/2 makes of a limit for heads: RFC 9113, section 6.5.2, adds 32 bytes to each field.
fn list_size(head_max: usize) -> u32 {
    u32::try_from(head_max + 32 * RequestHead::FIELDS_MAX).unwrap_or(u32::MAX)
}

/// Starts a task that answers one request.
fn begin<H: Handler>(
    request: Request<RecvStream>,
    response: SendResponse<Bytes>,
    course: &Rc<SessionActivity<H::ConnectionCache>>,
    worker: &MonitoredContext<H>,
) {
    let stream = match Http2Stream::of_client(request, response, Rc::clone(&course.meter)) {
        Ok(stream) => stream,
        Err(defect) => {
            debug!(peer = %course.connection.peer().address(), %defect, "a malformed request");
            worker.handler.turned_away(RejectReason::Malformed);
            return;
        }
    };
    let peer = course.connection.peer();
    let connection = Rc::new(ClientConnection::new_stream(
        Rc::clone(peer),
        Rc::clone(worker.connection_table.clock()),
    ));
    let client = ClientStream::new(
        HttpStream::Stream(Box::new(stream)),
        &connection,
        &worker.connection_table,
    );
    let part = StreamActivity::of(course);
    let task = worker.tasks.spawn_local(answer(client, part, worker.for_another()));
    connection.run_by(task.abort_handle());
}

async fn answer<H: Handler>(
    mut client: ClientStream<H::ConnectionCache>,
    part: StreamActivity<H::ConnectionCache>,
    worker: MonitoredContext<H>,
) {
    let cookie_max = match &client.channel {
        HttpStream::Stream(stream) => stream.cookie_max(),
        HttpStream::Socket(_) => 0,
    };
    let head = RequestHead::parse_joined(client.channel.unread(), worker.limits.head, cookie_max);
    // Written as a whole: what is not one cannot be read.
    let head =
        head.map(|it| it.ok_or(crate::http1::HeadRejection::Malformed("the head has no end")));
    let mut head = head.and_then(|it| it).map_err(Into::into);
    let connection = Rc::clone(&client.connection);
    if head.as_ref().is_ok_and(|it| it.framing == Framing::Exact(0)) {
        match await_end(&mut client).await {
            EmptyRequestEnd::Well => {}
            EmptyRequestEnd::Late => head = Err(HeadError::TooSlow),
            EmptyRequestEnd::Broken => {
                part.0.reset.set(part.0.reset.get() + 1);
                let broken = client.channel.broken();
                client.channel.reset(broken);
                if broken.is_some_and(StreamReset::is_malformed) {
                    worker.handler.turned_away(RejectReason::Malformed);
                }
                return;
            }
        }
    }
    let mut is_counted = false;
    let after = {
        let mut exchange = pin!(worker.handler.exchange(&mut client, head));
        poll_fn(|context| {
            // For whoever has to tell it that its time is over.
            connection.remember(context.waker());
            let after = exchange.as_mut().poll(context);
            if connection.take_reset() && !std::mem::replace(&mut is_counted, true) {
                part.note_reset();
            }
            after
        })
        .await
    };
    match after {
        AfterExchange::GoOn | AfterExchange::Close => {
            part.0.answered.set(part.0.answered.get() + 1);
            linger(&mut client).await;
        }
        AfterExchange::Cut => {
            let broken = client.channel.broken();
            // Whoever has begun to get an answer has waited for it, and may have enough of it.
            match client.channel.has_answered() {
                true => part.0.answered.set(part.0.answered.get() + 1),
                false if broken.is_some() && !is_counted => {
                    part.0.reset.set(part.0.reset.get() + 1);
                }
                false => {}
            }
            client.channel.reset(broken);
        }
        AfterExchange::Tunnel(tunnel) => {
            part.0.answered.set(part.0.answered.get() + 1);
            Box::pin(worker.handler.tunnel(client, tunnel)).await;
        }
    }
}

/// How a request without content has ended.
enum EmptyRequestEnd {
    Well,
    Late,
    Broken,
}

/// Waits for the end of a request that says that it has no content: only then it is known to have none.
async fn await_end<M>(client: &mut ClientStream<M>) -> EmptyRequestEnd {
    let (channel, connection) = client.split();
    let HttpStream::Stream(stream) = channel else { return EmptyRequestEnd::Well };
    if stream.is_at_end() {
        return EmptyRequestEnd::Well;
    }
    connection.begin(Timeout::Head);
    let ended = poll_fn(|context| {
        connection.remember(context.waker());
        if connection.take_expired() == Some(Timeout::Head) {
            return Poll::Ready(EmptyRequestEnd::Late);
        }
        stream
            .poll_empty(context)
            .map(|it| if it.is_ok() { EmptyRequestEnd::Well } else { EmptyRequestEnd::Broken })
    })
    .await;
    connection.wait_for_nothing();
    ended
}

/// Takes what still comes of a request that was answered, for a while: a reset that arrives together with
/// the answer makes some clients lose it.
async fn linger<M>(client: &mut ClientStream<M>) {
    let (channel, connection) = client.split();
    let HttpStream::Stream(stream) = channel else { return };
    connection.wait_for_nothing();
    connection.begin(Timeout::Linger);
    poll_fn(|context| {
        loop {
            stream.consume(stream.unread().len());
            if !matches!(ready!(stream.poll_read(context)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    })
    .await;
}
