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
    sessions::{Drivers, Http2Session, OpenSession},
};
use crate::{
    metrics::GaugeGuard,
    model::Protocol,
    net::{BufferPool, HttpStream, Socket, notice_loss},
};

/// The connections of one worker that wait for a request.
#[derive(Debug)]
pub struct WorkerConnectionPool {
    settings: ConnectionSettings,
    /// The connections of all workers.
    limit: Arc<ConcurrencyLimit>,
    /// This worker among all.
    worker: WorkerHandle,
    buffers: Rc<BufferPool>,
    idle: RefCell<IdleConnections>,
    drivers: Drivers,
}

/// How connections are opened and kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionSettings {
    /// How long opening one may take.
    pub connect: Duration,
    /// How long one may wait for the next request. Best below the application's own limit, so that
    /// we close first.
    pub idle: Duration,
    /// How many of a worker may wait at one endpoint.
    pub idle_max: usize,
    /// How long the kernel may hear nothing of an endpoint that it has sent something to.
    pub stall: Duration,
}

/// How long a connection may have waited to be used without asking the system about it. Applications
/// close what waited, some with an answer that nobody asked for, after a second at the earliest.
const UNCHECKED_MAX: Duration = Duration::from_secs(1);

// === impl WorkerConnectionPool ===

impl WorkerConnectionPool {
    /// No connections yet; what they read goes through `buffers`. With those of all others that share
    /// it they keep below `limit`, and give up to the others among `workers` what those have more use for.
    #[must_use]
    pub fn new(
        settings: ConnectionSettings,
        limit: Arc<ConcurrencyLimit>,
        workers: &Arc<WorkerRegistry>,
        buffers: Rc<BufferPool>,
    ) -> Self {
        let (idle, drivers) = (RefCell::default(), Drivers::default());
        Self { settings, limit, worker: workers.register(), buffers, idle, drivers }
    }

    /// Has the other workers give up an idle connection to each endpoint that the next in the line of this pool
    /// found to have as many as it may. Called by one who is in the line and has looked.
    pub fn request_idle_from_others(&self, pool: &Arc<Pool>) {
        if pool.policy().limits.endpoint_connections.is_some() {
            self.worker.request_from_others(Some(pool));
        }
    }

    /// Gives up what other workers ask for, whenever they do. Dropping the future loses no call.
    pub async fn serve_other_workers(&self) {
        loop {
            let pools = self.worker.requested().await;
            let mut idle = self.idle.borrow_mut();
            if self.limit.is_exhausted() {
                idle.close_one();
            }
            for pool in pools {
                // One is enough for the next in the line. Who comes after it asks again.
                pool.endpoints().iter().any(|endpoint| {
                    let entry = idle.get_mut(&Arc::as_ptr(endpoint));
                    entry.is_some_and(|it| it.release_idle(endpoint, self.worker_id()))
                });
            }
        }
    }

