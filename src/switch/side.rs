//! Sides and claims: one pool in one role between two changes, and a request's use of it.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::ending::{EndingSignal, StreamEnding};
use crate::model::{Color, Generation};

/// One pool for as long as neither the pool nor the active color of its service changes. Tables share it.
// Not `Clone`: it is the one reference that all tables hold together.
#[derive(Debug)]
pub struct Side<P> {
    count: Arc<ClaimCount<P>>,
}

/// A request's use of a side, from admission to the last byte of its response or tunnel.
///
/// Dropping the last claim on a replaced side is the drained event of that side.
// Not `Clone`: a request would be counted twice.
#[derive(Debug)]
pub struct Claim<P> {
    count: Arc<ClaimCount<P>>,
    generation: Generation,
    is_active: bool,
}

/// Which side of a service a request gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Visit {
    /// The active side of the generation that admits the request.
    Active,
    /// The side of this color, whatever its role. Only for clients that are allowed to use it.
    Preview(Color),
    /// The side of this color, which was active when the request's transaction began.
    Pinned(Color),
    /// The side of this color, the candidate of a gradual promotion, which the client belongs to.
    Shared(Color),
}

/// The identity of a side: its service, its color, and when it began. Unique within the process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SideId {
    /// The first generation with this side.
    pub since: Generation,
    /// The index of the service in the table of that generation.
    pub service: u32,
    /// The color of the side.
    pub color: Color,
    /// Counts the sides of this color that began within the same generation.
    pub part: u16,
}

/// Its reference count is the number of claims, and one for the tables.
#[derive(Debug)]
struct ClaimCount<P> {
    id: SideId,
    pool: Arc<P>,
    ending: EndingSignal,
    /// Dropped with the last reference, which ends every wait for the drain.
    drain_signal: watch::Sender<()>,
}

/// Watches the requests in flight of a side without holding it.
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
        Self {
            count: Arc::new(ClaimCount { id, pool, ending: EndingSignal::default(), drain_signal }),
        }
    }

    /// The pool of this side.
    pub fn pool(&self) -> &Arc<P> {
        &self.count.pool
    }

    /// The identity of this side.
    pub fn id(&self) -> SideId {
        self.count.id
    }

    /// The number of claims.
    pub fn in_flight(&self) -> usize {
        // One reference is that of the tables.
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
    /// The number of claims on its side, including this one.
    pub fn in_flight(&self) -> usize {
        // One reference is that of the tables, as long as the side is in one.
        Arc::strong_count(&self.count) - 1
    }

    /// The pool that serves the request.
    pub fn pool(&self) -> &Arc<P> {
        &self.count.pool
    }

    /// The color of that pool.
    pub fn color(&self) -> Color {
        self.count.id.color
    }

    /// The side that this is a claim on.
    pub fn side(&self) -> SideId {
        self.count.id
    }

    /// The generation that admitted the request.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether the color was active when the request was admitted.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Changes when the streams of its side have to end, and when they do not any more. 0 until then.
    pub fn ending_version(&self) -> u32 {
        self.count.ending.version()
    }

    /// The ending in progress on its side, with its version.
    pub fn ending(&self) -> (u32, Option<Arc<StreamEnding>>) {
        self.count.ending.current()
    }
}

// === impl SideWatch ===

impl<P> SideWatch<P> {
    pub(super) fn id(&self) -> SideId {
        self.id
    }

    /// Requests in flight. While a request is being admitted from the old table, this may be one too many, never one
    /// too few.
    pub(super) fn in_flight(&self) -> usize {
        let references = self.count.strong_count();
        references.saturating_sub(usize::from(self.side.strong_count() > 0))
    }

    /// Starts the end of its streams, or stops it. Returns the number of requests in flight.
    pub(super) fn end_streams(&self, ending: Option<&Arc<StreamEnding>>) -> usize {
        // For a moment this is one more reference. The drain may end when it is dropped, and not a moment too early.
        let Some(count) = self.count.upgrade() else { return 0 };
        count.ending.set(ending.cloned());
        drop(count);
        self.in_flight()
    }

    /// Whether requests are in flight, or can still be admitted from the old table.
    pub(super) fn is_held(&self) -> bool {
        self.count.strong_count() > 0
    }

    /// Waits until no request is in flight and none can be admitted any more. Cancel-safe.
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
