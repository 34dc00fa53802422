//! One pool in one role, from one change to the next, and a request's hold on it.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::model::{Color, Generation};

/// One pool, for as long as neither it nor the service's active color is changed: its requests were
/// admitted in that time. Tables share it; its only way to its holders' count is its own.
// Not `Clone`: it stands for the one reference that all tables together have.
#[derive(Debug)]
pub struct Side<P> {
    count: Arc<ClaimCount<P>>,
}

/// A request's hold on one side, from admission to the last byte of its response or tunnel.
///
/// Dropping it ends the hold; the last drop on a replaced side is that side's drained event.
// Not `Clone`: a request that counted twice would make `in_flight` a lie.
#[derive(Debug)]
pub struct Claim<P> {
    count: Arc<ClaimCount<P>>,
    generation: Generation,
    is_active: bool,
}

/// Which side of a service a request may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Visit {
    /// The one that is active in the generation that admits it.
    Active,
    /// The one of this color, whatever its role. For those who were found entitled to it.
    Preview(Color),
}

/// The identity of a side: which service and color, and the generation that it began with. No two sides of
/// a process have the same.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SideId {
    /// The first generation that had this side.
    pub since: Generation,
    /// The service, by its place in the table of that generation.
    pub service: u32,
    /// The color of the side.
    pub color: Color,
}

/// What is counted: one reference for the tables, one for each claim.
#[derive(Debug)]
struct ClaimCount<P> {
    id: SideId,
    pool: Arc<P>,
    /// Dropped with the last reference, which ends every wait for the drain.
    drain_signal: watch::Sender<()>,
}

/// Watches who is inside a side, without being so.
#[derive(Debug)]
pub(super) struct SideWatch<P> {
    id: SideId,
    count: Weak<ClaimCount<P>>,
    side: Weak<Side<P>>,
    drain_signal: watch::Receiver<()>,
}

// === impl Side ===

impl<P> Side<P> {
    pub(super) fn new(id: SideId, pool: Arc<P>) -> Self {
        let (drain_signal, _) = watch::channel(());
        Self { count: Arc::new(ClaimCount { id, pool, drain_signal }) }
    }

    /// The pool behind this side.
    pub fn pool(&self) -> &Arc<P> {
        &self.count.pool
    }

    /// Which side this is.
    pub fn id(&self) -> SideId {
        self.count.id
    }

    /// How many claims there are on it.
    pub fn in_flight(&self) -> usize {
        // One reference is the tables'.
        Arc::strong_count(&self.count) - 1
    }

    pub(super) fn claim(&self, generation: Generation, is_active: bool) -> Claim<P> {
        Claim { count: Arc::clone(&self.count), generation, is_active }
    }

    pub(super) fn watch(self: &Arc<Self>) -> SideWatch<P> {
        SideWatch {
            id: self.id(),
            count: Arc::downgrade(&self.count),
            side: Arc::downgrade(self),
            drain_signal: self.count.drain_signal.subscribe(),
        }
    }
}

// === impl Claim ===

impl<P> Claim<P> {
    /// How many claims there are on its side, with this one.
    pub fn in_flight(&self) -> usize {
        // One reference is the tables', for as long as the side is in one.
        Arc::strong_count(&self.count) - 1
    }

    /// The pool that answers this request.
    pub fn pool(&self) -> &Arc<P> {
        &self.count.pool
    }

    /// Its name.
    pub fn color(&self) -> Color {
        self.count.id.color
    }

    /// Which side this is a claim on.
    pub fn side(&self) -> SideId {
        self.count.id
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

// === impl SideWatch ===

impl<P> SideWatch<P> {
    pub(super) fn id(&self) -> SideId {
        self.id
    }

    /// Requests still inside. While a request is just being admitted from the old table it may say
    /// one too many, never one too few.
    pub(super) fn in_flight(&self) -> usize {
        let references = self.count.strong_count();
        references.saturating_sub(usize::from(self.side.strong_count() > 0))
    }

    /// Whether requests are in flight, or could still be admitted from the old table.
    pub(super) fn is_held(&self) -> bool {
        self.count.strong_count() > 0
    }

    /// Waits until no request is in flight and none can be admitted any more. Nothing is lost when the future is
    /// dropped.
    pub(super) async fn wait(&mut self) {
        // Nothing is ever sent; the channel only closes.
        while self.drain_signal.changed().await.is_ok() {}
    }
}

impl<P> Clone for SideWatch<P> {
    fn clone(&self) -> Self {
        let Self { id, count, side, drain_signal } = self;
        Self {
            id: *id,
            count: count.clone(),
            side: side.clone(),
            drain_signal: drain_signal.clone(),
        }
    }
}
