//! The kinds of requests in flight on a side, and when they began.
//!
//! The claims alone decide whether a side is drained; the ledger says which requests hold it. Each worker writes its
//! own shard, so its lock is uncontended for requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use super::side::SideId;

/// The claims of all workers. `T` is a point in time, given by the caller.
#[derive(Debug)]
pub struct Ledger<T> {
    shards: Box<[Arc<LedgerShard<T>>]>,
}

/// The claims of one worker.
#[derive(Debug)]
pub struct LedgerShard<T>(Mutex<Slab<ShardEntry<T>>>);

/// An entry of a shard; dropping this removes it.
#[derive(Debug)]
pub struct ClaimRecord<T> {
    shard: Arc<LedgerShard<T>>,
    key: usize,
}

/// How a claim is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClaimKind {
    /// A request with its response.
    Request,
    /// An upgraded connection.
    Tunnel,
}

#[derive(Debug)]
struct ShardEntry<T> {
    side: SideId,
    kind: ClaimKind,
    since: T,
}

/// A summary of the claims on some sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerSummary<T> {
    /// How many are requests.
    pub requests: usize,
    /// How many are tunnels.
    pub tunnels: usize,
    /// When the oldest began.
    pub oldest: Option<T>,
}

// === impl Ledger ===

impl<T: Copy + Ord> Ledger<T> {
    /// A ledger for this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let shards = (0..workers).map(|_| Arc::new(LedgerShard(Mutex::new(Slab::new())))).collect();
        Self { shards }
    }

    /// The shard of a worker, counted from 0.
    ///
    /// # Panics
    ///
    /// If there are fewer workers.
    #[must_use]
    pub fn shard(&self, worker: usize) -> Arc<LedgerShard<T>> {
        Arc::clone(&self.shards[worker])
    }

    /// Summarizes the claims on these sides.
    #[must_use]
    pub fn summary(&self, sides: &[SideId]) -> LedgerSummary<T> {
        let mut summary: LedgerSummary<T> = LedgerSummary { requests: 0, tunnels: 0, oldest: None };
        for shard in &self.shards {
            for (_, entry) in shard.entries().iter().filter(|(_, it)| sides.contains(&it.side)) {
                match entry.kind {
                    ClaimKind::Request => summary.requests += 1,
                    ClaimKind::Tunnel => summary.tunnels += 1,
                }
                summary.oldest = summary.oldest.into_iter().chain([entry.since]).min();
            }
        }
        summary
    }
}

// === impl LedgerShard ===

impl<T> LedgerShard<T> {
    /// Records a claim on `side`.
    pub fn record(self: &Arc<Self>, side: SideId, kind: ClaimKind, since: T) -> ClaimRecord<T> {
        let key = self.entries().insert(ShardEntry { side, kind, since });
        ClaimRecord { shard: Arc::clone(self), key }
    }

    fn entries(&self) -> MutexGuard<'_, Slab<ShardEntry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ClaimRecord ===

impl<T> ClaimRecord<T> {
    /// Changes how the claim is used.
    pub fn set_kind(&self, kind: ClaimKind) {
        if let Some(entry) = self.shard.entries().get_mut(self.key) {
            entry.kind = kind;
        }
    }
}

impl<T> Drop for ClaimRecord<T> {
    fn drop(&mut self) {
        self.shard.entries().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Color, Generation};

    fn side(service: u32) -> SideId {
        SideId { since: Generation(1), service, color: Color::Blue }
    }

    #[test]
    fn the_summary_counts_by_side_and_kind_with_the_oldest_start() {
        let ledger = Ledger::new(2);
        let (here, there) = (1, 2);
        let early = ledger.shard(0).record(side(here), ClaimKind::Request, 10);
        let late = ledger.shard(1).record(side(here), ClaimKind::Tunnel, 20);
        let _elsewhere = ledger.shard(1).record(side(there), ClaimKind::Request, 5);
        let inside = || ledger.summary(&[side(here)]);
        assert_eq!(inside(), LedgerSummary { requests: 1, tunnels: 1, oldest: Some(10) });
        early.set_kind(ClaimKind::Tunnel);
        assert_eq!(inside(), LedgerSummary { requests: 0, tunnels: 2, oldest: Some(10) });
        drop(early);
        assert_eq!(inside(), LedgerSummary { requests: 0, tunnels: 1, oldest: Some(20) });
        drop(late);
        assert_eq!(inside(), LedgerSummary { requests: 0, tunnels: 0, oldest: None });
        assert_eq!(ledger.summary(&[side(there)]).oldest, Some(5));
    }
}
