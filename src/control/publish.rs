//! Publishes what a change of the state means, to the log and the subscribers.

use std::collections::BTreeMap;

use tracing::{error, info, warn};

use super::{
    change::Actor,
    event_kinds::EventKind,
    events::Events,
    share_events::ShareEvent,
    shared::{Applied, ControlShared},
};
use crate::{
    model::{Color, Generation, Health, PoolSpec, ServiceName},
    store::{Approval, PoolState, ServiceState, State},
    upstream::Pool,
};

/// The most endpoints that the log names in one line.
const LISTED_MAX: usize = 20;

/// Publishes what differs, to the log and the subscribers.
pub(super) fn publish_changes(
    shared: &ControlShared,
    before: &Applied,
    after: &Applied,
    changed: &[ServiceName],
    has_new_catalog: bool,
    actor: Option<&Actor>,
) {
    let (by, from) = (actor.map(|it| it.name.as_str()), actor.map(|it| it.address.as_str()));
    let events = &shared.events;
    let generation = after.state.generation;
    let promotion = &after.state.promotion;
    let is_promotion = before.state.promotion != *promotion;
    let of = |state: &State, name: &ServiceName| state.services.get(name).cloned();
    let mut promoted = BTreeMap::new();
    for name in changed {
        let (old, new) = (of(&before.state, name), of(&after.state, name));
        let Some(new) = new else { continue };
        // The active color of a damaged entry is not known.
        if old.as_ref().map(|it| it.active) != Some(new.active) && is_promotion {
            promoted.insert(name.clone(), new.active);
        }
        if let Some(old) = &old {
            publish_approvals(shared, name, old, &new);
            let begun = promotion.reason.as_deref().filter(|_| is_promotion);
            publish_share(events, name, (old, &new), generation, (begun, by));
        }
        let Some(old) = old.filter(|_| !has_new_catalog) else { continue };
        for color in Color::BOTH {
            if !is_same_pool(old.pool(color), new.pool(color)) {
                let (number, service) = (generation.0, name.clone());
                let spec = new.pool(color).spec();
                let version = spec.version.as_ref().map(ToString::to_string);
                let endpoints = listed(spec);
                info!(generation = number, %service, %color, version, endpoints, by, from, "pool changed");
                events.publish(EventKind::PoolChanged { generation, service, color });
            }
        }
    }
    if !promoted.is_empty() {
        let (rollback, reason) = (promotion.is_rollback, promotion.reason.clone());
        for (service, active) in &promoted {
            let (generation, reason) = (generation.0, reason.as_deref());
            let version = |color: Color| {
                let state = after.state.services.get(service)?;
                state.pool(color).spec().version.as_ref().map(ToString::to_string)
            };
            let (version, replaced) = (version(*active), version(active.other()));
            info!(
                generation, %service, %active, version, replaced = %active.other(),
                replaced_version = replaced, rollback, reason, by, from, "promoted"
            );
            if let Some(pools) = after.pools.get(service) {
                log_outage(pools.pool(*active), generation);
            }
        }
        let by = actor.map(|it| it.name.clone());
        events.publish(EventKind::Promoted {
            generation,
            services: promoted,
            rollback,
            reason,
            by,
        });
    }
    if has_new_catalog {
        info!(generation = generation.0, "configuration applied");
        events.publish(EventKind::Reloaded { generation });
    }
}

/// Publishes the approvals that are new.
fn publish_approvals(
    shared: &ControlShared,
    service: &ServiceName,
    old: &ServiceState,
    new: &ServiceState,
) {
    for approval in new.approvals.iter().filter(|it| !old.approvals.contains(it)) {
        let Approval { color, by, .. } = approval;
        let version = new.pool(*color).spec().version.as_ref().map(ToString::to_string);
        info!(%service, %color, version, %by, "approved");
        let (service, color, by) = (service.clone(), *color, by.to_string());
        shared.events.publish(EventKind::Approved { service, color, version, by });
    }
}

/// The endpoints of a pool for the log.
fn listed(spec: &PoolSpec) -> String {
    let mut listed: Vec<_> =
        spec.endpoints.iter().take(LISTED_MAX).map(|it| it.endpoint.to_string()).collect();
    if spec.endpoints.len() > LISTED_MAX {
        listed.push(format!("and {} more", spec.endpoints.len() - LISTED_MAX));
    }
    listed.join(", ")
}

/// Logs an error if no endpoint of the promoted color is up.
fn log_outage(pool: &Pool, generation: u64) {
    let members = pool.endpoints();
    let up = members.iter().filter(|it| it.health() == Health::Up).count();
    if up == 0 {
        let (service, color, endpoints) = (pool.service(), pool.color(), members.len());
        error!(
            generation, %service, %color, up, endpoints,
            "no endpoint of the color that has become active is up: `flipgate status` says why"
        );
    }
}

/// Whether version and endpoints of a pool are the same. A promotion is published separately.
fn is_same_pool(old: &PoolState, new: &PoolState) -> bool {
    old.file == new.file && old.runtime == new.runtime
}

/// Publishes what differs of a gradual promotion. A promotion of the candidate is published as such.
fn publish_share(
    events: &Events,
    service: &ServiceName,
    (old, new): (&ServiceState, &ServiceState),
    generation: Generation,
    (begun, by): (Option<&str>, Option<&str>),
) {
    let by_name = by.map(str::to_owned);
    let event = match (&old.share, &new.share) {
        (before, Some(share)) => {
            let is_same = before.as_ref().is_some_and(|it| {
                (it.color, it.percent(), it.has_first)
                    == (share.color, share.percent(), share.has_first)
            });
            if is_same {
                return;
            }
            let (color, percent) = (share.color, share.percent());
            info!(generation = generation.0, %service, %color, percent, reason = begun, by, "share changed");
            let (service, reason) = (service.clone(), begun.map(str::to_owned));
            ShareEvent::ShareChanged { service, color, generation, percent, reason, by: by_name }
        }
        (Some(share), None) if new.active != share.color => {
            let color = share.color;
            let end = new.share_end.as_ref();
            let reason = end.and_then(|it| it.reason.as_deref());
            warn!(generation = generation.0, %service, %color, reason, by, "gradual promotion taken back");
            let (service, reason) = (service.clone(), reason.map(str::to_owned));
            let by = end.map(|it| it.by.to_string());
            ShareEvent::ShareEnded { service, color, generation, reason, by }
        }
        (_, None) => return,
    };
    events.publish(EventKind::Share(event));
}
