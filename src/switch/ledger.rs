//! The kinds of requests in flight on a side, and when they began.
//!
//! The claims alone decide whether a side is drained; the ledger says which requests hold it. Each worker writes its
//! own shard, so its lock is uncontended for requests.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
    /// A request with a response that has begun, if that was noted.
    Responding,
    /// A request that was reported as overdue.
    Overdue,
    /// An upgraded connection.
    Tunnel,
}

/// Why a claim is on its side, if not because of the role that the side has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClaimOrigin {
    /// Its role: the request is for the active color, or is a preview.
    #[default]
    Role,
    /// The request was admitted to another side first, which could not be connected.
    Rescue,
    /// Its transaction is pinned to the side.
    Pin,
    /// Its client belongs to the share of the side, which is promoted gradually.
    Share,
    /// The other color does not have the asset.
    Asset,
}

#[derive(Debug)]
struct ShardEntry<T> {
    side: SideId,
    kind: ClaimKind,
    since: T,
    client: Option<IpAddr>,
    origin: ClaimOrigin,
}

/// A summary of the claims on some sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LedgerSummary<T> {
    /// How many are requests.
    pub requests: usize,
    /// How many are tunnels.
    pub tunnels: usize,
    /// How many of all were admitted to another side first.
    pub rescued: usize,
    /// How many of all belong to transactions that are pinned to the side.
    pub pinned: usize,
    /// How many of all are of clients that belong to its share.
    pub shared: usize,
    /// How many of all ask for an asset that the other color does not have.
    pub assets: usize,
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
        let mut summary = LedgerSummary::default();
        for shard in &self.shards {
            for (_, entry) in shard.entries().iter().filter(|(_, it)| sides.contains(&it.side)) {
                match entry.kind {
                    ClaimKind::Request | ClaimKind::Responding | ClaimKind::Overdue => {
                        summary.requests += 1;
                    }
                    ClaimKind::Tunnel => summary.tunnels += 1,
                }
                match entry.origin {
                    ClaimOrigin::Role => {}
                    ClaimOrigin::Rescue => summary.rescued += 1,
                    ClaimOrigin::Pin => summary.pinned += 1,
                    ClaimOrigin::Share => summary.shared += 1,
                    ClaimOrigin::Asset => summary.assets += 1,
                }
                summary.oldest = summary.oldest.into_iter().chain([entry.since]).min();
            }
        }
        summary
    }

    /// The clients of the requests on `side` without a response that began from `from` on and before `before`. Each
    /// request is reported once.
    #[must_use]
    pub fn take_overdue(&self, side: SideId, from: T, before: T) -> Vec<Option<IpAddr>> {
        let mut clients = Vec::new();
        for shard in &self.shards {
            for (_, entry) in shard.entries().iter_mut().filter(|(_, it)| it.side == side) {
                let is_overdue = entry.since >= from && entry.since < before;
                if is_overdue && entry.kind == ClaimKind::Request {
                    entry.kind = ClaimKind::Overdue;
                    clients.push(entry.client);
                }
            }
        }
        clients
    }
}

// === impl LedgerSummary ===

impl<T> Default for LedgerSummary<T> {
    fn default() -> Self {
        Self { requests: 0, tunnels: 0, rescued: 0, pinned: 0, shared: 0, assets: 0, oldest: None }
    }
}

// === impl LedgerShard ===

