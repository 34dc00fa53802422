//! A connection of HTTP/1: one request after another.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use super::{
    AfterExchange, Handler, HeadError,
    client_stream::ClientStream,
    clock::Tick,
    connection::ClientConnection,
    context::{ConnectionGuard, MonitoredContext, WorkerContext},
    http2,
    timeout::Timeout,
};
use crate::{
    http1::{HeadLimits, HeadRejection, HeadScanner, RequestHead},
    http2::PREFACE,
    net::{HttpStream, Socket},
};

/// What came where a request was waited for.
enum NextRequest {
    Head(Result<RequestHead, HeadError>),
    /// Nothing after all, or only the empty line that old clients send behind a body: RFC 9112,
    /// section 2.2.
    Empty,
    /// What a client says that knows that HTTP/2 is spoken here.
    Http2,
    /// The end of the connection.
    Closed,
}

/// What becomes of a connection that had something to do.
enum NextStep<T> {
    Idle,
    Tunnel(Box<T>),
    Http2,
    Close,
}

/// What is remembered of a connection from one request to the next.
#[derive(Default)]
struct KeepAliveState {
    /// Requests so far.
    requests: usize,
    /// Whether an empty line came where the next request was waited for.
    has_skipped_line: bool,
    /// Until when a request was waited for, when what came was none: a record of TLS that holds
    /// nothing, or the empty line.
    deadline: Option<Tick>,
}

// === impl KeepAliveState ===

impl KeepAliveState {
    /// What it is that a request is waited for as.
    fn idle_timeout(&self) -> Timeout {
        if self.requests == 0 { Timeout::FirstByte } else { Timeout::Idle }
    }
}

/// Serves a connection to its end. What waits is small; what happens now and then has a box of its own.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would have two places for the client, and every idle connection both"
)]
pub(super) fn serve<H: Handler>(
    mut client: ClientStream<H::ConnectionCache>,
    guard: ConnectionGuard,
    worker: MonitoredContext<H>,
) -> impl Future<Output = ()> {
    async move {
        let mut state = KeepAliveState::default();
        while wait_for_request(&mut client, &mut state).await {
            match Box::pin(handle_requests(&mut client, &mut state, &worker)).await {
                NextStep::Idle => {}
                NextStep::Close => return,
                NextStep::Tunnel(tunnel) => {
                    Box::pin(worker.handler.tunnel(client, *tunnel)).await;
                    return drop(guard);
                }
                NextStep::Http2 => return Box::pin(http2::serve(client, guard, worker)).await,
            }
        }
    }
}

/// Answers requests for as long as there are bytes of them.
async fn handle_requests<H: Handler>(
    client: &mut ClientStream<H::ConnectionCache>,
    state: &mut KeepAliveState,
    worker: &WorkerContext<H>,
) -> NextStep<H::Tunnel> {
    loop {
        let head = match read_head(client, state, worker.limits.head).await {
            NextRequest::Head(head) => head,
            NextRequest::Empty => return NextStep::Idle,
            NextRequest::Http2 => return NextStep::Http2,
            NextRequest::Closed => return NextStep::Close,
        };
        state.requests += 1;
        if state.requests >= worker.limits.requests {
            client.connection.close();
        }
        client.connection.disarm_all();
        let after = worker.handler.exchange(client, head).await;
        client.connection.disarm_all();
        match after {
            AfterExchange::KeepAlive
                if client.stream.unread().is_empty() && !wait_for_next_request(client).await =>
            {
                return NextStep::Idle;
            }
            AfterExchange::KeepAlive => {}
            AfterExchange::Tunnel(tunnel) => return NextStep::Tunnel(Box::new(tunnel)),
            AfterExchange::Cut => return NextStep::Close,
            AfterExchange::Close => {
                linger(client).await;
                return NextStep::Close;
            }
        }
    }
}

/// The socket; a connection that is served here is always one.
fn socket_and_connection<M>(
    client: &mut ClientStream<M>,
) -> Option<(&mut Socket, &ClientConnection<M>)> {
    match client.split() {
        (HttpStream::Socket(socket), connection) => Some((socket, connection)),
        (HttpStream::Stream(_), _) => None,
    }
}

