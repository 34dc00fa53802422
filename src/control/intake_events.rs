//! The events of holds and maintenance, from the difference of two states.

use tracing::info;

use super::{change::Actor, event_kinds::EventKind, events::Events, holds::timestamp};
use crate::{
    continuity::{HoldTerm, Maintenance},
    model::{Difference, ServiceName},
    store::State,
};

/// Publishes what differs, to the log and the subscribers.
pub(super) fn publish_intakes(
    events: &Events,
    before: &State,
    after: &State,
    actor: Option<&Actor>,
) {
    let by = || actor.map(|it| it.name.clone());
    for difference in before.holds.differences(&after.holds) {
        events.publish(match difference {
            Difference::Added(service, term) | Difference::Changed(service, _, term) => {
                hold_started(service, term)
            }
            Difference::Removed(service, term) => {
                info!(%service, hold = term.id, by = by(), "hold released");
                EventKind::HoldReleased { service: service.clone(), id: term.id, by: by() }
            }
        });
    }
    for difference in before.maintenance.differences(&after.maintenance) {
        events.publish(match difference {
            Difference::Added(service, it) | Difference::Changed(service, _, it) => {
                maintenance_started(service, it)
            }
            Difference::Removed(service, _) => {
                info!(%service, by = by(), "maintenance ended");
                EventKind::MaintenanceEnded { service: service.clone(), by: by() }
            }
        });
    }
}

fn hold_started(service: &ServiceName, term: &HoldTerm) -> EventKind {
    let HoldTerm { id, owner, until_ms, places, .. } = term;
    let until = timestamp(*until_ms);
    info!(%service, hold = id, %owner, %until, requests = places, "hold started");
    let (service, owner) = (service.clone(), owner.to_string());
    EventKind::HoldStarted { service, id: *id, owner, until, requests: *places }
}

fn maintenance_started(service: &ServiceName, maintenance: &Maintenance) -> EventKind {
    let Maintenance { owner, retry_after, except_internal, .. } = maintenance;
    info!(%service, %owner, retry_after_s = retry_after, except_internal, "maintenance started");
    EventKind::MaintenanceStarted { service: service.clone(), owner: owner.to_string() }
}
