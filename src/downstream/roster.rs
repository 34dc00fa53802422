//! The open connections of one worker, looked over twice a second for those that stand still.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use slab::Slab;

use super::{
    clock::{Clock, Patience},
    connection::Connection,
};

/// The open connections of one worker.
pub(super) struct Roster<M> {
    connections: RefCell<Slab<Rc<Connection<M>>>>,
    clock: Rc<Clock>,
    /// Connections that keep what they needed for their last request.
    warm: Rc<Cell<usize>>,
}

/// A connection's place; given back when this is dropped.
pub(super) struct Place<M> {
    roster: Rc<Roster<M>>,
    key: usize,
}

/// Leave to keep what was needed for the last request; given back when this is dropped.
pub(super) struct Warm(Rc<Cell<usize>>);

/// Connections of a worker that may keep what they needed for their last request: those that ask again
/// at once are few, and all others would hold memory for nothing.
const WARM_MAX: usize = 256;

// === impl Roster ===

impl<M> Roster<M> {
    pub(super) fn new(patience: &Patience) -> Self {
        let clock = Rc::new(Clock::new(patience));
        Self { connections: RefCell::default(), clock, warm: Rc::default() }
    }

    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    pub(super) fn enter(self: &Rc<Self>, connection: &Rc<Connection<M>>) -> Place<M> {
        let key = self.connections.borrow_mut().insert(Rc::clone(connection));
        Place { roster: Rc::clone(self), key }
    }

    /// Calls on whoever has waited for too long. Nobody is gone when this returns: a task that is cut
    /// is dropped in its own turn.
    pub(super) fn look(&self, now: Instant) {
        self.clock.set(now);
        let tick = self.clock.tick();
        for (_, connection) in self.connections.borrow().iter() {
            if let Some(wait) = connection.look(tick) {
                connection.cut(wait);
            }
        }
    }

    /// Asks everybody to close after what they are doing.
    pub(super) fn close(&self) {
        for (_, connection) in self.connections.borrow().iter() {
            connection.close();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }
}

// === impl Place ===

impl<M> Place<M> {
    /// Leave to keep what was needed for the last request, unless enough others have it.
    pub(super) fn stay_warm(&self) -> Option<Warm> {
        let warm = &self.roster.warm;
        (warm.get() < WARM_MAX).then(|| {
            warm.set(warm.get() + 1);
            Warm(Rc::clone(warm))
        })
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<M> Drop for Place<M> {
    fn drop(&mut self) {
        // Taken out first, so that what its drop sets off finds the roster free.
        let left = self.roster.connections.borrow_mut().try_remove(self.key);
        drop(left);
    }
}
