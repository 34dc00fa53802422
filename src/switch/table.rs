//! The table: what every request of one generation sees.

use std::{collections::HashMap, sync::Arc};

use super::{
    drain::Drain,
    side::{Claim, Side, SideId, Visit},
};
use crate::model::{Color, Generation, ServiceName};

/// What requests of one generation see together: rules, services and active colors. Never changed, only replaced.
/// Tables share what a change leaves as it was: a change of one of ten thousand services copies a few dozen of them.
///
/// `P` is a pool, `R` are the rules of all services, and `T` are the terms of one.
#[derive(Debug)]
pub struct Table<R, P, T = ()> {
    generation: Generation,
    rules: R,
    /// The services in the order of the entries that the table was made of, which the rules refer to by index.
    parts: Vec<TablePart<P, T>>,
    /// The index of each service.
    indexes: Arc<HashMap<ServiceName, usize>>,
}

type TablePart<P, T> = Arc<Vec<Service<P, T>>>;

/// A service in one generation.
#[derive(Debug)]
pub struct Service<P, T = ()> {
    name: ServiceName,
    active: Color,
    blue: Arc<Side<P>>,
    green: Arc<Side<P>>,
    terms: T,
    /// The color that was renewed when this was made.
    renewed: Option<Color>,
}

/// A service for the next table.
#[derive(Debug)]
pub struct ServiceEntry<P, T = ()> {
    /// Its name.
    pub name: ServiceName,
    /// The active color.
    pub active: Color,
    /// The blue pool.
    pub blue: Arc<P>,
    /// The green pool.
    pub green: Arc<P>,
    /// What else decides which side a request gets.
    pub terms: T,
    /// A color with a side that is replaced even if its pool and its role are the same, so that what was admitted before can be
    /// waited for.
    pub renewed: Option<Color>,
}

/// Services per part.
const PART: usize = 64;

// === impl Table ===

impl<R, P, T: Clone> Table<R, P, T> {
    /// The first table of a process, at the generation that an earlier process had reached.
    pub fn first(generation: Generation, rules: R, entries: Vec<ServiceEntry<P, T>>) -> Self {
        Self::build(generation, rules, entries, |_| None)
    }

    /// The table of a later generation with these services. A service keeps its two sides if its active color and both
    /// of its pools are the same; otherwise each side with another pool or role is new.
    pub fn next(&self, generation: Generation, rules: R, entries: Vec<ServiceEntry<P, T>>) -> Self {
        Self::build(generation, rules, entries, |name| self.service(name))
    }

    fn build<'a>(
        generation: Generation,
        rules: R,
        entries: Vec<ServiceEntry<P, T>>,
        old: impl Fn(&ServiceName) -> Option<&'a Service<P, T>>,
    ) -> Self
    where
        P: 'a,
        T: 'a,
    {
        let names = entries.iter().enumerate().map(|(index, it)| (it.name.clone(), index));
        let indexes = Arc::new(names.collect());
        let mut parts = Vec::with_capacity(entries.len().div_ceil(PART));
        let mut part = Vec::with_capacity(entries.len().min(PART));
        for (index, entry) in entries.into_iter().enumerate() {
            let old = old(&entry.name);
            part.push(Service::new(generation, index, entry, old));
            if part.len() == PART {
                parts.push(Arc::new(std::mem::replace(&mut part, Vec::with_capacity(PART))));
            }
        }
        if !part.is_empty() {
            parts.push(Arc::new(part));
        }
        Self { generation, rules, parts, indexes }
    }

    /// The table of a later generation in which only these services change. Entries of unknown services are ignored.
    pub fn with_changes(
        &self,
        generation: Generation,
        rules: R,
        changes: Vec<ServiceEntry<P, T>>,
    ) -> Self {
        let mut parts = self.parts.clone();
        for entry in changes {
            let Some(&index) = self.indexes.get(&entry.name) else { continue };
            let part = &mut parts[index / PART];
            let mut services = Vec::clone(part);
            let service = &mut services[index % PART];
            *service = Service::new(generation, index, entry, Some(service));
            *part = Arc::new(services);
        }
        Self { generation, rules, parts, indexes: Arc::clone(&self.indexes) }
    }

    /// The services as entries for the next table.
    pub fn entries(&self) -> Vec<ServiceEntry<P, T>> {
        self.services().map(Service::entry).collect()
    }

    /// The generation of this table.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The rules of this generation.
    pub fn rules(&self) -> &R {
        &self.rules
    }

    /// All services, in the order of the entries.
    pub fn services(&self) -> impl Iterator<Item = &Service<P, T>> {
        self.parts.iter().flat_map(|it| it.iter())
    }

    /// The service at an index.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn service_at(&self, index: usize) -> &Service<P, T> {
        &self.parts[index / PART][index % PART]
    }

    /// The service with this name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service<P, T>> {
        self.indexes.get(name).map(|it| self.service_at(*it))
    }

    /// The sides of this table that `next` does not have.
    pub(super) fn retired_by(&self, next: &Self) -> Vec<Drain<P>> {
        let mut drains = Vec::new();
        let have_same_services = Arc::ptr_eq(&self.indexes, &next.indexes);
        for (at, part) in self.parts.iter().enumerate() {
            if have_same_services && next.parts.get(at).is_some_and(|it| Arc::ptr_eq(it, part)) {
                continue;
            }
            for old in part.iter() {
                let new = next.service(&old.name);
                for color in Color::BOTH {
                    let side = old.side(color);
                    if !new.is_some_and(|it| Arc::ptr_eq(it.side(color), side)) {
                        let had_pins = new.is_some_and(|it| it.renewed == Some(color));
                        let (name, use_before) =
                            (old.name.clone(), (old.active == color, had_pins));
                        drains.push(Drain::new(name, side.watch(), use_before, next.generation));
                    }
                }
            }
        }
        drains
    }
}

