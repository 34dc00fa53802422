//! One worker's connections to endpoints.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{
    admission::{CLIENT_SHARE_FACTOR, ConcurrencyLimit, ConcurrencyPermit, SERVICE_SHARE_FACTOR},
    connect::{ConnectContext, ConnectError, ConnectReason},
    connection::{ConnectionKind, UpstreamConnection},
    connection_requests::{WorkerHandle, WorkerRegistry},
    endpoint_state::{ConnectionPermit, EndpointState},
    idle::IdleConnections,
    pool::Pool,
    sessions::{ConnectionTasks, Http2Session, OpenSession},
};
use crate::{
    metrics::GaugeGuard,
    model::Protocol,
    net::{BufferPool, HttpStream, Socket, detect_dead_peer},
};

/// The idle connections of one worker.
#[derive(Debug)]
pub struct WorkerConnectionPool {
    settings: ConnectionSettings,
    /// The limit on connections of all workers.
    limit: Arc<ConcurrencyLimit>,
    /// This worker's entry among all workers.
    worker: WorkerHandle,
    buffers: Rc<BufferPool>,
    idle: RefCell<IdleConnections>,
    tasks: ConnectionTasks,
}

/// How connections are opened and kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionSettings {
    /// The connect timeout, which includes the TLS handshake.
    pub connect: Duration,
    /// How long a connection stays idle before Flipgate closes it. Best below the application's own limit, so that
    /// Flipgate closes first.
    pub idle: Duration,
    /// The maximum of idle connections per worker and endpoint.
    pub idle_max: usize,
    /// How long the kernel waits for acknowledgement of sent data before it closes the connection.
    pub stall: Duration,
}

/// A connection that was idle for less than this is reused without a system call. Applications close idle connections
/// after a second at the earliest, some with an unsolicited response.
const UNCHECKED_MAX: Duration = Duration::from_secs(1);

// === impl WorkerConnectionPool ===

impl WorkerConnectionPool {
    /// No connections yet. They read through `buffers`, count towards `limit` with those of all workers, and are
    /// released when another of `workers` needs one.
    #[must_use]
    pub fn new(
        settings: ConnectionSettings,
        limit: Arc<ConcurrencyLimit>,
        workers: &Arc<WorkerRegistry>,
        buffers: Rc<BufferPool>,
    ) -> Self {
        let (idle, tasks) = (RefCell::default(), ConnectionTasks::default());
        Self { settings, limit, worker: workers.register(), buffers, idle, tasks }
    }

    /// Asks the other workers to close an idle connection to each endpoint at its limit that the front of this pool's
    /// queue found. Called by a request in the queue, after it has found no capacity.
    pub fn request_idle_from_others(&self, pool: &Arc<Pool>) {
        if pool.policy().limits.endpoint_connections.is_some() {
            self.worker.request_from_others(Some(pool));
        }
    }

    /// Releases idle connections whenever other workers ask for them, forever. Cancel-safe.
    pub async fn serve_other_workers(self: &Rc<Self>) {
        loop {
            let pools = self.worker.requested().await;
            for request in self.worker.take_preconnects() {
                // Not here: this future is dropped whenever the worker has something else to do.
                self.tasks.spawn(Rc::clone(self).preconnect(request));
            }
            let mut idle = self.idle.borrow_mut();
            if self.limit.is_exhausted() {
                idle.close_one();
            }
            for pool in pools {
                // One is enough for the front of the queue. The request behind it asks again.
                pool.endpoints().iter().any(|endpoint| {
                    let entry = idle.get_mut(&Arc::as_ptr(endpoint));
                    entry.is_some_and(|it| it.release_idle(endpoint, self.worker_id()))
                });
            }
        }
    }

    /// An idle connection that is still open as far as this worker knows, or a stream of a session with capacity.
    /// `with_care` checks for unread bytes with a system call: for requests that must not be sent twice.
    #[must_use]
    pub fn take_idle(
        &self,
        endpoint: &Arc<EndpointState>,
        is_for_tunnel: bool,
        with_care: bool,
        now: Instant,
    ) -> Option<UpstreamConnection> {
        let mut idle = self.idle.borrow_mut();
        let entry = idle.get_mut(&Arc::as_ptr(endpoint))?;
        if let Some(stream) = entry.stream(is_for_tunnel) {
            return Some(stream);
        }
        while let Some((mut connection, since)) = entry.connections.pop() {
            // A connection with an unsolicited response must not be reused.
            let is_old = now != since && now.saturating_duration_since(since) >= UNCHECKED_MAX;
            let is_reusable_now = match with_care || is_old {
                true => connection.check_reusable(),
                false => connection.is_reusable(),
            };
            if is_reusable_now {
                return Some(connection);
            }
        }
        None
    }

