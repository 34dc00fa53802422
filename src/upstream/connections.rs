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
    admission::{ConcurrencyLimit, ConcurrencyPermit, SHARE_OF_CLIENT, SHARE_OF_SERVICE},
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
    limits: ConnectionSettings,
    /// The connections of all workers.
    ceiling: Arc<ConcurrencyLimit>,
    /// This worker among all.
    bell: WorkerHandle,
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
const TRUSTED: Duration = Duration::from_secs(1);

// === impl WorkerConnectionPool ===

impl WorkerConnectionPool {
    /// No connections yet; what they read goes through `buffers`. With those of all others that share
    /// it they keep below `ceiling`, and give up to the others among `workers` what those have more use for.
    #[must_use]
    pub fn new(
        limits: ConnectionSettings,
        ceiling: Arc<ConcurrencyLimit>,
        workers: &Arc<WorkerRegistry>,
        buffers: Rc<BufferPool>,
    ) -> Self {
        let (idle, drivers) = (RefCell::default(), Drivers::default());
        Self { limits, ceiling, bell: workers.join(), buffers, idle, drivers }
    }

    /// Has the other workers give up an idle connection to each endpoint that the next in the line of this pool
    /// found to have as many as it may. Called by one who is in the line and has looked.
    pub fn ask_others(&self, pool: &Arc<Pool>) {
        if pool.policy().limits.endpoint_connections.is_some() {
            self.bell.call_others(Some(pool));
        }
    }

    /// Gives up what other workers ask for, whenever they do. Dropping the future loses no call.
    pub async fn serve_others(&self) {
        loop {
            let pools = self.bell.called().await;
            let mut idle = self.idle.borrow_mut();
            if self.ceiling.is_reached() {
                idle.close_one();
            }
            for pool in pools {
                // One is enough for the next in the line. Who comes after it asks again.
                pool.members().iter().any(|member| {
                    let waiting = idle.get_mut(&Arc::as_ptr(member));
                    waiting.is_some_and(|it| it.give_up_idle(member, self.owner()))
                });
            }
        }
    }

