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
pub(super) async fn serve<H: Handler>(
    client: ClientStream<H::ConnectionCache>,
    guard: ConnectionGuard,
    worker: MonitoredContext<H>,
) {
    let (stream, connection, registration) = client.into_parts();
    let HttpStream::Socket(socket) = stream else { return };
    connection.disarm_all();
    connection.arm(Timeout::Head);
    let activity = Rc::new(SessionActivity::new(&connection));
    let monitored = MonitoredSocket::new(socket, Rc::clone(&activity));
    let fields_max = list_size(worker.limits.head.head);
    let mut handshake = Builder::new()
        .max_concurrent_streams(worker.limits.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(fields_max)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(monitored);
    let handshake = connection
        .run_until_closing(Timeout::Head, poll_fn(|it| Pin::new(&mut handshake).poll(it)))
        .await;
    let peer = connection.peer().address();
    let mut session = match handshake {
        Ok(session) => session,
        Err(error) => {
            debug!(%peer, %error, "HTTP/2 that did not come to a request");
            return;
        }
    };
    connection.disarm_all();
    let ping = session.ping_pong();
    let mut driver = Driver { ping, activity, requests: 0, is_ending: false, is_rejected: false };
    poll_fn(|context| driver.poll(context, &mut session, &worker)).await;
    drop((registration, guard));
}

/// What drives a connection: takes its streams, watches it, and has it end.
struct Driver<M> {
    ping: Option<PingPong>,
    activity: Rc<SessionActivity<M>>,
    requests: usize,
    is_ending: bool,
    /// Whether it was told to calm down.
    is_rejected: bool,
}

type Session<M> = server::Connection<MonitoredSocket<M>, Bytes>;

// === impl Driver ===

impl<M: 'static> Driver<M> {
    fn poll<H: Handler<ConnectionCache = M>>(
        &mut self,
        context: &mut Context<'_>,
        session: &mut Session<M>,
        worker: &MonitoredContext<H>,
    ) -> Poll<()> {
        let activity = Rc::clone(&self.activity);
        let connection = &activity.connection;
        connection.set_waker(context.waker());
        activity.set_driver(context.waker());
        match connection.take_expired() {
            Some(Timeout::FirstByte | Timeout::Http2Idle) => self.start_shutdown(session),
            Some(Timeout::Http2KeepAlive) => {
                if let Some(ping) = &mut self.ping
                    && ping.send_ping(Ping::opaque()).is_ok()
                {
                    connection.arm(Timeout::Pong);
                }
            }
            _ => {}
        }
        if let Some(ping) = &mut self.ping {
            // That it came is known from its bytes.
            let _ = ping.poll_pong(context);
        }
        if connection.is_closing() || self.requests >= worker.limits.requests {
            self.start_shutdown(session);
        }
        if connection.is_evicted() && activity.streams.get() == 0 {
            // With the number of the last stream, so that the client knows what it may ask again.
            session.abrupt_shutdown(Reason::NO_ERROR);
        }
        if !self.is_rejected && activity.is_attack(worker.limits.resets) {
            self.is_rejected = true;
            worker.handler.count_rejected(RejectReason::Http2Abuse(connection.peer().address()));
            session.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
        loop {
            match session.poll_accept(context) {
                Poll::Ready(Some(Ok((request, response)))) => {
                    self.requests += 1;
                    start_stream(request, response, &activity, worker);
                }
                Poll::Ready(Some(Err(error))) => {
                    let peer = connection.peer().address();
                    debug!(%peer, %error, "HTTP/2 ended");
                    if !self.is_rejected && is_abuse(&error) {
                        worker.handler.count_rejected(RejectReason::Http2Abuse(peer));
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let is_idle = activity.streams.get() == 0;
        let has_begun = self.requests > 0;
        connection.track(Timeout::FirstByte, is_idle && !self.is_ending && !has_begun, false);
        connection.track(Timeout::Http2Idle, is_idle && !self.is_ending && has_begun, false);
        // Whoever does not close when nothing is left is cut.
        connection.track(Timeout::Linger, is_idle && self.is_ending, false);
        if is_idle {
            connection.disarm(Timeout::Http2KeepAlive);
            connection.disarm(Timeout::Pong);
        } else if !connection.is_armed(Timeout::Pong)
            && !connection.is_armed(Timeout::Http2KeepAlive)
        {
            connection.arm(Timeout::Http2KeepAlive);
        }
        Poll::Pending
    }

    /// Takes no more requests, and tells the client in two steps: what it sends before it has heard of
    /// it is still answered (RFC 9113, section 6.8).
    fn start_shutdown(&mut self, session: &mut Session<M>) {
        if !std::mem::replace(&mut self.is_ending, true) {
            session.graceful_shutdown();
        }
    }
}

/// Whether a connection was ended for what its client did, and not for what it did not understand.
fn is_abuse(error: &h2::Error) -> bool {
    let is_excess = error.get_io().is_some_and(|it| it.kind() == std::io::ErrorKind::Other);
    is_excess || error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// What HTTP/2 makes of a limit for heads: RFC 9113, section 6.5.2, adds 32 bytes to each field.
fn list_size(head_max: usize) -> u32 {
    u32::try_from(head_max + 32 * RequestHead::FIELDS_MAX).unwrap_or(u32::MAX)
}

/// Starts a task that answers one request.
fn start_stream<H: Handler>(
    request: Request<RecvStream>,
    response: SendResponse<Bytes>,
    activity: &Rc<SessionActivity<H::ConnectionCache>>,
    worker: &MonitoredContext<H>,
) {
    let stream = match Http2Stream::of_client(request, response, Rc::clone(&activity.meter)) {
        Ok(stream) => stream,
        Err(defect) => {
            debug!(peer = %activity.connection.peer().address(), %defect, "a malformed request");
            worker.handler.count_rejected(RejectReason::Malformed);
            return;
        }
    };
    let peer = activity.connection.peer();
    let connection = Rc::new(ClientConnection::new_stream(
        Rc::clone(peer),
        Rc::clone(worker.connection_table.clock()),
    ));
    let client = ClientStream::new(
        HttpStream::Stream(Box::new(stream)),
        &connection,
        &worker.connection_table,
    );
    let stream_activity = StreamActivity::of(activity);
    let task =
        worker.tasks.spawn_local(handle_stream(client, stream_activity, worker.for_child_task()));
    connection.set_task(task.abort_handle());
}

async fn handle_stream<H: Handler>(
    mut client: ClientStream<H::ConnectionCache>,
    stream_activity: StreamActivity<H::ConnectionCache>,
    worker: MonitoredContext<H>,
) {
    let cookie_max = match &client.stream {
        HttpStream::Stream(stream) => stream.cookie_max(),
        HttpStream::Socket(_) => 0,
    };
    let head = RequestHead::parse_joined(client.stream.unread(), worker.limits.head, cookie_max);
    // Written as a whole: what is not one cannot be read.
    let head =
        head.map(|it| it.ok_or(crate::http1::HeadRejection::Malformed("the head has no end")));
    let mut head = head.and_then(|it| it).map_err(Into::into);
    let connection = Rc::clone(&client.connection);
    if head.as_ref().is_ok_and(|it| it.framing == Framing::Exact(0)) {
        match await_end(&mut client).await {
            EmptyRequestEnd::Complete => {}
            EmptyRequestEnd::TimedOut => head = Err(HeadError::TooSlow),
            EmptyRequestEnd::Failed => {
                stream_activity.0.reset.set(stream_activity.0.reset.get() + 1);
                let broken = client.stream.broken();
                client.stream.reset(broken);
                if broken.is_some_and(StreamReset::is_malformed) {
                    worker.handler.count_rejected(RejectReason::Malformed);
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
            connection.set_waker(context.waker());
            let after = exchange.as_mut().poll(context);
            if connection.take_reset() && !std::mem::replace(&mut is_counted, true) {
                stream_activity.record_reset();
            }
            after
        })
        .await
    };
    match after {
        AfterExchange::KeepAlive | AfterExchange::Close => {
            stream_activity.0.answered.set(stream_activity.0.answered.get() + 1);
            linger(&mut client).await;
        }
        AfterExchange::Cut => {
            let broken = client.stream.broken();
            // Whoever has begun to get an answer has waited for it, and may have enough of it.
            match client.stream.has_answered() {
                true => stream_activity.0.answered.set(stream_activity.0.answered.get() + 1),
                false if broken.is_some() && !is_counted => {
                    stream_activity.0.reset.set(stream_activity.0.reset.get() + 1);
                }
                false => {}
            }
            client.stream.reset(broken);
        }
        AfterExchange::Tunnel(tunnel) => {
            stream_activity.0.answered.set(stream_activity.0.answered.get() + 1);
            Box::pin(worker.handler.tunnel(client, tunnel)).await;
        }
    }
}

/// How a request without content has ended.
enum EmptyRequestEnd {
    Complete,
    TimedOut,
    Failed,
}

/// Waits for the end of a request that says that it has no content: only then it is known to have none.
async fn await_end<M>(client: &mut ClientStream<M>) -> EmptyRequestEnd {
    let (stream, connection) = client.split();
    let HttpStream::Stream(stream) = stream else { return EmptyRequestEnd::Complete };
    if stream.is_at_end() {
        return EmptyRequestEnd::Complete;
    }
    connection.arm(Timeout::Head);
    let end = poll_fn(|context| {
        connection.set_waker(context.waker());
        if connection.take_expired() == Some(Timeout::Head) {
            return Poll::Ready(EmptyRequestEnd::TimedOut);
        }
        stream
            .poll_empty(context)
            .map(|it| if it.is_ok() { EmptyRequestEnd::Complete } else { EmptyRequestEnd::Failed })
    })
    .await;
    connection.disarm_all();
    end
}

/// Takes what still comes of a request that was answered, for a while: a reset that arrives together with
/// the answer makes some clients lose it.
async fn linger<M>(client: &mut ClientStream<M>) {
    let (stream, connection) = client.split();
    let HttpStream::Stream(stream) = stream else { return };
    connection.disarm_all();
    connection.arm(Timeout::Linger);
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