    /// Whether an idle connection or a session with capacity exists, without checking that it is still open.
    #[must_use]
    pub fn has_idle(&self, endpoint: &Arc<EndpointState>, is_for_tunnel: bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        let Some(entry) = idle.get_mut(&Arc::as_ptr(endpoint)) else { return false };
        let mut fit =
            entry.sessions.iter_mut().filter(|it| !is_for_tunnel || it.supports_tunnels());
        !entry.connections.is_empty() || fit.any(Http2Session::has_capacity)
    }

    /// How many idle connections to an endpoint there are; a session with room for more requests counts as many.
    pub(super) fn idle_count(&self, endpoint: &Arc<EndpointState>) -> usize {
        let mut idle = self.idle.borrow_mut();
        let Some(entry) = idle.get_mut(&Arc::as_ptr(endpoint)) else { return 0 };
        match entry.sessions.iter_mut().any(Http2Session::has_capacity) {
            true => usize::MAX,
            false => entry.connections.len(),
        }
    }

    /// Identifies this worker in queues that workers share.
    #[must_use]
    pub fn worker_id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Opens a connection, or a stream of a session. Must be called on a worker's runtime. Cancel-safe: a session that
    /// was opened stays for other requests.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which is already counted in the metrics.
    pub async fn open(
        &self,
        pool: &Pool,
        endpoint: &Arc<EndpointState>,
        connect_context: ConnectContext,
        now: Instant,
    ) -> Result<UpstreamConnection, ConnectError> {
        let opened = self.open_one(pool, endpoint, connect_context, now).await;
        opened.inspect_err(|error| pool.metrics().connect_error(error.reason.as_str()))
    }

    /// Permits for one more connection: of the endpoint's limit and of the process-wide one.
    fn acquire_permits(
        &self,
        pool: &Pool,
        endpoint: &Arc<EndpointState>,
        client_requests: usize,
    ) -> Result<(ConnectionPermit, ConcurrencyPermit), ConnectError> {
        let limit_error = |reason, what: &str| {
            ConnectError::of(endpoint, reason, io::Error::other(what.to_owned()))
        };
        let max = pool.policy().limits.endpoint_connections;
        // A new connection has a use; an idle one may have none.
        let connection_permit = endpoint.try_acquire_connection(max).or_else(|| {
            drop(self.idle.borrow_mut().get_mut(&Arc::as_ptr(endpoint))?.connections.pop()?);
            endpoint.try_acquire_connection(max)
        });
        let connection_permit = connection_permit.ok_or_else(|| {
            limit_error(
                ConnectReason::Limit,
                "the endpoint is at its connection limit (limits.endpoint_connections)",
            )
        })?;
        let pool_connections =
            usize::try_from(pool.metrics().connections().get()).unwrap_or_default();
        let is_within_share = self.limit.is_within_share(client_requests, CLIENT_SHARE_FACTOR)
            && (self.limit.is_within_share(pool_connections, SERVICE_SHARE_FACTOR)
                || pool.is_only_service());
        if !is_within_share {
            let what = "the remaining file descriptors are reserved for other clients and services";
            return Err(limit_error(ConnectReason::Descriptors, what));
        }
        // A new connection is worth more than an idle one.
        let permit = self.limit.try_acquire().or_else(|| {
            self.idle.borrow_mut().close_one();
            self.limit.try_acquire()
        });
        if permit.is_none() {
            // Too late for this request, but not for the next.
            self.worker.request_from_others(None);
        }
        let permit = permit.ok_or_else(|| {
            limit_error(ConnectReason::Descriptors, "all file descriptors for endpoints are in use")
        })?;
        Ok((connection_permit, permit))
    }

