//! An HTTP/2 connection: concurrent requests, each a [`ClientStream`] of its own.

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

/// The flow-control window of a stream: bytes of one request that the client may send before they are forwarded.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of responses that h2 buffers for a stream before they go to the system.
const SEND_BUFFER: usize = 32 * 1024;

/// Streams that the client has reset before Flipgate accepted them.
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
        .run_with_closing_timeout(Timeout::Head, poll_fn(|it| Pin::new(&mut handshake).poll(it)))
        .await;
    let peer = connection.peer().address();
    let mut session = match handshake {
        Ok(session) => session,
        Err(error) => {
            debug!(%peer, %error, "HTTP/2 handshake failed");
            return;
        }
    };
    connection.disarm_all();
    let ping = session.ping_pong();
    let mut driver = Driver { ping, activity, requests: 0, is_ending: false, is_rejected: false };
    poll_fn(|context| driver.poll(context, &mut session, &worker)).await;
    drop((registration, guard));
}

/// Drives a connection: accepts its streams, watches its timeouts, and shuts it down.
struct Driver<M> {
    ping: Option<PingPong>,
    activity: Rc<SessionActivity<M>>,
    requests: usize,
    is_ending: bool,
    /// Whether the connection was ended with `ENHANCE_YOUR_CALM`.
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
            // The socket notes every byte that arrives, also those of the pong.
            let _ = ping.poll_pong(context);
        }
        if connection.is_closing() || self.requests >= worker.limits.requests {
            self.start_shutdown(session);
        }
        if connection.is_evicted() && activity.streams.get() == 0 {
            // GOAWAY has the number of the last stream, so the client knows which requests it can retry.
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
                    debug!(%peer, %error, "HTTP/2 connection ended with an error");
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
        // If the client does not close the connection after the last stream, it is cut.
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

    /// Accepts no more requests. GOAWAY is sent in two steps, so that requests which the client sends before it sees
    /// the first one are still served (RFC 9113, section 6.8).
    fn start_shutdown(&mut self, session: &mut Session<M>) {
        if !std::mem::replace(&mut self.is_ending, true) {
            session.graceful_shutdown();
        }
    }
}

/// Whether the connection ended because of the client's behavior, and not because of a plain protocol error.
fn is_abuse(error: &h2::Error) -> bool {
    let is_excess = error.get_io().is_some_and(|it| it.kind() == std::io::ErrorKind::Other);
    is_excess || error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// The limit for heads as HTTP/2 counts it: 32 bytes more for each field (RFC 9113, section 6.5.2).
fn list_size(head_max: usize) -> u32 {
    u32::try_from(head_max + 32 * RequestHead::FIELDS_MAX).unwrap_or(u32::MAX)
}

/// Starts a task that handles one request.
fn start_stream<H: Handler>(
    request: Request<RecvStream>,
    response: SendResponse<Bytes>,
    activity: &Rc<SessionActivity<H::ConnectionCache>>,
    worker: &MonitoredContext<H>,
) {
    let stream = match Http2Stream::from_client(request, response, Rc::clone(&activity.meter)) {
        Ok(stream) => stream,
        Err(defect) => {
            debug!(peer = %activity.connection.peer().address(), %defect, "malformed HTTP/2 request");
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
    // The head was encoded completely, so an incomplete one is invalid.
    let head =
        head.map(|it| it.ok_or(crate::http1::HeadRejection::Malformed("the head is incomplete")));
    let mut head = head.and_then(|it| it).map_err(Into::into);
    let connection = Rc::clone(&client.connection);
    if head.as_ref().is_ok_and(|it| it.framing == Framing::Exact(0)) {
        match await_end(&mut client).await {
            EmptyRequestEnd::Complete => {}
            EmptyRequestEnd::TimedOut => head = Err(HeadError::TooSlow),
            EmptyRequestEnd::Failed => {
                stream_activity.0.reset.set(stream_activity.0.reset.get() + 1);
                let broken = client.stream.reset_reason();
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
            // The connection table wakes the task by this waker.
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
            stream_activity.0.responses.set(stream_activity.0.responses.get() + 1);
            linger(&mut client).await;
        }
        AfterExchange::Cut => {
            let broken = client.stream.reset_reason();
            // A client that resets after the response head has waited for it; that is no abuse.
            match client.stream.has_sent_head() {
                true => stream_activity.0.responses.set(stream_activity.0.responses.get() + 1),
                false if broken.is_some() && !is_counted => {
                    stream_activity.0.reset.set(stream_activity.0.reset.get() + 1);
                }
                false => {}
            }
            client.stream.reset(broken);
        }
        AfterExchange::Tunnel(tunnel) => {
            stream_activity.0.responses.set(stream_activity.0.responses.get() + 1);
            start_tunnel(client, tunnel, stream_activity, worker);
        }
    }
}

/// Starts a task that runs a tunnel, which may be open for days: the memory of the exchange is freed with this one.
fn start_tunnel<H: Handler>(
    client: ClientStream<H::ConnectionCache>,
    tunnel: H::Tunnel,
    stream_activity: StreamActivity<H::ConnectionCache>,
    worker: MonitoredContext<H>,
) {
    let connection = Rc::clone(&client.connection);
    let woken = Rc::clone(&connection);
    let tasks = worker.tasks.clone();
    let task = tasks.spawn_local(async move {
        let mut tunnel = Box::pin(worker.handler.tunnel(client, tunnel));
        poll_fn(|context| {
            woken.set_waker(context.waker());
            tunnel.as_mut().poll(context)
        })
        .await;
        drop(stream_activity);
    });
    connection.set_task(task.abort_handle());
}

/// How a request without content ended.
enum EmptyRequestEnd {
    Complete,
    TimedOut,
    Failed,
}

/// Waits for END_STREAM of a request that declares no content: only then it is known to have none.
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
            .poll_end_without_content(context)
            .map(|it| if it.is_ok() { EmptyRequestEnd::Complete } else { EmptyRequestEnd::Failed })
    })
    .await;
    connection.disarm_all();
    end
}

/// Discards what still arrives of a request after its response, for a while: a reset together with the response makes
/// some clients lose it.
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
