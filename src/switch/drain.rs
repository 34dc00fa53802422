//! Drains: the requests that a change left on retired sides.

use std::sync::Arc;

use super::{
    ending::StreamEnding,
    side::{SideId, SideWatch},
};
use crate::model::{Color, Generation, ServiceName};

/// Watches the requests in flight on one retired side.
#[derive(Debug)]
pub struct Drain<P> {
    service: ServiceName,
    retired_by: Generation,
    was_active: bool,
    had_pins: bool,
    side: SideWatch<P>,
}

/// The requests in flight of one color of a service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct InFlight {
    /// Admitted by the current table.
    pub current: usize,
    /// Admitted before the last change of this color.
    pub retired: usize,
}

// === impl Drain ===

impl<P> Drain<P> {
    pub(super) fn new(
        service: ServiceName,
        side: SideWatch<P>,
        (was_active, had_pins): (bool, bool),
        retired_by: Generation,
    ) -> Self {
        Self { service, retired_by, was_active, had_pins, side }
    }

    /// The service that the side belonged to.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The color of the side.
    pub fn color(&self) -> Color {
        self.side.id().color
    }

    /// The side. Its id and the service's name identify it outside this room.
    pub fn side(&self) -> SideId {
        self.side.id()
    }

    /// The first generation without this side.
    pub fn retired_by(&self) -> Generation {
        self.retired_by
    }

    /// Whether the side was active, so that public requests may be in flight.
    pub fn was_active(&self) -> bool {
        self.was_active
    }

    /// Whether pins held the side until now, so that pinned requests may be in flight.
    pub fn had_pins(&self) -> bool {
        self.had_pins
    }

    /// Requests in flight. While a request is being admitted from the old table, this may be one too many, never one
    /// too few.
    pub fn in_flight(&self) -> usize {
        self.side.in_flight()
    }

    /// Whether requests are in flight, or can still be admitted from the old table.
    pub fn is_held(&self) -> bool {
        self.side.is_held()
    }

    /// Has its streams end, or keeps those that have not ended yet. Returns the number of requests in flight.
    pub(super) fn end_streams(&self, ending: Option<&Arc<StreamEnding>>) -> usize {
        self.side.end_streams(ending)
    }

    /// Waits until no request is in flight and none can be admitted any more. Cancel-safe; returns at once if that is
    /// already the case.
    pub async fn wait(&mut self) {
        self.side.wait().await;
    }
}

impl<P> Clone for Drain<P> {
    fn clone(&self) -> Self {
        let Self { service, retired_by, was_active, had_pins, side } = self;
        Self {
            service: service.clone(),
            retired_by: *retired_by,
            was_active: *was_active,
            had_pins: *had_pins,
            side: side.clone(),
        }
    }
}