    /// A connection that waited for a request and is still open, as far as is known here, if there
    /// is one; or a stream of one that has room for more. With care the system is asked whether anything
    /// has come: for what must not be sent twice.
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
            // One that speaks without having been asked is not believed.
            let is_old = now != since && now.saturating_duration_since(since) >= UNCHECKED_MAX;
            let is_quiet = match with_care || is_old {
                true => connection.check_reusable(),
                false => connection.is_reusable(),
            };
            if is_quiet {
                return Some(connection);
            }
        }
        None
    }

    /// Whether something waits for a request, as far as is known without looking closely.
    #[must_use]
    pub fn has_idle(&self, endpoint: &Arc<EndpointState>, is_for_tunnel: bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        let Some(entry) = idle.get_mut(&Arc::as_ptr(endpoint)) else { return false };
        let mut fit =
            entry.sessions.iter_mut().filter(|it| !is_for_tunnel || it.supports_tunnels());
        !entry.connections.is_empty() || fit.any(Http2Session::has_capacity)
    }

    /// What is known of this worker where its requests wait with those of others.
    #[must_use]
    pub fn worker_id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// A new connection, or a stream of one. Must be called on a worker's runtime. Nothing is left
    /// behind when the future is dropped, but that a connection for many requests stays for others.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which is counted already.
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

    /// A place for one more connection to a member, and among all that this process may have.
    fn acquire_permits(
        &self,
        pool: &Pool,
        endpoint: &Arc<EndpointState>,
        of_client: usize,
    ) -> Result<(ConnectionPermit, ConcurrencyPermit), ConnectError> {
        let full = |reason, what: &str| {
            ConnectError::of(endpoint, reason, io::Error::other(what.to_owned()))
        };
        let max = pool.policy().limits.endpoint_connections;
        // Whoever opens one has a use for it, which one that waits for a request has not.
        let connection_permit = endpoint.try_acquire_connection(max).or_else(|| {
            drop(self.idle.borrow_mut().get_mut(&Arc::as_ptr(endpoint))?.connections.pop()?);
            endpoint.try_acquire_connection(max)
        });
        let connection_permit = connection_permit
            .ok_or_else(|| full(ConnectReason::Limit, "it has as many as it may"))?;
        let of_pool = usize::try_from(pool.metrics().connections().get()).unwrap_or_default();
        let is_fair = self.limit.is_within_share(of_client, CLIENT_SHARE_FACTOR)
            && (self.limit.is_within_share(of_pool, SERVICE_SHARE_FACTOR)
                || pool.is_only_service());
        if !is_fair {
            let what = "the file descriptors that are left are for other clients and services";
            return Err(full(ConnectReason::Descriptors, what));
        }
        // One that waits for a request is worth less than one that has one.
        let permit = self.limit.try_acquire().or_else(|| {
            self.idle.borrow_mut().close_one();
            self.limit.try_acquire()
        });
        if permit.is_none() {
            // Too late for this request, but not for the next one.
            self.worker.request_from_others(None);
        }
        let permit = permit.ok_or_else(|| {
            full(ConnectReason::Descriptors, "all file descriptors for endpoints are in use")
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
        // Of a tunnel over HTTP/2 it is not known whether it is taken; HTTP/1.1 has always had them.
        let only = match (connect_context.is_for_tunnel, endpoint.connect_config().protocol) {
            (false, _) => None,
            (true, protocol) => Some(protocol.unwrap_or(Protocol::Http1)),
        };
        let is_shared = endpoint.connect_config().proxy_protocol.is_none();
        let is_multiplexed = match only {
            Some(protocol) => Some(protocol == Protocol::H2),
            None => endpoint.is_multiplexed(),
        };
        let is_alone = !is_shared || is_multiplexed == Some(false);
        // Of many that come at once only the first opens a connection that will do for all.
        let opening_permit = match is_alone {
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
                // Whoever came before may have found out that there is nothing to share.
                Some(opening_permit).filter(|_| endpoint.is_multiplexed() != Some(false))
            }
        };
        let permits = self.acquire_permits(pool, endpoint, connect_context.client_requests)?;
        let opened = endpoint.connect(limit, connect_context, only).await;
        let opened = opened.inspect_err(|error| {
            // That it does not take what only tunnels ask for says nothing of other requests.
            let is_of_offer = matches!(error.reason, ConnectReason::Tls | ConnectReason::Protocol);
            if !(connect_context.is_for_tunnel && is_of_offer) {
                pool.record_connect_failure(endpoint, error);
            }
        })?;
        if let Some(stream) = opened.transport.tcp() {
            // One that has ended already is found out by what is written.
            let _ = notice_loss(&SockRef::from(stream), self.settings.stall);
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
        let begun = Http2Session::begin(socket, &self.drivers, open, now).await;
        let mut session = begun
            .map_err(|error| failed(&error.to_string()))
            .inspect_err(|error| pool.record_connect_failure(endpoint, error))?;
        if is_shared {
            let mut idle = self.idle.borrow_mut();
            let sessions = &mut idle.entry(endpoint).sessions;
            if sessions.len() < self.settings.idle_max.max(1) {
                sessions.push(session.clone());
            }
        }
        // Others need not wait for what only a tunnel has to know.
        drop(opening_permit);
        if connect_context.is_for_tunnel {
            let takes = tokio::time::timeout(limit, session.wait_for_tunnels()).await;
            if takes != Ok(true) {
                return Err(failed("it takes no WebSockets over HTTP/2"));
            }
        }
        let (stream, lease) = session.stream().ok_or_else(|| failed("it takes no requests"))?;
        let channel = HttpStream::Stream(Box::new(stream));
        Ok(UpstreamConnection::new(channel, ConnectionKind::Shared(lease), is_shared))
    }

    /// Keeps a connection whose answer has been read to its end for the next request, or closes it
    /// if enough are waiting.
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
        let has_use = connection.is_shared
            && !endpoint.refuses_connections()
            && !endpoint.take_request_of_others(self.worker_id());
        if has_use && entry.connections.len() < self.settings.idle_max {
            connection.is_reused = true;
            entry.connections.push((connection, now));
        }
    }

    /// Closes what waited too long, what the other end has closed, what belongs to members that are in no
    /// pool any more or with whom nobody can speak, and one of each that somebody of another worker may
    /// have more use for. Returns how many connections of HTTP/2 have ended by a panic.
    #[must_use]
    pub fn sweep(&self, now: Instant) -> usize {
        let panics = self.drivers.sweep();
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
