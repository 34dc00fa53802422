//! What the streams of a connection and its driver share.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use crate::{downstream::connection::ClientConnection, http2::ByteMeter};

/// What the streams of a connection and its driver share.
pub(super) struct SessionActivity<M> {
    pub(super) connection: Rc<ClientConnection<M>>,
    pub(super) streams: Cell<usize>,
    pub(super) responses: Cell<usize>,
    /// Streams that the client reset before they were answered.
    pub(super) reset: Cell<usize>,
    /// Bytes of heads and content, in both directions.
    pub(super) meter: Rc<ByteMeter>,
    /// Wakes the driver when the last stream has ended.
    driver: RefCell<Waker>,
}

/// Counts a stream in its connection until dropped.
pub(super) struct StreamActivity<M>(pub(super) Rc<SessionActivity<M>>);

// === impl SessionActivity ===

impl<M> SessionActivity<M> {
    /// The activity of a connection without streams.
    pub(super) fn new(connection: &Rc<ClientConnection<M>>) -> Self {
        Self {
            connection: Rc::clone(connection),
            streams: Cell::new(0),
            responses: Cell::new(0),
            reset: Cell::new(0),
            meter: Rc::default(),
            driver: RefCell::new(Waker::noop().clone()),
        }
    }

    pub(super) fn is_attack(&self, resets_max: usize) -> bool {
        self.reset.get() > resets_max.saturating_add(self.responses.get())
    }

    pub(super) fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        if !driver.will_wake(waker) {
            *driver = waker.clone();
        }
    }
}

// === impl StreamActivity ===

impl<M> StreamActivity<M> {
    pub(super) fn of(activity: &Rc<SessionActivity<M>>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        Self(Rc::clone(activity))
    }

    /// Counts a stream that the client reset, and wakes the driver, which may end the connection for it.
    pub(super) fn record_reset(&self) {
        self.0.reset.set(self.0.reset.get() + 1);
        self.0.driver.borrow().wake_by_ref();
    }
}

impl<M> Drop for StreamActivity<M> {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        if self.0.streams.get() == 0 {
            self.0.driver.borrow().wake_by_ref();
        }
    }
}
