//! The state of one client connection, or of one of its HTTP/2 streams: its peer, its timeouts, and whether it is
//! closing. The task that serves it and the connection table share it; the table reports expired timeouts.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;
use tracing::debug;

use super::{
    clock::{Clock, DATE_LENGTH, Deadlines, Tick},
    peer::Peer,
    timeout::Timeout,
};

/// The state of one client connection, or of one of its HTTP/2 streams. Shared by the task that serves it and the
/// connection table.
pub struct ClientConnection<M> {
    peer: Rc<Peer<M>>,
    clock: Rc<Clock>,
    deadlines: Deadlines,
    /// An expired timeout that the task has not taken yet.
    expired: Cell<Option<Timeout>>,
    /// Whether the connection closes after the exchange in progress.
    is_closing: Cell<bool>,
    /// Whether the connection closes at once if it is idle: its permit is needed for another one.
    is_evicted: Cell<bool>,
    /// Whether timeouts that detect a gone client are reported to the task instead of cutting it.
    reports_client_gone: Cell<bool>,
    /// Whether the client has reset a request that goes on, and the driver has not taken note yet.
    has_reset: Cell<bool>,
    /// Whether this is one stream of a connection.
    is_stream: bool,
    waker: RefCell<Option<Waker>>,
    /// The task that serves the connection, once it has started.
    task: Cell<Option<AbortHandle>>,
}

/// How long a handshake may continue when the connection is closing.
const CLOSING_TIMEOUT: Duration = Duration::from_millis(500);

// === impl ClientConnection ===

impl<M> ClientConnection<M> {
    pub(super) fn new(peer: Rc<Peer<M>>, clock: Rc<Clock>) -> Self {
        Self::build(peer, clock, false)
    }

    /// The state of an HTTP/2 stream.
    pub(super) fn new_stream(peer: Rc<Peer<M>>, clock: Rc<Clock>) -> Self {
        Self::build(peer, clock, true)
    }

    fn build(peer: Rc<Peer<M>>, clock: Rc<Clock>, is_stream: bool) -> Self {
        Self {
            peer,
            clock,
            deadlines: Deadlines::default(),
            expired: Cell::new(None),
            is_closing: Cell::new(false),
            is_evicted: Cell::new(false),
            reports_client_gone: Cell::new(false),
            has_reset: Cell::new(false),
            is_stream,
            waker: RefCell::new(None),
            task: Cell::new(None),
        }
    }

    /// Stores the handle of the task that serves the connection, in place of that of an earlier one.
    pub(super) fn set_task(&self, task: AbortHandle) {
        self.task.set(Some(task));
    }

    /// The peer of the connection.
    pub fn peer(&self) -> &Rc<Peer<M>> {
        &self.peer
    }

    /// The current time as the value of a `Date` field.
    #[must_use]
    pub fn date(&self) -> [u8; DATE_LENGTH] {
        self.clock.date()
    }

    /// The time as of the worker's last step.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Whether the connection closes after the exchange in progress.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Starts a timeout with the worker's limit.
    pub fn arm(&self, timeout: Timeout) {
        self.deadlines.arm(timeout, &self.clock);
    }

    /// Starts a timeout with this limit.
    pub fn arm_for(&self, timeout: Timeout, limit: Duration) {
        self.deadlines.arm_for(timeout, &self.clock, limit);
    }

    /// When the timeout expires, if it is armed.
    pub(super) fn deadline(&self, timeout: Timeout) -> Option<Tick> {
        self.deadlines.get(timeout)
    }

    /// Arms a timeout to expire at `until`.
    pub(super) fn set_deadline(&self, timeout: Timeout, until: Tick) {
        self.deadlines.set(timeout, until);
    }

    /// Stops a timeout.
    pub fn disarm(&self, timeout: Timeout) {
        self.deadlines.disarm(timeout);
        if self.expired.get() == Some(timeout) {
            self.expired.set(None);
        }
    }

    /// Arms a timeout while `is_pending`, restarts it when `has_progress`, and stops it otherwise.
    pub fn track(&self, timeout: Timeout, is_pending: bool, has_progress: bool) {
        self.track_for(timeout, None, is_pending, has_progress);
    }

    /// Like [`Self::track`], with this limit instead of the worker's if there is one.
    pub fn track_for(
        &self,
        timeout: Timeout,
        limit: Option<Duration>,
        is_pending: bool,
        has_progress: bool,
    ) {
        match (is_pending, self.deadlines.is_armed(timeout)) {
            (true, true) if !has_progress => {}
            (true, _) => match limit {
                Some(limit) => self.arm_for(timeout, limit),
                None => self.arm(timeout),
            },
            (false, true) => self.disarm(timeout),
            (false, false) => {}
        }
    }

    /// Whether the timeout is armed.
    pub fn is_armed(&self, timeout: Timeout) -> bool {
        self.deadlines.is_armed(timeout)
    }

    /// The expired timeout, once. The task is cut if it does not take it in time.
    pub fn take_expired(&self) -> Option<Timeout> {
        let expired = self.expired.take();
        if let Some(timeout) = expired {
            self.deadlines.disarm(timeout);
        }
        expired
    }

