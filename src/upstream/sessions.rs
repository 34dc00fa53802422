//! HTTP/2 connections to endpoints, which carry concurrent requests.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
};
use tracing::debug;

use super::{admission::ConcurrencyPermit, endpoint_state::ConnectionPermit};
use crate::{http2::Http2Stream, metrics::GaugeGuard, net::Socket};

/// An HTTP/2 connection. Its requests keep it open; an idle one is closed after a while.
#[derive(Clone, Debug)]
pub(super) struct Http2Session {
    sender: SendRequest<Bytes>,
    state: Rc<SessionState>,
    is_tls: bool,
}

/// Keeps the permits and the metric of an open connection until dropped.
#[derive(Debug)]
pub(super) struct OpenSession {
    _permits: (ConnectionPermit, ConcurrencyPermit),
    _counted: GaugeGuard,
}

/// What the driver task and the requests of a session share.
#[derive(Debug)]
struct SessionState {
    in_use: Cell<usize>,
    /// Whether it accepts no more requests.
    is_closed: Cell<bool>,
    since: Cell<Instant>,
    /// Notified when the endpoint may have changed its settings, or the connection has ended.
    state_changed: Notify,
}

/// Marks a session as closed when its driver task ends, also after a panic.
struct DriverGuard(Rc<SessionState>);

/// A request's use of a session.
#[derive(Debug)]
pub(super) struct StreamLease(Rc<SessionState>);

/// The tasks of a worker that drive sessions and open connections in advance; dropping this aborts them.
#[derive(Debug, Default)]
pub(super) struct ConnectionTasks(RefCell<JoinSet<()>>);

/// The flow-control windows: bytes that an endpoint may send of one response before they are forwarded, and of all
/// responses together. The second is the maximum, so that slow clients do not block other responses.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The maximum of concurrent requests on one connection, also before the endpoint's settings have arrived.
const STREAMS_MAX: usize = 100;

/// Bytes of a response head, as for HTTP/1.
const FIELDS_MAX: u32 = 64 * 1024;

/// Bytes of a request body that h2 buffers before they go to the system.
const SEND_BUFFER: usize = 128 * 1024;

// === impl OpenSession ===

impl OpenSession {
    pub(super) fn new(permits: (ConnectionPermit, ConcurrencyPermit), counted: GaugeGuard) -> Self {
        Self { _permits: permits, _counted: counted }
    }
}

// === impl Http2Session ===

impl Http2Session {
    /// Starts HTTP/2 on a new connection. Must be called on a worker's runtime. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    ///
    /// The error of the connection.
    pub(super) async fn begin(
        socket: Socket,
        tasks: &ConnectionTasks,
        open: OpenSession,
        now: Instant,
    ) -> Result<Self, h2::Error> {
        let is_tls = socket.transport().is_tls();
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS_MAX)
            .max_header_list_size(FIELDS_MAX)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(socket)
            .await?;
        let state = Rc::new(SessionState {
            in_use: Cell::new(0),
            is_closed: Cell::new(false),
            since: Cell::new(now),
            state_changed: Notify::new(),
        });
        let guard = Rc::clone(&state);
        tasks.0.borrow_mut().spawn_local(async move {
            let guard = DriverGuard(guard);
            let ended = std::future::poll_fn(|context| {
                let ended = std::pin::Pin::new(&mut connection).poll(context);
                guard.0.state_changed.notify_waiters();
                ended
            })
            .await;
            drop((guard, open));
            if let Err(error) = ended {
                debug!(%error, "HTTP/2 connection to an endpoint ended with an error");
            }
        });
        Ok(Self { sender, state, is_tls })
    }

    /// A stream for one more request, unless the session has as many as the endpoint allows.
    pub(super) fn stream(&mut self) -> Option<(Http2Stream, StreamLease)> {
        if !self.has_capacity() {
            return None;
        }
        self.state.in_use.set(self.state.in_use.get() + 1);
        let lease = StreamLease(Rc::clone(&self.state));
        Some((Http2Stream::to_upstream(self.sender.clone(), self.is_tls), lease))
    }

    /// Whether one more request is possible.
    pub(super) fn has_capacity(&mut self) -> bool {
        // After GOAWAY the connection finishes its requests and accepts no more.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = self.sender.poll_ready(&mut context) {
            self.state.is_closed.set(true);
        }
        let most = self.sender.current_max_send_streams().min(STREAMS_MAX);
        !self.is_closed() && self.state.in_use.get() < most
    }

    /// Requests in progress.
    pub(super) fn in_use(&self) -> usize {
        self.state.in_use.get()
    }

    /// Accepts no more requests from now on.
    pub(super) fn retire(&self) {
        self.state.is_closed.set(true);
    }

    /// Waits until the endpoint's settings allow WebSockets over HTTP/2. False if the connection ends before.
    pub(super) async fn wait_for_tunnels(&self) -> bool {
        loop {
            let changed = self.state.state_changed.notified();
            if self.supports_tunnels() {
                return true;
            }
            if self.is_closed() {
                return false;
            }
            changed.await;
        }
    }

    /// Whether the endpoint's settings allow WebSockets over HTTP/2 (RFC 8441, section 3).
    pub(super) fn supports_tunnels(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Whether it accepts no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.state.is_closed.get()
    }

    /// Whether it has been unused for `limit`.
    pub(super) fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        let since = self.state.since.get();
        self.state.in_use.get() == 0 && now.saturating_duration_since(since) >= limit
    }
}

// === impl DriverGuard ===

impl Drop for DriverGuard {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        self.0.state_changed.notify_waiters();
    }
}

// === impl StreamLease ===

impl StreamLease {
    /// The session accepts no more requests: one of its requests got no response.
    pub(super) fn retire(&self) {
        self.0.is_closed.set(true);
    }

    pub(super) fn touch(&self, now: Instant) {
        self.0.since.set(now);
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
    }
}

// === impl ConnectionTasks ===

impl ConnectionTasks {
    /// Runs a task of the worker. Must be called on the worker's runtime.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(task);
    }

    /// Removes ended tasks. Returns how many of them panicked.
    pub(super) fn sweep(&self) -> usize {
        let mut tasks = self.0.borrow_mut();
        let ended = std::iter::from_fn(|| tasks.try_join_next());
        ended.filter(|it| it.as_ref().is_err_and(JoinError::is_panic)).count()
    }
}
