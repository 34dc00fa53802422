//! What every request of one generation sees.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

use super::{
    claim::{Claim, Held, SideId, Visit},
    drain::Drain,
};
use crate::model::{Color, Generation, ServiceName};

/// All that requests of one generation see together: rules, services, and who is active. Never
/// changed, only replaced whole.
#[derive(Debug)]
pub struct Table<R, P> {
    generation: Generation,
    rules: R,
    /// In the order of the drafts that it was made of, which the rules refer to by index.
    services: Vec<Service<P>>,
}

/// A service in one generation.
#[derive(Debug)]
pub struct Service<P> {
    name: ServiceName,
    active: Color,
    blue: Arc<Side<P>>,
    green: Arc<Side<P>>,
}

/// One pool, for as long as neither it nor the service's active color is changed: whoever is inside
/// was admitted in that time. Tables share it; its only way to its holders' count is its own.
// Not `Clone`: it stands for the one reference that all tables together have.
#[derive(Debug)]
pub struct Side<P> {
    held: Arc<Held<P>>,
}

/// What a service shall be in the next table.
#[derive(Debug)]
pub struct Draft<P> {
    /// Its name.
    pub name: ServiceName,
    /// The color that answers.
    pub active: Color,
    /// The pool named blue.
    pub blue: Arc<P>,
    /// The pool named green.
    pub green: Arc<P>,
}

// === impl Table ===

impl<R, P> Table<R, P> {
    /// The first table of a process, at the generation that was reached before.
    pub fn first(generation: Generation, rules: R, drafts: Vec<Draft<P>>) -> Self {
        let services = drafts.into_iter().map(|it| Service::new(it, None)).collect();
        Self { generation, rules, services }
    }

    /// The table that comes after this one. A service keeps its two sides if its active color and
    /// both of its pools stay what they are; a side whose pool or role changes is made anew.
    pub fn next(&self, rules: R, drafts: Vec<Draft<P>>) -> Self {
        let known = self.by_name();
        let services = drafts.into_iter().map(|draft| {
            let old = known.get(&draft.name).copied();
            Service::new(draft, old)
        });
        let services = services.collect();
        Self { generation: self.generation.next(), rules, services }
    }

    /// This table as drafts, to be changed into the next one.
    pub fn drafts(&self) -> Vec<Draft<P>> {
        self.services.iter().map(Service::draft).collect()
    }

    /// How many changes came before.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The rules of this generation.
    pub fn rules(&self) -> &R {
        &self.rules
    }

    /// All services.
    pub fn services(&self) -> &[Service<P>] {
        &self.services
    }

    /// One service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service<P>> {
        self.services.iter().find(|it| it.name == *name)
    }

    fn by_name(&self) -> HashMap<&ServiceName, &Service<P>> {
        self.services.iter().map(|it| (&it.name, it)).collect()
    }

    /// The sides of this table that `next` does not have.
    pub(super) fn retired_by(&self, next: &Self) -> Vec<Drain<P>> {
        let (mut drains, next_by_name) = (Vec::new(), next.by_name());
        for old in &self.services {
            let new = next_by_name.get(&old.name);
            for color in Color::BOTH {
                let stays = new.is_some_and(|it| Arc::ptr_eq(it.side(color), old.side(color)));
                if !stays {
                    drains.push(Drain::of(old, color, next.generation));
                }
            }
        }
        drains
    }
}

// === impl Service ===

impl<P> Service<P> {
    fn new(draft: Draft<P>, old: Option<&Self>) -> Self {
        let Draft { name, active, blue, green } = draft;
        let side = |color, pool: Arc<P>| match old {
            Some(old) if old.active == active && Arc::ptr_eq(&old.side(color).held.pool, &pool) => {
                Arc::clone(old.side(color))
            }
            _ => Arc::new(Side::around(color, pool)),
        };
        Self { name, active, blue: side(Color::Blue, blue), green: side(Color::Green, green) }
    }

    /// What this service is called.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The color that answers.
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

    /// This service as a draft of the next generation.
    pub fn draft(&self) -> Draft<P> {
        Draft {
            name: self.name.clone(),
            active: self.active,
            blue: Arc::clone(&self.blue.held.pool),
            green: Arc::clone(&self.green.held.pool),
        }
    }

    pub(super) fn claim(&self, visit: Visit, generation: Generation) -> Claim<P> {
        let color = match visit {
            Visit::Active => self.active,
            Visit::Wish(color) => color,
        };
        let is_active = color == self.active;
        Claim::new(Arc::clone(&self.side(color).held), generation, is_active)
    }
}

// === impl Side ===

impl<P> Side<P> {
    fn around(color: Color, pool: Arc<P>) -> Self {
        let (open, _) = watch::channel(());
        Self { held: Arc::new(Held { color, pool, open }) }
    }

    /// The pool behind this side.
    pub fn pool(&self) -> &Arc<P> {
        &self.held.pool
    }

    /// Which side this is.
    pub fn id(&self) -> SideId {
        SideId::of(Arc::as_ptr(&self.held))
    }

    /// How many claims there are on it.
    pub fn in_flight(&self) -> usize {
        // One reference is the tables'.
        Arc::strong_count(&self.held) - 1
    }

    pub(super) fn held(&self) -> &Arc<Held<P>> {
        &self.held
    }
}

// === impl Draft ===

impl<P> Draft<P> {
    /// The pool of a color.
    pub fn pool(&self, color: Color) -> &Arc<P> {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// Where the pool of a color is written.
    pub fn pool_mut(&mut self, color: Color) -> &mut Arc<P> {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }
}
