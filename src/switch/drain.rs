//! Watching those whom a change left behind.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::{
    claim::{Held, SideId},
    table::{Service, Side},
};
use crate::model::{Color, Generation, ServiceName};

/// Watches the requests inside one retired side.
#[derive(Debug)]
pub struct Drain<P> {
    service: ServiceName,
    color: Color,
    retired_by: Generation,
    was_active: bool,
    held: Weak<Held<P>>,
    side: Weak<Side<P>>,
    open: watch::Receiver<()>,
}

/// How many requests are inside one color of a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inside {
    /// Admitted by the current table.
    pub current: usize,
    /// Admitted before the last change that concerned this color.
    pub retired: usize,
}

// === impl Drain ===

impl<P> Drain<P> {
    pub(super) fn of(service: &Service<P>, color: Color, retired_by: Generation) -> Self {
        let side = service.side(color);
        Self {
            service: service.name().clone(),
            color,
            retired_by,
            was_active: service.active() == color,
            held: Arc::downgrade(side.held()),
            side: Arc::downgrade(side),
            open: side.held().open.subscribe(),
        }
    }

    /// The service that the side belonged to.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The color of the side.
    pub fn color(&self) -> Color {
        self.color
    }

    /// Which side is watched.
    pub fn side(&self) -> SideId {
        SideId::of(self.held.as_ptr())
    }

    /// The generation that did without this side.
    pub fn retired_by(&self) -> Generation {
        self.retired_by
    }

    /// Whether the side was the active one, so that public requests may be inside.
    pub fn was_active(&self) -> bool {
        self.was_active
    }

    /// Requests still inside. While a request is just being admitted from the old table it may say
    /// one too many, never one too few.
    pub fn in_flight(&self) -> usize {
        let references = self.held.strong_count();
        references.saturating_sub(usize::from(self.side.strong_count() > 0))
    }

    /// Whether somebody is inside, or could still come in from the old table.
    pub fn is_held(&self) -> bool {
        self.held.strong_count() > 0
    }

    /// Waits until nobody is inside and nobody can come in any more. Safe to drop and to call
    /// again; returns at once when it is over already.
    pub async fn wait(&mut self) {
        // Nothing is ever sent; the channel only closes.
        while self.open.changed().await.is_ok() {}
    }

    pub(super) fn is_of(&self, service: &ServiceName, color: Color) -> bool {
        self.service == *service && self.color == color
    }
}

impl<P> Clone for Drain<P> {
    fn clone(&self) -> Self {
        let Self { service, color, retired_by, was_active, held, side, open } = self;
        Self {
            service: service.clone(),
            color: *color,
            retired_by: *retired_by,
            was_active: *was_active,
            held: held.clone(),
            side: side.clone(),
            open: open.clone(),
        }
    }
}
