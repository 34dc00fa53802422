//! Watching those whom a change left behind.

use super::side::{SideId, SideWatch};
use crate::model::{Color, Generation, ServiceName};

/// Watches the requests inside one retired side.
#[derive(Debug)]
pub struct Drain<P> {
    service: ServiceName,
    retired_by: Generation,
    was_active: bool,
    side: SideWatch<P>,
}

/// How many requests are inside one color of a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InFlight {
    /// Admitted by the current table.
    pub current: usize,
    /// Admitted before the last change that concerned this color.
    pub retired: usize,
}

// === impl Drain ===

impl<P> Drain<P> {
    pub(super) fn new(
        service: ServiceName,
        side: SideWatch<P>,
        was_active: bool,
        retired_by: Generation,
    ) -> Self {
        Self { service, retired_by, was_active, side }
    }

    /// The service that the side belonged to.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The color of the side.
    pub fn color(&self) -> Color {
        self.side.id().color
    }

    /// Which side is watched. With the service's name it is the side's identity for everybody.
    pub fn side(&self) -> SideId {
        self.side.id()
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
        self.side.in_flight()
    }

    /// Whether somebody is inside, or could still come in from the old table.
    pub fn is_held(&self) -> bool {
        self.side.is_held()
    }

    /// Waits until nobody is inside and nobody can come in any more. Safe to drop and to call
    /// again; returns at once when it is over already.
    pub async fn wait(&mut self) {
        self.side.wait().await;
    }
}

impl<P> Clone for Drain<P> {
    fn clone(&self) -> Self {
        let Self { service, retired_by, was_active, side } = self;
        Self {
            service: service.clone(),
            retired_by: *retired_by,
            was_active: *was_active,
            side: side.clone(),
        }
    }
}
