//! A request's hold on one side.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{Color, Generation};

/// A request's hold on one side, from admission to the last byte of its response or tunnel.
///
/// Dropping it ends the hold; the last drop on a replaced side is that side's drained event.
// Not `Clone`: a request that counted twice would make `in_flight` a lie.
#[derive(Debug)]
pub struct Claim<P> {
    held: Arc<Held<P>>,
    generation: Generation,
    is_active: bool,
}

/// Which side of a service a request may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Visit {
    /// The one that is active in the generation that admits it.
    Active,
    /// The one of this color, whatever its role. For those who were found entitled to it.
    Wish(Color),
}

/// Tells one side from another while somebody is inside either of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SideId(usize);

/// What is counted: one reference for the tables, one for each claim.
#[derive(Debug)]
pub(super) struct Held<P> {
    pub(super) color: Color,
    pub(super) pool: Arc<P>,
    /// Dropped with the last reference, which whoever waits for the drain is told by.
    pub(super) open: watch::Sender<()>,
}

// === impl Claim ===

impl<P> Claim<P> {
    pub(super) fn new(held: Arc<Held<P>>, generation: Generation, is_active: bool) -> Self {
        Self { held, generation, is_active }
    }

    /// The pool that answers this request.
    pub fn pool(&self) -> &Arc<P> {
        &self.held.pool
    }

    /// Its name.
    pub fn color(&self) -> Color {
        self.held.color
    }

    /// Which side this is a claim on.
    pub fn side(&self) -> SideId {
        SideId::of(Arc::as_ptr(&self.held))
    }

    /// The generation that admitted this request.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether its color was the active one when it was admitted.
    pub fn is_active(&self) -> bool {
        self.is_active
    }
}

// === impl SideId ===

impl SideId {
    /// An address is not used again while there is a claim, a table or a drain that refers to it.
    pub(super) fn of<P>(held: *const Held<P>) -> Self {
        Self(held.addr())
    }

    #[cfg(test)]
    pub(super) fn at<T>(place: &T) -> Self {
        Self(std::ptr::from_ref(place).addr())
    }
}
