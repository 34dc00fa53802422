//! The open connections of one worker, looked over twice a second for those that stand still.

use std::{cell::RefCell, rc::Rc, time::Instant};

use slab::Slab;

use super::{
    clock::{Clock, Patience},
    connection::Connection,
};

/// The open connections of one worker.
pub(super) struct Roster<M> {
    connections: RefCell<Slab<Rc<Connection<M>>>>,
    clock: Rc<Clock>,
}

/// A connection's place; given back when this is dropped.
pub(super) struct Place<M> {
    roster: Rc<Roster<M>>,
    key: usize,
}

// === impl Roster ===

impl<M> Roster<M> {
    pub(super) fn new(patience: &Patience) -> Self {
        Self { connections: RefCell::default(), clock: Rc::new(Clock::new(patience)) }
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

impl<M> Drop for Place<M> {
    fn drop(&mut self) {
        // Taken out first, so that what its drop sets off finds the roster free.
        let left = self.roster.connections.borrow_mut().try_remove(self.key);
        drop(left);
    }
}