    /// A connection that waited for a request and is still open, as far as is known here, if there
    /// is one; or a stream of one that has room for more. With care the system is asked whether anything
    /// has come: for what must not be sent twice.
    #[must_use]
    pub fn waiting(
        &self,
        member: &Arc<EndpointState>,
        is_for_tunnel: bool,
        with_care: bool,
        now: Instant,
    ) -> Option<UpstreamConnection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&Arc::as_ptr(member))?;
        if let Some(stream) = waiting.stream(is_for_tunnel) {
            return Some(stream);
        }
        while let Some((mut connection, since)) = waiting.connections.pop() {
            // One that speaks without having been asked is not believed.
            let is_old = now != since && now.saturating_duration_since(since) >= TRUSTED;
            let is_quiet = match with_care || is_old {
                true => connection.is_quiet_now(),
                false => connection.is_quiet(),
            };
            if is_quiet {
                return Some(connection);
            }
        }
        None
    }

    /// Whether something waits for a request, as far as is known without looking closely.
    #[must_use]
    pub fn has_waiting(&self, member: &Arc<EndpointState>, is_for_tunnel: bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        let Some(waiting) = idle.get_mut(&Arc::as_ptr(member)) else { return false };
        let mut fit = waiting.sessions.iter_mut().filter(|it| !is_for_tunnel || it.has_tunnels());
        !waiting.connections.is_empty() || fit.any(Http2Session::has_room)
    }

    /// What is known of this worker where its requests wait with those of others.
    #[must_use]
    pub fn owner(&self) -> usize {
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
        member: &Arc<EndpointState>,
        connect_context: ConnectContext,
        now: Instant,
    ) -> Result<UpstreamConnection, ConnectError> {
        let opened = self.open_one(pool, member, connect_context, now).await;
        opened.inspect_err(|error| pool.metrics().connect_error(error.reason.as_str()))
    }

    /// A place for one more connection to a member, and among all that this process may have.
    fn place(
        &self,
        pool: &Pool,
        member: &Arc<EndpointState>,
        of_client: usize,
    ) -> Result<(ConnectionPermit, ConcurrencyPermit), ConnectError> {
        let full = |reason, what: &str| {
            ConnectError::of(member, reason, io::Error::other(what.to_owned()))
        };
        let max = pool.policy().limits.endpoint_connections;
        // Whoever opens one has a use for it, which one that waits for a request has not.
        let connection_permit = member.try_open(max).or_else(|| {
            drop(self.idle.borrow_mut().get_mut(&Arc::as_ptr(member))?.connections.pop()?);
            member.try_open(max)
        });
        let connection_permit = connection_permit
            .ok_or_else(|| full(ConnectReason::Limit, "it has as many as it may"))?;
        let of_pool = usize::try_from(pool.metrics().connections().get()).unwrap_or_default();
        let is_fair = self.ceiling.is_fair(of_client, SHARE_OF_CLIENT)
            && (self.ceiling.is_fair(of_pool, SHARE_OF_SERVICE) || pool.is_of_only_service());
        if !is_fair {
            let what = "the file descriptors that are left are for other clients and services";
            return Err(full(ConnectReason::Descriptors, what));
        }
        // One that waits for a request is worth less than one that has one.
        let permit = self.ceiling.enter().or_else(|| {
            self.idle.borrow_mut().close_one();
            self.ceiling.enter()
        });
        if permit.is_none() {
            // Too late for this request, but not for the next one.
            self.bell.call_others(None);
        }
        let permit = permit.ok_or_else(|| {
            full(ConnectReason::Descriptors, "all file descriptors for endpoints are in use")
        })?;
        Ok((connection_permit, permit))
    }

    async fn open_one(
        &self,
        pool: &Pool,
        member: &Arc<EndpointState>,
        connect_context: ConnectContext,
        now: Instant,
    ) -> Result<UpstreamConnection, ConnectError> {
        let limit = connect_context.patience.unwrap_or(self.limits.connect);
        // Of a tunnel over HTTP/2 it is not known whether it is taken; HTTP/1.1 has always had them.
        let only = match (connect_context.is_for_tunnel, member.link().protocol) {
            (false, _) => None,
            (true, protocol) => Some(protocol.unwrap_or(Protocol::Http1)),
        };
        let is_shared = member.link().proxy_protocol.is_none();
        let is_multiplexed = match only {
            Some(protocol) => Some(protocol == Protocol::H2),
            None => member.is_multiplexed(),
        };
        let is_alone = !is_shared || is_multiplexed == Some(false);
        // Of many that come at once only the first opens a connection that will do for all.
        let turn = match is_alone {
            true => None,
            false => {
                let opening = Arc::clone(&self.idle.borrow_mut().entry_of(member).opening);
                let turn = tokio::time::timeout(limit, opening.acquire_owned()).await;
                let turn = turn.map_err(|_| {
                    ConnectError::of(member, ConnectReason::Timeout, io::ErrorKind::TimedOut.into())
                })?;
                if let Some(stream) =
                    self.waiting(member, connect_context.is_for_tunnel, false, now)
                {
                    return Ok(stream);
                }
                // Whoever came before may have found out that there is nothing to share.
                Some(turn).filter(|_| member.is_multiplexed() != Some(false))
            }
        };
        let place = self.place(pool, member, connect_context.of_client)?;
        let opened = member.connect(limit, connect_context, only).await;
        let opened = opened.inspect_err(|error| {
            // That it does not take what only tunnels ask for says nothing of other requests.
            let is_of_offer = matches!(error.reason, ConnectReason::Tls | ConnectReason::Protocol);
            if !(connect_context.is_for_tunnel && is_of_offer) {
                pool.missed(member, error);
            }
        })?;
        if let Some(stream) = opened.transport.tcp() {
            // One that has ended already is found out by what is written.
            let _ = notice_loss(&SockRef::from(stream), self.limits.stall);
        }
        member.reached();
        let open = OpenSession::new(place, GaugeGuard::new(pool.metrics().connections()));
        let socket = Socket::new(opened.transport, &self.buffers);
        if opened.protocol == Protocol::Http1 {
            drop(turn);
            return Ok(UpstreamConnection::new(
                HttpStream::Socket(socket),
                ConnectionKind::Alone(open),
                is_shared,
            ));
        }
        let failed = |what: &str| {
            ConnectError::of(member, ConnectReason::Protocol, io::Error::other(what.to_owned()))
        };
        let begun = Http2Session::begin(socket, &self.drivers, open, now).await;
        let mut session = begun
            .map_err(|error| failed(&error.to_string()))
            .inspect_err(|error| pool.missed(member, error))?;
        if is_shared {
            let mut idle = self.idle.borrow_mut();
            let sessions = &mut idle.entry_of(member).sessions;
            if sessions.len() < self.limits.idle_max.max(1) {
                sessions.push(session.clone());
            }
        }
        // Others need not wait for what only a tunnel has to know.
        drop(turn);
        if connect_context.is_for_tunnel {
            let takes = tokio::time::timeout(limit, session.takes_tunnels()).await;
            if takes != Ok(true) {
                return Err(failed("it takes no WebSockets over HTTP/2"));
            }
        }
        let (stream, lease) = session.stream().ok_or_else(|| failed("it takes no requests"))?;
        let channel = HttpStream::Stream(Box::new(stream));
        Ok(UpstreamConnection::new(channel, ConnectionKind::Together(lease), is_shared))
    }

    /// Keeps a connection whose answer has been read to its end for the next request, or closes it
    /// if enough are waiting.
    pub fn put_back(
        &self,
        member: &Arc<EndpointState>,
        mut connection: UpstreamConnection,
        now: Instant,
    ) {
        if let ConnectionKind::Together(lease) = &connection.held {
            lease.release(now);
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.entry_of(member);
        let has_use =
            connection.is_shared && !member.is_gone() && !member.is_wanted_by_others(self.owner());
        if has_use && waiting.connections.len() < self.limits.idle_max {
            connection.is_reused = true;
            waiting.connections.push((connection, now));
        }
    }

    /// Closes what waited too long, what the other end has closed, what belongs to members that are in no
    /// pool any more or with whom nobody can speak, and one of each that somebody of another worker may
    /// have more use for. Returns how many connections of HTTP/2 have ended by a panic.
    #[must_use]
    pub fn sweep(&self, now: Instant) -> usize {
        let panics = self.drivers.sweep();
        let owner = self.owner();
        self.idle.borrow_mut().0.retain(|_, waiting| {
            let Some(member) = waiting.member.upgrade() else { return false };
            if self.ceiling.is_reached() {
                waiting.connections.clear();
            } else if member.is_gone() {
                waiting.connections.clear();
                waiting.sessions.iter().for_each(Http2Session::distrust);
            } else {
                waiting.give_up_wanted(&member, owner);
            }
            waiting.connections.retain_mut(|(connection, since)| {
                let is_fresh = now.saturating_duration_since(*since) < self.limits.idle;
                is_fresh && connection.is_quiet()
            });
            waiting.sessions.retain(|it| !it.is_over() && !it.is_idle(now, self.limits.idle));
            let is_opening = Arc::strong_count(&waiting.opening) > 1;
            !waiting.connections.is_empty() || !waiting.sessions.is_empty() || is_opening
        });
        panics
    }
}
