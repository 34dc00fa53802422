//! The event stream of the version signal (WHATWG HTML, server-sent events).
//!
//! A subscriber holds no claim, so it does not hold up a drain, and no permit of its service. It counts against the limit
//! of requests in flight of the process and of its client. While nothing happens it holds no buffers.

use std::{
    future::poll_fn,
    io::Write,
    mem::take,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::answer::{Answer, AnswerContext, message};
use crate::{
    downstream::{ClientConnection, ClientStream, RequestCount, Timeout},
    http1::HttpVersion,
    model::{Color, ServiceName, VersionId},
    net::HttpStream,
    proxy::{
        admitted::{AdmittedRequest, RequestPermits},
        headers::FlipgateHeaders,
        peer_cache::PeerCache,
        upload::client_has_left,
    },
    switch::Visit,
    upstream::{ConcurrencyPermit, Pools, ServiceSwitch, TableService},
};

/// An event stream that has begun.
pub struct EventStream {
    service: ServiceName,
    /// Which side the subscriber would get.
    visit: Visit,
    switch: Arc<ServiceSwitch>,
    /// Changes after each change of a pool or of an active color, when the switch has it.
    pools: watch::Receiver<Pools>,
    /// Bytes that are not written yet.
    out: Vec<u8>,
    framing: EventFraming,
    _permit: Option<ConcurrencyPermit>,
    _count: RequestCount,
}

/// How the content is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EventFraming {
    /// In chunks, over HTTP/1.1.
    Chunked,
    /// Not at all: over HTTP/1.0 the end of the connection is the end, and HTTP/2 frames it by itself.
    Plain,
}

/// Why a subscriber is woken.
enum Wake {
    /// A pool or an active color has changed.
    Changed,
    /// Nothing was written for a while.
    Quiet,
    /// The stream is to end: Flipgate stops.
    Closing,
    /// The client has left.
    Gone,
}

/// The time between two comments, which show both ends that the connection is alive. Proxies in between often cut a
/// connection that is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long clients wait before they connect again, in milliseconds: not all of them at once after a restart.
const RETRY_MS: std::ops::Range<u32> = 2_000..8_000;

// === impl EventStream ===

impl EventStream {
    /// Ends the exchange, and begins the stream with the head of `answer`. `None` if the client has left.
    pub(super) fn begin(
        request: AdmittedRequest<'_>,
        client: &mut ClientStream<PeerCache>,
        answer: &Answer,
    ) -> Option<Self> {
        let (socket, connection) = client.split();
        let pool = request.pool();
        // A preview keeps its color, a pinned client while pins are valid, and one of a share while there is one. All others
        // follow the active one.
        let FlipgateHeaders { is_private, is_pinned, .. } = request.headers;
        let visit = match (is_private, is_pinned) {
            (true, _) => Visit::Preview(pool.color()),
            (false, true) => Visit::Pinned(pool.color()),
            (false, false) if request.claim.is_on_active() => Visit::Active,
            (false, false) => Visit::Shared(pool.color()),
        };
        let version = request.traits.version;
        let framing = match (socket.is_stream(), version) {
            (false, HttpVersion::Http11) => EventFraming::Chunked,
            (true, _) | (false, HttpVersion::Http10) => EventFraming::Plain,
        };
        let mut out = Vec::with_capacity(512);
        // A connection is not used for another request after the stream.
        let context = AnswerContext::new(version, false, request.headers, connection);
        answer.put_head(
            &mut out,
            &context,
            match framing {
                EventFraming::Chunked => b"Transfer-Encoding: chunked\r\n",
                EventFraming::Plain => b"",
            },
        );
        if let HttpStream::Stream(stream) = socket {
            stream.send_head(&take(&mut out), false).ok()?;
        }
        let retry = request.proxy.random.borrow_mut().u32(RETRY_MS);
        framing.put(&mut out, &format!("retry: {retry}\n\n"));
        let count = connection.peer().load().count_request();
        let service = pool.service().clone();
        let AdmittedRequest { proxy, permits, .. } = request;
        Some(Self {
            service,
            visit,
            switch: Arc::clone(&proxy.switch),
            pools: proxy.pools.clone(),
            out,
            framing,
            _permit: permits.map(RequestPermits::into_process),
            _count: count,
        })
    }

