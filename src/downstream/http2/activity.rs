//! What the streams of a connection and its driver know of each other.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use crate::{downstream::connection::ClientConnection, http2::ByteMeter};

/// What a connection's streams and its driver know of each other.
pub(super) struct SessionActivity<M> {
    pub(super) connection: Rc<ClientConnection<M>>,
    pub(super) streams: Cell<usize>,
    pub(super) answered: Cell<usize>,
    /// Those that the client has reset before they were answered.
    pub(super) reset: Cell<usize>,
    /// Bytes of heads and content, both ways.
    pub(super) meter: Rc<ByteMeter>,
    /// The driver, to be woken when a stream has ended.
    driver: RefCell<Waker>,
}

/// A stream's place in the course of its connection.
pub(super) struct StreamActivity<M>(pub(super) Rc<SessionActivity<M>>);

// === impl SessionActivity ===

impl<M> SessionActivity<M> {
    /// The course of a connection without streams.
    pub(super) fn new(connection: &Rc<ClientConnection<M>>) -> Self {
        Self {
            connection: Rc::clone(connection),
            streams: Cell::new(0),
            answered: Cell::new(0),
            reset: Cell::new(0),
            meter: Rc::default(),
            driver: RefCell::new(Waker::noop().clone()),
        }
    }

    pub(super) fn is_attack(&self, resets_max: usize) -> bool {
        self.reset.get() > resets_max.saturating_add(self.answered.get())
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

    /// Counts a reset of the client's, which may be one too many.
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