    async fn open_one(
        &self,
        pool: &Pool,
        endpoint: &Arc<EndpointState>,
        connect_context: ConnectContext,
        now: Instant,
    ) -> Result<UpstreamConnection, ConnectError> {
        let limit = connect_context.timeout.unwrap_or(self.settings.connect);
        // HTTP/2 endpoints may not support tunnels; HTTP/1.1 always does.
        let only = match (connect_context.is_for_tunnel, endpoint.connect_config().protocol) {
            (false, _) => None,
            (true, protocol) => Some(protocol.unwrap_or(Protocol::Http1)),
        };
        let is_shared = endpoint.connect_config().proxy_protocol.is_none();
        let is_multiplexed = match only {
            Some(protocol) => Some(protocol == Protocol::H2),
            None => endpoint.is_multiplexed(),
        };
        let is_exclusive = !is_shared || is_multiplexed == Some(false);
        // Of concurrent requests only the first opens a session, which then serves all.
        let opening_permit = match is_exclusive {
            true => None,
            false => {
                let opening = Arc::clone(&self.idle.borrow_mut().entry(endpoint).opening);
                let opening_permit = tokio::time::timeout(limit, opening.acquire_owned()).await;
                let opening_permit = opening_permit.map_err(|_| {
                    ConnectError::of(
                        endpoint,
                        ConnectReason::Timeout,
                        io::ErrorKind::TimedOut.into(),
                    )
                })?;
                if let Some(stream) =
                    self.take_idle(endpoint, connect_context.is_for_tunnel, false, now)
                {
                    return Ok(stream);
                }
                // The request before may have found that the endpoint does not use HTTP/2.
                Some(opening_permit).filter(|_| endpoint.is_multiplexed() != Some(false))
            }
        };
        let permits = self.acquire_permits(pool, endpoint, connect_context.client_requests)?;
        let opened = endpoint.connect(limit, connect_context, only).await;
        let opened = opened.inspect_err(|error| {
            // A failure of a protocol that only tunnels need says nothing about other requests.
            let is_tunnel_failure =
                matches!(error.reason, ConnectReason::Tls | ConnectReason::Protocol);
            if !(connect_context.is_for_tunnel && is_tunnel_failure) {
                pool.record_connect_failure(endpoint, error);
            }
        })?;
        if let Some(stream) = opened.transport.tcp() {
            // If the connection has already ended, the first write reports it.
            let _ = detect_dead_peer(&SockRef::from(stream), self.settings.stall);
        }
        endpoint.record_connect_success();
        let open = OpenSession::new(permits, GaugeGuard::new(pool.metrics().connections()));
        let socket = Socket::new(opened.transport, &self.buffers);
        if opened.protocol == Protocol::Http1 {
            drop(opening_permit);
            return Ok(UpstreamConnection::new(
                HttpStream::Socket(socket),
                ConnectionKind::Exclusive(open),
                is_shared,
            ));
        }
        let failed = |what: &str| {
            ConnectError::of(endpoint, ConnectReason::Protocol, io::Error::other(what.to_owned()))
        };
        let started = Http2Session::begin(socket, &self.tasks, open, now).await;
        let mut session = started
            .map_err(|error| failed(&error.to_string()))
            .inspect_err(|error| pool.record_connect_failure(endpoint, error))?;
        if is_shared {
            let mut idle = self.idle.borrow_mut();
            let sessions = &mut idle.entry(endpoint).sessions;
            if sessions.len() < self.settings.idle_max.max(1) {
                sessions.push(session.clone());
            }
        }
        // Other requests need not wait for the tunnel's check.
        drop(opening_permit);
        if connect_context.is_for_tunnel {
            let supported = tokio::time::timeout(limit, session.wait_for_tunnels()).await;
            if supported != Ok(true) {
                return Err(failed("the endpoint does not support WebSockets over HTTP/2"));
            }
        }
        let (stream, lease) = session
            .stream()
            .ok_or_else(|| failed("the endpoint accepts no requests on a new HTTP/2 connection"))?;
        let channel = HttpStream::Stream(Box::new(stream));
        Ok(UpstreamConnection::new(channel, ConnectionKind::Shared(lease), is_shared))
    }

    /// Keeps a connection for the next request after its response was read, or closes it if enough are idle.
    pub fn put_back(
        &self,
        endpoint: &Arc<EndpointState>,
        mut connection: UpstreamConnection,
        now: Instant,
    ) {
        if let ConnectionKind::Shared(lease) = &connection.kind {
            lease.touch(now);
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let entry = idle.entry(endpoint);
        let is_kept = connection.is_shared
            && !endpoint.refuses_connections()
            && !endpoint.take_request_of_others(self.worker_id());
        if is_kept && entry.connections.len() < self.settings.idle_max {
            connection.is_reused = true;
            entry.connections.push((connection, now));
        }
    }

    /// Closes connections that were idle too long, that the endpoint has closed, and to endpoints that have left their
    /// pool or refuse connections, and one per endpoint that another worker waits for. Returns the number of HTTP/2
    /// driver tasks that panicked.
    #[must_use]
    pub fn sweep(&self, now: Instant) -> usize {
        let panics = self.tasks.sweep();
        let worker_id = self.worker_id();
        self.idle.borrow_mut().0.retain(|_, entry| {
            let Some(endpoint) = entry.endpoint.upgrade() else { return false };
            if self.limit.is_exhausted() {
                entry.connections.clear();
            } else if endpoint.refuses_connections() {
                entry.connections.clear();
                entry.sessions.iter().for_each(Http2Session::retire);
            } else {
                entry.release_requested(&endpoint, worker_id);
            }
            entry.connections.retain_mut(|(connection, since)| {
                let is_fresh = now.saturating_duration_since(*since) < self.settings.idle;
                is_fresh && connection.is_reusable()
            });
            entry.sessions.retain(|it| !it.is_closed() && !it.is_idle(now, self.settings.idle));
            let is_opening = Arc::strong_count(&entry.opening) > 1;
            !entry.connections.is_empty() || !entry.sessions.is_empty() || is_opening
        });
        panics
    }
}
