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
    Nothing,
    /// What a client says that knows that HTTP/2 is spoken here.
    Http2,
    /// The end of the connection.
    Gone,
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
    patience: Option<Tick>,
}

// === impl KeepAliveState ===

impl KeepAliveState {
    /// What it is that a request is waited for as.
    fn waiting(&self) -> Timeout {
        if self.requests == 0 { Timeout::FirstByte } else { Timeout::Request }
    }
}

/// Serves a connection to its end. What waits is small; what happens now and then has a box of its own.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would have two places for the client, and every idle connection both"
)]
pub(super) fn live<H: Handler>(
    mut client: ClientStream<H::ConnectionCache>,
    guard: ConnectionGuard,
    worker: MonitoredContext<H>,
) -> impl Future<Output = ()> {
    async move {
        let mut course = KeepAliveState::default();
        while asks(&mut client, &mut course).await {
            match Box::pin(answer(&mut client, &mut course, &worker)).await {
                NextStep::Idle => {}
                NextStep::Close => return,
                NextStep::Tunnel(tunnel) => {
                    Box::pin(worker.handler.tunnel(client, *tunnel)).await;
                    return drop(guard);
                }
                NextStep::Http2 => return Box::pin(http2::live(client, guard, worker)).await,
            }
        }
    }
}

/// Answers requests for as long as there are bytes of them.
async fn answer<H: Handler>(
    client: &mut ClientStream<H::ConnectionCache>,
    course: &mut KeepAliveState,
    worker: &WorkerContext<H>,
) -> NextStep<H::Tunnel> {
    loop {
        let head = match read_head(client, course, worker.limits.head).await {
            NextRequest::Head(head) => head,
            NextRequest::Nothing => return NextStep::Idle,
            NextRequest::Http2 => return NextStep::Http2,
            NextRequest::Gone => return NextStep::Close,
        };
        course.requests += 1;
        if course.requests >= worker.limits.requests {
            client.connection.close();
        }
        client.connection.wait_for_nothing();
        let after = worker.handler.exchange(client, head).await;
        client.connection.wait_for_nothing();
        match after {
            AfterExchange::GoOn
                if client.channel.unread().is_empty() && !asks_again(client).await =>
            {
                return NextStep::Idle;
            }
            AfterExchange::GoOn => {}
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
fn parts<M>(client: &mut ClientStream<M>) -> Option<(&mut Socket, &ClientConnection<M>)> {
    match client.split() {
        (HttpStream::Socket(socket), connection) => Some((socket, connection)),
        (HttpStream::Stream(_), _) => None,
    }
}

/// Waits until the client asks something. Holds no buffer. False if it never will: it has closed, or
/// the connection is to end.
async fn asks<M>(client: &mut ClientStream<M>, course: &mut KeepAliveState) -> bool {
    let Some((socket, connection)) = parts(client) else { return false };
    connection.wait_for_nothing();
    let waiting = course.waiting();
    match course.patience.take() {
        Some(until) => connection.go_on(waiting, until),
        None => connection.begin(waiting),
    }
    poll_fn(|context| {
        connection.remember(context.waker());
        match socket.poll_readable(context) {
            Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
            // A request that has arrived is answered, also if the runtime does not know of it yet: closing a connection
            // with unread bytes resets it.
            Poll::Pending if connection.is_closing() && socket.is_quiet_now() => Poll::Ready(false),
            Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits a moment for the client to ask again. Holds no buffer. False if it did not, or if enough
/// others are waiting like this.
async fn asks_again<M>(client: &mut ClientStream<M>) -> bool {
    let Some(_warm) = client.stay_warm() else { return false };
    let Some((socket, connection)) = parts(client) else { return false };
    connection.begin(Timeout::NextRequest);
    poll_fn(|context| match socket.poll_readable(context) {
        Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
        Poll::Pending if connection.is_closing() && socket.is_quiet_now() => Poll::Ready(false),
        Poll::Pending if connection.take_expired().is_some() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads a head. Dropping the future loses nothing of what was read.
async fn read_head<M>(
    client: &mut ClientStream<M>,
    course: &mut KeepAliveState,
    limits: HeadLimits,
) -> NextRequest {
    let mut scan = HeadScanner::up_to(limits.head);
    let Some((socket, connection)) = parts(client) else { return NextRequest::Gone };
    let speaks = connection.peer().listener().speaks;
    // In TLS it is agreed on before, or not spoken: RFC 9113, section 3.2.
    let may_be_http2 = course.requests == 0 && speaks.http2 && !socket.transport().is_tls();
    let patience = connection.deadline(course.waiting());
    connection.wait_for_nothing();
    connection.begin(Timeout::Head);
    poll_fn(|context| {
        loop {
            if !course.has_skipped_line && socket.unread().starts_with(b"\r\n") {
                course.has_skipped_line = true;
                socket.consume(2);
                if socket.unread().is_empty() {
                    course.patience = patience;
                    return Poll::Ready(NextRequest::Nothing);
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
                        course.has_skipped_line = false;
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
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(NextRequest::Gone),
                Poll::Pending if socket.unread().is_empty() => {
                    course.patience = patience;
                    return Poll::Ready(NextRequest::Nothing);
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
    let Some((socket, connection)) = parts(client) else { return };
    connection.wait_for_nothing();
    connection.begin(Timeout::Linger);
    poll_fn(|context| {
        if ready!(socket.poll_finish(context)).is_err() {
            return Poll::Ready(());
        }
        loop {
            socket.consume(socket.unread().len());
            match ready!(socket.poll_read(context, LINGER_AT_ONCE)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Bytes that are read at once only to be thrown away.
const LINGER_AT_ONCE: usize = 16 * 1024;
