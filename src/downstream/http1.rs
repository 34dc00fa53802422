//! An HTTP/1 connection: one request after another.

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

/// What arrived where a request was expected.
enum NextRequest {
    Head(Result<RequestHead, HeadError>),
    /// No request: no bytes at all, or only the empty line that old clients send after a body (RFC 9112, section 2.2).
    Empty,
    /// The HTTP/2 connection preface: the client uses prior knowledge.
    Http2,
    /// The connection has ended.
    Closed,
}

/// What a connection does after it handled requests.
enum NextStep<T> {
    Idle,
    Tunnel(Box<T>),
    Http2,
    Close,
}

/// The state of a connection between requests.
#[derive(Default)]
struct KeepAliveState {
    /// Requests so far.
    requests: usize,
    /// Whether an empty line was skipped before the next request.
    has_skipped_line: bool,
    /// When waiting for a request times out, kept while what arrived was no request: a TLS record without data, or the
    /// empty line.
    deadline: Option<Tick>,
}

// === impl KeepAliveState ===

impl KeepAliveState {
    /// The timeout for the next request.
    fn idle_timeout(&self) -> Timeout {
        if self.requests == 0 { Timeout::FirstByte } else { Timeout::Idle }
    }
}

/// Serves a connection to its end. The future of an idle connection is small: what happens only now and then is boxed.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would store the client twice in the future of every idle connection"
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

/// Handles requests for as long as bytes of them have arrived.
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

/// The socket and the connection. HTTP/1 always has a socket.
fn socket_and_connection<M>(
    client: &mut ClientStream<M>,
) -> Option<(&mut Socket, &ClientConnection<M>)> {
    match client.split() {
        (HttpStream::Socket(socket), connection) => Some((socket, connection)),
        (HttpStream::Stream(_), _) => None,
    }
}

/// Waits until bytes of a request arrive. Holds no buffer. False if the client has closed the connection, or if it is
/// closing or timed out.
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
            // A request that has arrived is answered, also if the runtime does not know of it yet: closing a connection
            // with unread bytes resets it.
            Poll::Pending if connection.is_closing() && socket.check_reusable() => {
                Poll::Ready(false)
            }
            Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits a moment for the client's next request, with buffers kept. False if none came, or if enough connections wait
/// like this.
async fn wait_for_next_request<M>(client: &mut ClientStream<M>) -> bool {
    let Some(_warm) = client.try_keep_warm() else { return false };
    let Some((socket, connection)) = socket_and_connection(client) else { return false };
    connection.arm(Timeout::NextRequest);
    poll_fn(|context| match socket.poll_readable(context) {
        Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
        Poll::Pending if connection.is_closing() && socket.check_reusable() => Poll::Ready(false),
        Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads a head. Cancel-safe: bytes that were read stay in the buffer.
async fn read_head<M>(
    client: &mut ClientStream<M>,
    state: &mut KeepAliveState,
    limits: HeadLimits,
) -> NextRequest {
    let mut scan = HeadScanner::new(limits.head);
    let Some((socket, connection)) = socket_and_connection(client) else {
        return NextRequest::Closed;
    };
    let http_versions = connection.peer().listener().http_versions;
    // Over TLS, HTTP/2 needs ALPN (RFC 9113, section 3.2).
    let may_be_http2 = state.requests == 0 && http_versions.http2 && !socket.transport().is_tls();
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
                        let head =
                            if http_versions.http1 { Ok(head) } else { Err(ONLY_HTTP2.into()) };
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

/// Whether this is the HTTP/2 connection preface, or a beginning of it.
fn begins_preface(bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    length > 0 && bytes[..length] == PREFACE[..length]
}

/// Closes the sending side, and discards what arrives until the client closes its side: closing a socket with unread
/// bytes resets the connection, and the client may lose the response before it has read it (RFC 9112, section 9.6).
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

/// Bytes that are read at once to be discarded.
const LINGER_READ_SIZE: usize = 16 * 1024;