    /// Awaits what comes before a request, with less time left once the connection is closing, since no request has
    /// begun. Dropping the future drops `work`.
    pub(super) async fn run_with_closing_timeout<T>(
        &self,
        timeout: Timeout,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        let mut is_shortened = false;
        poll_fn(|context| {
            self.set_waker(context.waker());
            if self.is_closing() && !std::mem::replace(&mut is_shortened, true) {
                self.arm_for(timeout, CLOSING_TIMEOUT);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// Stops every timeout, and forgets an expired one.
    pub fn disarm_all(&self) {
        self.deadlines.disarm_all();
        self.expired.set(None);
        self.reports_client_gone.set(false);
    }

    /// Reports [`Timeout::HalfClosed`] and [`Timeout::Write`] to the task, until all timeouts are stopped: the task has
    /// work to do for a client that has gone.
    pub fn report_client_gone(&self) {
        self.reports_client_gone.set(true);
    }

    /// Records that the client has reset a request that goes on for a while.
    pub fn record_reset(&self) {
        self.has_reset.set(true);
    }

    /// Whether the client has reset a request that goes on. True once.
    pub(super) fn take_reset(&self) -> bool {
        self.has_reset.take()
    }

    /// Reports an expired timeout to the task. Returns the timeout if the connection must be cut instead.
    pub(super) fn check_timeouts(&self, now: Tick) -> Option<Timeout> {
        let timeout = self.deadlines.expired(now)?;
        let is_reported = timeout.is_reported()
            || self.reports_client_gone.get() && timeout.detects_gone_client();
        let is_reported = is_reported && self.expired.replace(Some(timeout)) != Some(timeout);
        if is_reported {
            self.wake();
        }
        (!is_reported).then_some(timeout)
    }

    /// Since when the connection has been idle. `None` for one that is busy or about to close, and for a stream.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        if self.is_stream || self.is_evicted.get() {
            return None;
        }
        self.deadlines.idle_timeout(&self.clock).map(|(_, since)| since)
    }

    /// Closes an idle connection, so that another one can have its permit. A connection between two requests still gets
    /// responses to requests that have already arrived.
    pub(super) fn evict(&self) {
        self.is_evicted.set(true);
        match self.deadlines.idle_timeout(&self.clock) {
            // A partial request or handshake deserves no response, which would take time.
            Some((timeout @ (Timeout::Handshake | Timeout::Head | Timeout::Linger), _)) => {
                self.cut(timeout);
            }
            _ => self.close(),
        }
    }

    /// Whether the connection closes at once if it is idle.
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.get()
    }

    /// Aborts the task at its next await point.
    pub(super) fn cut(&self, timeout: Timeout) {
        debug!(peer = %self.peer.address(), ?timeout, "connection timed out");
        if let Some(task) = self.task.take() {
            task.abort();
            self.task.set(Some(task));
        }
    }

    /// Asks the connection to close after the exchange in progress.
    pub(super) fn close(&self) {
        if !self.is_closing.replace(true) {
            self.wake();
        }
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|it| it.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use crate::downstream::{Listener, ListenerContext, Timeouts, peer::PeerIdentity};

    fn connection() -> ClientConnection<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener_context = ListenerContext::unbound(Listener::plain(address));
        let peer = Rc::new(Peer::new(PeerIdentity::Known(address), listener_context, None));
        let limit = Duration::from_secs(1);
        let timeouts = Timeouts {
            handshake: limit,
            head: limit,
            keep_alive: limit,
            stall: limit,
            upstream: limit,
            request: None,
            tunnel: limit,
        };
        ClientConnection::new(peer, Rc::new(Clock::new(&timeouts)))
    }

    /// The timeout that the connection is cut for, if it is checked after so many seconds.
    fn cut_after(connection: &ClientConnection<()>, seconds: u64) -> Option<Timeout> {
        connection.clock.set(connection.clock.now() + Duration::from_secs(seconds));
        connection.check_timeouts(connection.clock.tick())
    }

    #[test]
    fn a_stalled_connection_is_cut_and_one_with_progress_is_not() {
        let connection = connection();
        connection.track(Timeout::Write, true, false);
        assert_eq!(cut_after(&connection, 1), None);
        connection.track(Timeout::Write, true, true);
        assert_eq!(cut_after(&connection, 1), None, "there was progress");
        connection.track(Timeout::Write, true, false);
        assert_eq!(cut_after(&connection, 1), Some(Timeout::Write));
    }

    /// Each of nine thousand idle clients has one. The allocator's next size is 192 bytes.
    #[test]
    fn a_connection_fits_into_160_bytes_with_its_two_counts() {
        assert!(size_of::<ClientConnection<()>>() + 2 * size_of::<usize>() <= 160);
    }

    #[test]
    fn a_connection_without_a_timeout_is_never_cut() {
        let connection = connection();
        connection.track(Timeout::Write, true, false);
        connection.track(Timeout::Write, false, false);
        assert_eq!(cut_after(&connection, 3600), None);
        assert_eq!(connection.expired.get(), None);
    }

    #[test]
    fn a_reported_timeout_is_reported_once_and_then_cuts_the_connection() {
        let connection = connection();
        connection.arm(Timeout::Head);
        assert_eq!(cut_after(&connection, 2), None);
        assert_eq!(connection.take_expired(), Some(Timeout::Head));
        assert_eq!((cut_after(&connection, 2), connection.take_expired()), (None, None));
        connection.arm(Timeout::Head);
        assert_eq!(cut_after(&connection, 2), None);
        assert_eq!(cut_after(&connection, 2), Some(Timeout::Head));
    }
}
