//! Which pool serves a request, and which requests are in flight after a flip.
//!
//! This room knows nothing of HTTP, sockets or clocks: `P` can be any pool and `R` any rules, so tests use `&str` for a
//! pool. One pointer holds everything that a request must see together, for all services; with two pointers a request
//! could see half of a flip.
//!
//! # Why the drain is exact
//!
//! Reading which pool is active and then incrementing its counter is wrong: a flip may come in between, read the
//! counter, find zero and report the pool drained. Here a request takes its [`Claim`] while it holds the table that it
//! read. A table holds one reference on each of its sides, and each claim holds another. So a side is freed when the
//! last table with it and the last claim on it are gone, in either order, and freeing it *is* the drained event. No new
//! claim is possible then, since claims are only taken from a table.

mod drain;
mod ending;
mod ledger;
mod pointer;
mod side;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use arc_swap::ArcSwap;

pub use self::{
    drain::{Drain, InFlight},
    ending::StreamEnding,
    ledger::{ClaimKind, ClaimOrigin, ClaimRecord, Ledger, LedgerShard, LedgerSummary},
    pointer::Pointer,
    side::{Claim, Side, SideId, Visit},
    table::{Service, ServiceEntry, Table},
};
use crate::model::{Color, Generation, ServiceName};

/// The pointer that every request reads once. Readers take no lock and never wait for a flip.
#[derive(Debug)]
pub struct Switch<R, P, T = (), C = ArcSwap<Table<R, P, T>>> {
    current: C,
    /// Retired sides that may have requests in flight.
    retired: Mutex<Retired<P>>,
    /// How often endings were started or stopped, so that workers notice it.
    endings: AtomicU64,
    table: PhantomData<fn() -> (R, T)>,
}

/// Retired sides that may have requests in flight, by service and color.
type Retired<P> = HashMap<(ServiceName, Color), Vec<Drain<P>>>;

/// Another change was applied first; nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("decided on generation {decided_on}, but {current} is current")]
pub struct Stale {
    /// The generation that the caller had seen.
    pub decided_on: Generation,
    /// The current generation.
    pub current: Generation,
}

// === impl Switch ===

impl<R, P, T: Clone, C: Pointer<Table<R, P, T>>> Switch<R, P, T, C> {
    /// A switch with this table.
    pub fn new(first: Table<R, P, T>) -> Self {
        Self {
            current: C::holding(Arc::new(first)),
            retired: Mutex::default(),
            endings: AtomicU64::new(0),
            table: PhantomData,
        }
    }

    /// Admits one request: `choose` selects its service and side by the rules and terms of the same generation.
    ///
    /// # Errors
    ///
    /// The error of `choose`; then there is no claim.
    pub fn claim<E>(
        &self,
        choose: impl FnOnce(&Table<R, P, T>) -> Result<(usize, Visit), E>,
    ) -> Result<Claim<P>, E> {
        self.current.with(|table| {
            let (service, visit) = choose(table)?;
            Ok(table.service_at(service).claim(visit, table.generation()))
        })
    }

    /// Admits one request to this pool, whatever its role, if the current table has it.
    pub fn claim_pool(&self, service: &ServiceName, pool: &Arc<P>) -> Option<Claim<P>> {
        self.current.with(|table| {
            let service = table.service(service)?;
            let has_pool = |it: &Color| Arc::ptr_eq(service.side(*it).pool(), pool);
            let color = Color::BOTH.into_iter().find(has_pool)?;
            Some(service.claim(Visit::Preview(color), table.generation()))
        })
    }

    /// Admits one request of this service to the color that `choose` returns, whatever its role.
    pub fn claim_color(
        &self,
        service: &ServiceName,
        choose: impl FnOnce(&Service<P, T>) -> Option<Color>,
    ) -> Option<Claim<P>> {
        self.current.with(|table| {
            let service = table.service(service)?;
            Some(service.claim(Visit::Preview(choose(service)?), table.generation()))
        })
    }

    /// Reads the current table. `look` should return quickly: while it runs, a side that is replaced meanwhile cannot
    /// report drained.
    pub fn read<A>(&self, look: impl FnOnce(&Table<R, P, T>) -> A) -> A {
        self.current.with(look)
    }

    /// The current table, as the base of a change. It keeps its sides from reporting drained, so pass it to
    /// [`Switch::replace`] or drop it soon.
    pub fn load(&self) -> Arc<Table<R, P, T>> {
        self.current.load()
    }

    /// Makes `next` the current table, if `seen` still is. Returns the retired sides.
    ///
    /// # Errors
    ///
    /// [`Stale`]; then nothing has changed.
    pub fn replace(
        &self,
        seen: Arc<Table<R, P, T>>,
        next: Table<R, P, T>,
    ) -> Result<Vec<Drain<P>>, Stale> {
        // [`Self::in_flight`] takes this lock before it reads the table, so it finds every side either in the table or
        // among the retired ones.
        let mut retired = self.retired();
        let drains = seen.retired_by(&next);
        if !self.current.replace(&seen, Arc::new(next)) {
            let current = self.current.with(Table::generation);
            return Err(Stale { decided_on: seen.generation(), current });
        }
        retired.retain(|_, drains| {
            drains.retain(Drain::is_held);
            !drains.is_empty()
        });
        for drain in &drains {
            let of = (drain.service().clone(), drain.color());
            retired.entry(of).or_default().push(drain.clone());
        }
        drop(retired);
        drop(seen);
        Ok(drains)
    }

    /// The requests in flight of a color, whichever table admitted them.
    pub fn in_flight(&self, service: &ServiceName, color: Color) -> InFlight {
        let retired = self.retired();
        let drains = retired.get(&(service.clone(), color));
        InFlight {
            current: self
                .current
                .with(|table| table.service(service).map_or(0, |it| it.side(color).in_flight())),
            retired: drains.into_iter().flatten().map(Drain::in_flight).sum(),
        }
    }

    /// The retired sides of a color that have requests in flight.
    pub fn drains(&self, service: &ServiceName, color: Color) -> Vec<Drain<P>> {
        let retired = self.retired();
        let drains = retired.get(&(service.clone(), color));
        drains.into_iter().flatten().filter(|it| it.is_held()).cloned().collect()
    }

    /// Has the streams end that are in flight on the sides of this color that a flip has replaced, or the end of pins; or keeps
    /// those that have not ended yet (`None`). Returns how many requests are in flight on these sides. They are woken
    /// by their workers, which compare [`Switch::endings`].
    pub fn end_streams(
        &self,
        service: &ServiceName,
        color: Color,
        ending: Option<&Arc<StreamEnding>>,
    ) -> usize {
        let drains = self.drains(service, color);
        let replaced = drains.iter().filter(|it| it.was_active() || it.had_pins());
        let in_flight = replaced.map(|it| it.end_streams(ending)).sum();
        // After the signals, so that a worker that sees the number sees them.
        self.endings.fetch_add(1, Release);
        in_flight
    }

    /// The same for one side.
    pub fn end_streams_on(&self, drain: &Drain<P>, ending: &Arc<StreamEnding>) -> usize {
        let in_flight = drain.end_streams(Some(ending));
        self.endings.fetch_add(1, Release);
        in_flight
    }

    /// How often the end of streams was started or stopped.
    pub fn endings(&self) -> u64 {
        self.endings.load(Acquire)
    }

    fn retired(&self) -> MutexGuard<'_, Retired<P>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
