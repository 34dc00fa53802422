//! One endpoint of a pool: how it is doing and how many requests it has.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use crate::model::{Endpoint, Health};

/// An endpoint that requests are sent to. Survives a change of its pool's other endpoints.
#[derive(Debug)]
pub struct Member {
    endpoint: Endpoint,
    in_flight: AtomicUsize,
    health: AtomicU8,
}

/// A request's place at a member; counted for as long as it lives.
// Not `Clone`: the same request would be counted twice.
#[derive(Debug)]
pub struct Seat(Arc<Member>);

// === impl Member ===

impl Member {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let health = AtomicU8::new(encode(Health::Unknown));
        Self { endpoint, in_flight: AtomicUsize::new(0), health }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Requests that are with it now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// How the last attempt to connect went.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// Notes how an attempt to connect went, and returns what was known before.
    pub fn set_health(&self, health: Health) -> Health {
        let before = self.health();
        if before != health {
            self.health.store(encode(health), Relaxed);
        }
        before
    }

    /// Counts a request in.
    #[must_use]
    pub fn sit(self: &Arc<Self>) -> Seat {
        self.in_flight.fetch_add(1, Relaxed);
        Seat(Arc::clone(self))
    }
}

fn encode(health: Health) -> u8 {
    match health {
        Health::Unknown => 0,
        Health::Up => 1,
        Health::Down => 2,
    }
}

// === impl Seat ===

impl Seat {
    /// Where this seat is.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