// === impl Service ===

impl<P, T: Clone> Service<P, T> {
    fn new(
        generation: Generation,
        index: usize,
        entry: ServiceEntry<P, T>,
        old: Option<&Self>,
    ) -> Self {
        let ServiceEntry { name, active, blue, green, terms, renewed } = entry;
        let side = |color, pool: Arc<P>| {
            let old = old.map(|it| (it.active, it.side(color)));
            match old {
                Some((before, old))
                    if before == active
                        && renewed != Some(color)
                        && Arc::ptr_eq(old.pool(), &pool) =>
                {
                    Arc::clone(old)
                }
                _ => {
                    let service = u32::try_from(index).unwrap_or(u32::MAX);
                    let before = old.map(|it| it.1.id()).filter(|it| it.since == generation);
                    let part = before.map_or(0, |it| it.part.wrapping_add(1));
                    Arc::new(Side::new(SideId { since: generation, service, color, part }, pool))
                }
            }
        };
        let (blue, green) = (side(Color::Blue, blue), side(Color::Green, green));
        Self { name, active, blue, green, terms, renewed }
    }

    /// The name of the service.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The active color.
    pub fn active(&self) -> Color {
        self.active
    }

    /// The side of a color.
    pub fn side(&self, color: Color) -> &Arc<Side<P>> {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// What else decides which side a request gets.
    pub fn terms(&self) -> &T {
        &self.terms
    }

    /// The service as an entry for the next table.
    pub fn entry(&self) -> ServiceEntry<P, T> {
        ServiceEntry {
            name: self.name.clone(),
            active: self.active,
            blue: Arc::clone(self.blue.pool()),
            green: Arc::clone(self.green.pool()),
            terms: self.terms.clone(),
            renewed: None,
        }
    }

    pub(super) fn claim(&self, visit: Visit, generation: Generation) -> Claim<P> {
        let color = match visit {
            Visit::Active => self.active,
            Visit::Preview(color) | Visit::Pinned(color) | Visit::Shared(color) => color,
        };
        self.side(color).claim(generation, color == self.active)
    }
}

impl<P, T: Clone> Clone for Service<P, T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            active: self.active,
            blue: Arc::clone(&self.blue),
            green: Arc::clone(&self.green),
            terms: self.terms.clone(),
            renewed: self.renewed,
        }
    }
}

// === impl ServiceEntry ===

impl<P, T> ServiceEntry<P, T> {
    /// The pool of a color.
    pub fn pool(&self, color: Color) -> &Arc<P> {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// The pool of a color, to be replaced.
    pub fn pool_mut(&mut self, color: Color) -> &mut Arc<P> {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }
}