    /// Sends the id of the version, now and each time that it changes, until the client leaves, Flipgate stops, or the
    /// service has no version signal any more. Dropping the future ends the stream.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would store the client and the stream twice for every subscriber"
    )]
    pub(in crate::proxy) fn carry(
        mut self,
        mut client: ClientStream<PeerCache>,
    ) -> impl Future<Output = ()> {
        async move {
            let (socket, connection) = client.split();
            connection.disarm_all();
            socket.enable_keep_alive();
            let mut last = None;
            loop {
                // Before the table is read: a change after that wakes the stream.
                self.pools.mark_unchanged();
                let Some((version, event)) = self.current(last) else { break };
                if last != Some(version) {
                    self.framing.put(&mut self.out, &event);
                    last = Some(version);
                }
                match self.wait(socket, connection).await {
                    Wake::Changed => {}
                    Wake::Quiet => self.framing.put(&mut self.out, ":\n\n"),
                    Wake::Closing => break,
                    Wake::Gone => return,
                }
            }
            self.end(socket, connection).await;
        }
    }

    /// The version that the subscriber would get, and its event if it is not `last`. `None` if there is none any more.
    fn current(&self, last: Option<VersionId>) -> Option<(VersionId, String)> {
        self.switch.read(|table| {
            let service = table.service(&self.service)?;
            let color = match self.visit {
                Visit::Preview(color) => color,
                Visit::Pinned(color) if is_pinned_to(service, color) => color,
                Visit::Shared(color) if is_candidate(service, color) => color,
                Visit::Active | Visit::Pinned(_) | Visit::Shared(_) => service.active(),
            };
            let pool = service.side(color).pool();
            let (signal, version) = (pool.policy().version_signal.as_ref()?, pool.version_id()?);
            let event = match last == Some(version) {
                true => String::new(),
                false => format!("data: {}\n\n", message(signal, version)),
            };
            Some((version, event))
        })
    }

    /// Writes what is to be written, and waits for the next wake. At most one event waits for a slow client: further
    /// changes are read when it is written.
    async fn wait(
        &mut self,
        socket: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Wake {
        let Self { out, pools, .. } = self;
        let mut quiet = pin!(tokio::time::sleep(HEARTBEAT));
        let mut changed = pin!(pools.changed());
        poll_fn(|context| {
            let written = poll_write(context, socket, connection, out);
            if matches!(written, Poll::Ready(Err(Gone))) || has_left(context, socket) {
                return Poll::Ready(Wake::Gone);
            }
            if connection.is_closing() {
                return Poll::Ready(Wake::Closing);
            }
            if written.is_pending() {
                return Poll::Pending;
            }
            match changed.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Wake::Changed),
                // The control task has ended, and Flipgate with it.
                Poll::Ready(Err(_)) => return Poll::Ready(Wake::Closing),
                Poll::Pending => {}
            }
            quiet.as_mut().poll(context).map(|()| Wake::Quiet)
        })
        .await
    }

    /// Ends the stream, so that the client knows that it is complete.
    async fn end(&mut self, socket: &mut HttpStream, connection: &ClientConnection<PeerCache>) {
        if self.framing == EventFraming::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        connection.arm(Timeout::Linger);
        poll_fn(|context| {
            if ready!(poll_write(context, socket, connection, &mut self.out)).is_err()
                || ready!(socket.poll_finish(context)).is_err()
                || socket.is_stream()
            {
                return Poll::Ready(());
            }
            // Closing a socket with unread bytes would reset the connection.
            match has_left(context, socket) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Whether pins to this color are valid.
fn is_pinned_to(service: &TableService, color: Color) -> bool {
    let window = service.terms().as_ref().and_then(|it| it.window());
    window.is_some_and(|it| it.color == color && Instant::now() < it.until)
}

fn is_candidate(service: &TableService, color: Color) -> bool {
    let share = service.terms().as_ref().and_then(|it| it.share.as_ref());
    share.is_some_and(|it| it.color == color)
}

/// The client has left.
struct Gone;

/// Writes all of `out`, and frees it.
fn poll_write(
    context: &mut Context<'_>,
    socket: &mut HttpStream,
    connection: &ClientConnection<PeerCache>,
    out: &mut Vec<u8>,
) -> Poll<Result<(), Gone>> {
    let mut has_moved = false;
    let written = loop {
        if out.is_empty() {
            break socket.poll_flush(context).map_err(|_| Gone);
        }
        match socket.poll_write(context, [out, &[], &[]]) {
            Poll::Ready(Ok(count)) => {
                has_moved = true;
                match count == out.len() {
                    true => *out = Vec::new(),
                    false => drop(out.drain(..count)),
                }
            }
            Poll::Ready(Err(_)) => break Poll::Ready(Err(Gone)),
            Poll::Pending => break Poll::Pending,
        }
    };
    connection.track(Timeout::Write, written.is_pending(), has_moved);
    written
}

/// Whether the client has left. What it sends meanwhile is discarded.
fn has_left(context: &mut Context<'_>, socket: &mut HttpStream) -> bool {
    if socket.is_stream() {
        return client_has_left(socket, context);
    }
    loop {
        socket.consume(socket.unread().len());
        match socket.poll_read(context, DISCARD) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return true,
            Poll::Pending => return false,
        }
    }
}

/// Bytes that are read at once to be discarded.
const DISCARD: usize = 4 * 1024;

// === impl EventFraming ===

impl EventFraming {
    fn put(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::Plain => out.extend_from_slice(text.as_bytes()),
            Self::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(out, "{:x}\r\n{text}\r\n", text.len());
            }
        }
    }
}
