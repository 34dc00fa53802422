//! The open connections of one worker, looked over twice a second for those that stand still.
//!
//! A timer for each head, body and pause would cost more than the requests they watch. Here a
//! request only writes down when it last moved; the one who looks is the roster.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    Handler,
    connection::{Ask, Connection},
};

/// How long a client may take. Kept to within half a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Without a request.
    pub keep_alive: Duration,
    /// Without a byte of a body that we wait to read, or to be taken of one that we write.
    pub stall: Duration,
    /// Without a byte of an answer's body from the upstream, once it has begun.
    pub upstream: Duration,
}

/// The open connections of one worker.
pub(super) struct Roster<H: Handler> {
    connections: RefCell<Slab<Rc<Connection<H>>>>,
    /// The time of the last step: good enough for limits of seconds, and free to read.
    now: Cell<Instant>,
}

/// A connection's place; given back when this is dropped.
pub(super) struct Place<H: Handler> {
    roster: Rc<Roster<H>>,
    key: usize,
}

// === impl Roster ===

impl<H: Handler> Roster<H> {
    /// The time between two looks.
    pub(super) const STEP: Duration = Duration::from_millis(500);

    pub(super) fn new() -> Self {
        Self { connections: RefCell::default(), now: Cell::new(Instant::now()) }
    }

    pub(super) fn enter(self: &Rc<Self>, connection: &Rc<Connection<H>>) -> Place<H> {
        let key = self.connections.borrow_mut().insert(Rc::clone(connection));
        Place { roster: Rc::clone(self), key }
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Ends whoever has stood still for too long.
    pub(super) fn look(&self, now: Instant, patience: &Patience) {
        self.now.set(now);
        for (_, connection) in self.connections.borrow().iter() {
            if let Some(overdue) = connection.overdue(now, patience) {
                connection.ask(Ask::End(overdue));
            }
        }
    }

    /// Asks everybody to close after what they are doing.
    pub(super) fn close(&self) {
        for (_, connection) in self.connections.borrow().iter() {
            connection.ask(Ask::Close);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }
}

impl<H: Handler> Drop for Place<H> {
    fn drop(&mut self) {
        // Taken out first, so that what its drop sets off finds the roster free.
        let left = self.roster.connections.borrow_mut().try_remove(self.key);
        if let Some(connection) = left {
            // Others may still know the connection; what it held on to is over.
            connection.end();
        }
    }
}
