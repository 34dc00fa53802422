//! What is known of one client's connection, or of one stream of it: who it is, what it waits for and
//! until when. Seen by the task that serves it and by the roster, which calls on it when it has waited
//! for too long.

use std::{
    cell::{Cell, OnceCell, RefCell},
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

/// What is known of one client's connection, or of one stream of it. Seen by the task that serves it and
/// by the roster.
pub struct ClientConnection<M> {
    peer: Rc<Peer<M>>,
    clock: Rc<Clock>,
    deadlines: Deadlines,
    /// A wait that is over and that the task has not been told of yet.
    expired: Cell<Option<Timeout>>,
    /// Whether the connection is to end after what is being done.
    is_closing: Cell<bool>,
    /// Whether it is to end at once if nothing is being done: another one needs its place.
    is_evicted: Cell<bool>,
    /// Whether the task is told that its client has gone, where it would be cut otherwise.
    reports_client_gone: Cell<bool>,
    /// Whether the client has reset a request that is still waited for, and nobody has asked yet.
    has_reset: Cell<bool>,
    /// Whether this is one stream of a connection.
    is_stream: bool,
    waker: RefCell<Option<Waker>>,
    /// Set once, when the task was started.
    task: OnceCell<AbortHandle>,
}

/// How long what comes before a request may go on when the connection is to end.
const CLOSING_TIMEOUT: Duration = Duration::from_millis(500);

// === impl ClientConnection ===

impl<M> ClientConnection<M> {
    pub(super) fn new(peer: Rc<Peer<M>>, clock: Rc<Clock>) -> Self {
        Self::build(peer, clock, false)
    }

    /// A stream of a connection.
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
            task: OnceCell::new(),
        }
    }

    /// Notes the task that serves it, when that was started.
    pub(super) fn set_task(&self, task: AbortHandle) {
        let is_first = self.task.set(task).is_ok();
        debug_assert!(is_first, "one task serves a connection");
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Rc<Peer<M>> {
        &self.peer
    }

    /// The time of day as a `Date` tells it.
    #[must_use]
    pub fn date(&self) -> [u8; DATE_LENGTH] {
        self.clock.date()
    }

    /// The time, as of the worker's last step.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Whether the connection is to end after what is being done.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Waits for something from now on, for as long as the worker's patience says.
    pub fn arm(&self, timeout: Timeout) {
        self.deadlines.arm(timeout, &self.clock);
    }

    /// Waits for something from now on, for so long.
    pub fn arm_for(&self, timeout: Timeout, limit: Duration) {
        self.deadlines.arm_for(timeout, &self.clock, limit);
    }

    /// Until when something is waited for.
    pub(super) fn deadline(&self, timeout: Timeout) -> Option<Tick> {
        self.deadlines.get(timeout)
    }

    /// Waits for something until then.
    pub(super) fn set_deadline(&self, timeout: Timeout, until: Tick) {
        self.deadlines.set(timeout, until);
    }

    /// Waits for something no longer.
    pub fn disarm(&self, timeout: Timeout) {
        self.deadlines.disarm(timeout);
        if self.expired.get() == Some(timeout) {
            self.expired.set(None);
        }
    }

    /// Notes whether something is being waited for, and whether it has moved since this was noted
    /// the last time, so that the wait begins anew.
    pub fn track(&self, timeout: Timeout, is_pending: bool, has_progress: bool) {
        self.track_for(timeout, None, is_pending, has_progress);
    }

    /// The same for so long, if that is not as long as for all connections.
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

    /// Whether something is being waited for.
    pub fn is_armed(&self, timeout: Timeout) -> bool {
        self.deadlines.is_armed(timeout)
    }

    /// What was waited for too long, told once. Whoever does not ask in time is cut.
    pub fn take_expired(&self) -> Option<Timeout> {
        let expired = self.expired.take();
        if let Some(timeout) = expired {
            self.deadlines.disarm(timeout);
        }
        expired
    }

    /// Awaits what comes before a request. When the connection is to end there is less time left for
    /// it: nothing was asked yet. Dropping the future drops what is awaited.
    pub(super) async fn run_until_closing<T>(
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

    /// Nothing is waited for any more, and nothing that was is told.
    pub fn disarm_all(&self) {
        self.deadlines.disarm_all();
        self.expired.set(None);
        self.reports_client_gone.set(false);
    }

    /// Has the task be told of [`Timeout::HalfClosed`] and [`Timeout::Taken`], as of others, until nothing is waited
    /// for any more: it has something left to do for a client that has gone.
    pub fn report_client_gone(&self) {
        self.reports_client_gone.set(true);
    }

    /// Notes that the client has reset a request which goes on for a while.
    pub fn record_reset(&self) {
        self.has_reset.set(true);
    }

    /// Whether the client has reset a request which goes on. Told once.
    pub(super) fn take_reset(&self) -> bool {
        self.has_reset.take()
    }

    /// Calls on the connection if it has waited for too long. Returns what for, if there is nothing
    /// left but to cut it.
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

    /// Since when it has been waiting for its client with no request under way. `None` for one that is
    /// busy, one that is about to close, and a stream.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        if self.is_stream || self.is_evicted.get() {
            return None;
        }
        self.deadlines.idle_timeout(&self.clock).map(|(_, since)| since)
    }

    /// Closes a connection that is idle, so that another one can have its place. One between two requests
    /// still answers what has arrived by now.
    pub(super) fn evict(&self) {
        self.is_evicted.set(true);
        match self.deadlines.idle_timeout(&self.clock) {
            // What there is of a request or a handshake is not worth an answer, which would take its time.
            Some((timeout @ (Timeout::Handshake | Timeout::Head | Timeout::Linger), _)) => {
                self.cut(timeout);
            }
            _ => self.close(),
        }
    }

    /// Whether it is to end at once if nothing is being done.
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.get()
    }

    /// Has the task dropped, wherever it is, in a moment.
    pub(super) fn cut(&self, timeout: Timeout) {
        debug!(peer = %self.peer.address(), ?timeout, "connection took too long");
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Asks the connection to end after what it is doing.
    pub(super) fn close(&self) {
        if !self.is_closing.replace(true) {
            self.wake();
        }
    }

    fn wake(&self) {
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

    /// What the connection is cut for when it is looked at after so many seconds.
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
        assert_eq!(cut_after(&connection, 1), None, "it has moved in between");
        connection.track(Timeout::Write, true, false);
        assert_eq!(cut_after(&connection, 1), Some(Timeout::Write));
    }

    /// Nine thousand idle clients have one each. The allocator's next size is 192 bytes.
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