/// Waits until the client asks something. Holds no buffer. False if it never will: it has closed, or
/// the connection is to end.
async fn wait_for_request<M>(client: &mut ClientStream<M>, state: &mut KeepAliveState) -> bool {
    let Some((socket, connection)) = socket_and_connection(client) else { return false };
    connection.disarm_all();
    let idle_timeout = state.idle_timeout();
    match state.deadline.take() {
        Some(until) => connection.set_deadline(idle_timeout, until),
        None => connection.arm(idle_timeout),
    }
    poll_fn(|context| {
        connection.set_waker(context.waker());
        match socket.poll_readable(context) {
            Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
            // Whoever asks just now is answered; whoever does not will not be.
            Poll::Pending if connection.is_closing() => Poll::Ready(false),
            Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits a moment for the client to ask again. Holds no buffer. False if it did not, or if enough
/// others are waiting like this.
async fn wait_for_next_request<M>(client: &mut ClientStream<M>) -> bool {
    let Some(_warm) = client.try_keep_warm() else { return false };
    let Some((socket, connection)) = socket_and_connection(client) else { return false };
    connection.arm(Timeout::NextRequest);
    poll_fn(|context| match socket.poll_readable(context) {
        Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
        Poll::Pending if connection.is_closing() => Poll::Ready(false),
        Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads a head. Dropping the future loses nothing of what was read.
async fn read_head<M>(
    client: &mut ClientStream<M>,
    state: &mut KeepAliveState,
    limits: HeadLimits,
) -> NextRequest {
    let mut scan = HeadScanner::up_to(limits.head);
    let Some((socket, connection)) = socket_and_connection(client) else {
        return NextRequest::Closed;
    };
    let speaks = connection.peer().listener().http_versions;
    // In TLS it is agreed on before, or not spoken: RFC 9113, section 3.2.
    let may_be_http2 = state.requests == 0 && speaks.http2 && !socket.transport().is_tls();
    let deadline = connection.deadline(state.idle_timeout());
    connection.disarm_all();
    connection.arm(Timeout::Head);
    poll_fn(|context| {
        loop {
            if !state.has_skipped_line && socket.unread().starts_with(b"\r\n") {
                state.has_skipped_line = true;
                socket.consume(2);
                if socket.unread().is_empty() {
                    state.deadline = deadline;
                    return Poll::Ready(NextRequest::Empty);
                }
            }
            let unread = socket.unread();
            let is_prefaced = may_be_http2 && begins_preface(unread);
            if is_prefaced && unread.len() >= PREFACE.len() {
                return Poll::Ready(NextRequest::Http2);
            }
            if !is_prefaced && !unread.is_empty() && scan.is_worth_parsing(unread) {
                match RequestHead::parse_within(unread, limits) {
                    Ok(None) => {}
                    Ok(Some(head)) => {
                        state.has_skipped_line = false;
                        let head = if speaks.http1 { Ok(head) } else { Err(ONLY_HTTP2.into()) };
                        return Poll::Ready(NextRequest::Head(head));
                    }
                    Err(reject) => return Poll::Ready(NextRequest::Head(Err(reject.into()))),
                }
            }
            if connection.take_expired() == Some(Timeout::Head) {
                return Poll::Ready(NextRequest::Head(Err(HeadError::TooSlow)));
            }
            match socket.poll_read(context, limits.head + 1) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(NextRequest::Closed),
                Poll::Pending if socket.unread().is_empty() => {
                    state.deadline = deadline;
                    return Poll::Ready(NextRequest::Empty);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

const ONLY_HTTP2: HeadRejection = HeadRejection::Malformed("this port speaks HTTP/2 only");

/// Whether this is the preface of HTTP/2, or its beginning.
fn begins_preface(bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    length > 0 && bytes[..length] == PREFACE[..length]
}

/// Ends our side, and takes what still comes until the client ends its own: a socket that is closed
/// with bytes unread is reset, and the client may lose the answer before it has read it (RFC 9112,
/// section 9.6).
async fn linger<M>(client: &mut ClientStream<M>) {
    let Some((socket, connection)) = socket_and_connection(client) else { return };
    connection.disarm_all();
    connection.arm(Timeout::Linger);
    poll_fn(|context| {
        if ready!(socket.poll_finish(context)).is_err() {
            return Poll::Ready(());
        }
        loop {
            socket.consume(socket.unread().len());
            match ready!(socket.poll_read(context, LINGER_READ_SIZE)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Bytes that are read at once only to be thrown away.
const LINGER_READ_SIZE: usize = 16 * 1024;
