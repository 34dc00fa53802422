//! Which pool answers a request, and who is still inside after a flip.
//!
//! Knows nothing of HTTP, sockets or time of day: `P` may be any pool and `R` any rules, so tests
//! use `&str` for a pool. One pointer holds everything that a request must see together, for all
//! services; with a second one a request could see half of a flip.
//!
//! # Why the drain is exact
//!
//! Counting oneself into a pool after having read which pool is active is wrong: between the two
//! steps a flip may come, look at the count, find zero and report the pool drained. Here a request
//! takes its [`Claim`] while it still holds the table that it read. A table holds one reference on
//! each of its sides and a claim holds another, so a side is freed when the last table that knew it
//! and the last claim on it are gone, whichever goes last, and freeing it *is* the drained event.
//! Nobody can take a new claim then, since claims are only taken from a table.

mod drain;
mod ledger;
mod pointer;
mod side;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

pub use self::{
    drain::{Drain, InFlight},
    ledger::{ClaimKind, ClaimRecord, Ledger, LedgerShard, LedgerSummary},
    pointer::Pointer,
    side::{Claim, Side, SideId, Visit},
    table::{Service, ServiceEntry, Table},
};
use crate::model::{Color, Generation, ServiceName};

/// The pointer that every request reads once. Readers never lock and never wait for a flip.
#[derive(Debug)]
pub struct Switch<R, P, C = ArcSwap<Table<R, P>>> {
    current: C,
    /// Sides that a change has retired and that somebody may still be inside of.
    retired: Mutex<Retired<P>>,
    rules: std::marker::PhantomData<fn() -> R>,
}

/// Retired sides that somebody may still be inside of, by service and color.
type Retired<P> = HashMap<(ServiceName, Color), Vec<Drain<P>>>;

/// Someone else's change came first; nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("decided on generation {decided_on}, but {current} is current")]
pub struct Stale {
    /// The generation that the caller had seen.
    pub decided_on: Generation,
    /// The generation that was found.
    pub current: Generation,
}

// === impl Switch ===

impl<R, P, C: Pointer<Table<R, P>>> Switch<R, P, C> {
    /// A switch that shows `first` until it is replaced.
    pub fn new(first: Table<R, P>) -> Self {
        Self {
            current: C::holding(Arc::new(first)),
            retired: Mutex::default(),
            rules: std::marker::PhantomData,
        }
    }

    /// Admits one request: `choose` says which service it is for and which of its sides it may
    /// have, from the rules of the same generation as the side.
    ///
    /// # Errors
    ///
    /// What `choose` refuses with; nobody is inside then.
    pub fn claim<E>(
        &self,
        choose: impl FnOnce(&R) -> Result<(usize, Visit), E>,
    ) -> Result<Claim<P>, E> {
        self.current.with(|table| {
            let (service, visit) = choose(table.rules())?;
            Ok(table.service_at(service).claim(visit, table.generation()))
        })
    }

    /// A short look at the current table. Meant to be over at once: while it lasts, a side that is
    /// replaced meanwhile cannot report drained.
    pub fn read<T>(&self, look: impl FnOnce(&Table<R, P>) -> T) -> T {
        self.current.with(look)
    }

    /// The current table, to decide a change on. It keeps its sides from reporting drained, so it
    /// goes into [`Switch::replace`] or is dropped.
    pub fn load(&self) -> Arc<Table<R, P>> {
        self.current.load()
    }

    /// Makes `next` what every later request sees, if `seen` is still current. Returns the sides
    /// that this retired, each with whoever is still inside.
    ///
    /// # Errors
    ///
    /// [`Stale`], and then nothing has changed.
    pub fn replace(
        &self,
        seen: Arc<Table<R, P>>,
        next: Table<R, P>,
    ) -> Result<Vec<Drain<P>>, Stale> {
        // Whoever counts takes this lock before looking at the table, and so sees every side either
        // in the table or among the retired ones.
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

    /// How many are inside a color of a service, wherever they were admitted.
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

    /// The retired sides of a color of a service that somebody is still inside of.
    pub fn drains(&self, service: &ServiceName, color: Color) -> Vec<Drain<P>> {
        let retired = self.retired();
        let drains = retired.get(&(service.clone(), color));
        drains.into_iter().flatten().filter(|it| it.is_held()).cloned().collect()
    }

    fn retired(&self) -> MutexGuard<'_, Retired<P>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