impl<T> LedgerShard<T> {
    /// Records a request on `side`, with the address of its client if that is known.
    // Inlined: every request calls it, and a second, rare caller would make it a call of 33 instructions more.
    #[inline(always)]
    pub fn record(
        self: &Arc<Self>,
        side: SideId,
        since: T,
        client: Option<IpAddr>,
    ) -> ClaimRecord<T> {
        let kind = ClaimKind::Request;
        let origin = ClaimOrigin::Role;
        let entry = ShardEntry { side, kind, since, client, origin };
        let key = self.entries().insert(entry);
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

    /// Notes why the claim is on its side.
    pub fn set_origin(&self, origin: ClaimOrigin) {
        if let Some(entry) = self.shard.entries().get_mut(self.key) {
            entry.origin = origin;
        }
    }

    /// Why the claim is on its side.
    #[must_use]
    pub fn origin(&self) -> ClaimOrigin {
        self.shard.entries().get(self.key).map(|it| it.origin).unwrap_or_default()
    }

    /// Notes that the response of a request has begun, and returns the address of its client, if it is known. A request
    /// that is overdue stays overdue.
    pub fn note_response(&self) -> Option<IpAddr> {
        let mut entries = self.shard.entries();
        let entry = entries.get_mut(self.key)?;
        if entry.kind == ClaimKind::Request {
            entry.kind = ClaimKind::Responding;
        }
        entry.client
    }

    /// The address of the client, if it is known, and whether the request was reported as overdue.
    #[must_use]
    pub fn client(&self) -> (Option<IpAddr>, bool) {
        let entries = self.shard.entries();
        entries.get(self.key).map_or((None, false), |it| (it.client, it.kind == ClaimKind::Overdue))
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
        SideId { since: Generation(1), service, color: Color::Blue, part: 0 }
    }

    #[test]
    fn the_summary_counts_by_side_and_kind_with_the_oldest_start() {
        let ledger = Ledger::new(2);
        let (here, there) = (1, 2);
        let early = ledger.shard(0).record(side(here), 10, None);
        let late = ledger.shard(1).record(side(here), 20, None);
        late.set_kind(ClaimKind::Tunnel);
        let _elsewhere = ledger.shard(1).record(side(there), 5, None);
        let inside = || ledger.summary(&[side(here)]);
        assert_eq!(
            inside(),
            LedgerSummary { requests: 1, tunnels: 1, oldest: Some(10), ..LedgerSummary::default() }
        );
        early.set_kind(ClaimKind::Tunnel);
        assert_eq!(
            inside(),
            LedgerSummary { requests: 0, tunnels: 2, oldest: Some(10), ..LedgerSummary::default() }
        );
        drop(early);
        assert_eq!(
            inside(),
            LedgerSummary { requests: 0, tunnels: 1, oldest: Some(20), ..LedgerSummary::default() }
        );
        drop(late);
        assert_eq!(inside(), LedgerSummary::default());
        assert_eq!(ledger.summary(&[side(there)]).oldest, Some(5));
    }

    #[test]
    fn a_request_without_a_response_is_overdue_once() {
        let ledger = Ledger::new(2);
        let client = |it: u8| Some(IpAddr::from([10, 0, 0, it]));
        let hangs = ledger.shard(0).record(side(1), 10, client(1));
        let answered = ledger.shard(1).record(side(1), 10, client(2));
        let tunnel = ledger.shard(1).record(side(1), 10, client(3));
        let _elsewhere = ledger.shard(0).record(side(2), 10, client(4));
        let _before = ledger.shard(0).record(side(1), 9, client(5));
        let _young = ledger.shard(0).record(side(1), 20, client(6));
        answered.note_response();
        tunnel.set_kind(ClaimKind::Tunnel);
        assert_eq!(ledger.take_overdue(side(1), 10, 20), [client(1)]);
        assert_eq!(ledger.take_overdue(side(1), 10, 20), []);
        hangs.note_response();
        assert_eq!((hangs.client(), answered.client()), ((client(1), true), (client(2), false)));
        assert_eq!(ledger.summary(&[side(1)]).requests, 4);
        hangs.set_origin(ClaimOrigin::Rescue);
        answered.set_origin(ClaimOrigin::Pin);
        assert_eq!((answered.origin(), hangs.origin()), (ClaimOrigin::Pin, ClaimOrigin::Rescue));
        let summary = ledger.summary(&[side(1)]);
        assert_eq!((summary.rescued, summary.pinned), (1, 1));
    }
}
