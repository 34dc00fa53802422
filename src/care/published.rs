//! The events that were published for each pool, so that each is published once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::PoolKey;
use crate::{
    metrics::LimitHit,
    model::Health,
    upstream::{EndpointEvent, EndpointHealth, EndpointState, Pool},
};

/// The published events of all pools. A healthy pool has no entry.
#[derive(Default)]
pub(super) struct PublishedEvents {
    pools: HashMap<PoolKey, PublishedPoolEvents>,
    /// Pools with a limit event in the last moments.
    quiet: HashSet<PoolKey>,
}

/// The published events of one pool.
#[derive(Default)]
struct PublishedPoolEvents {
    /// The published health of each unhealthy endpoint. By the address of its state in memory, which the entry keeps
    /// from being reused.
    conditions: HashMap<usize, (Arc<EndpointState>, EndpointHealth)>,
    is_panicking: bool,
    is_down: bool,
    limits: HashMap<&'static str, PublishedLimitHits>,
}

/// How often a limit was hit at the last event, and when that was.
#[derive(Default)]
struct PublishedLimitHits {
    hits: u64,
    at: Option<Instant>,
}

/// The time between two events of the same limit.
const QUIET: Duration = Duration::from_secs(10);

// === impl PublishedEvents ===

impl PublishedEvents {
    /// Publishes what has changed in a pool since the last call.
    pub(super) fn known(
        &mut self,
        which: &PoolKey,
        pool: &Pool,
        is_active: bool,
        now: Instant,
    ) -> Vec<EndpointEvent> {
        let mut events = Vec::new();
        let mut pool_events = self.pools.remove(which).unwrap_or_default();
        pool_events.publish_health(pool, &mut events);
        pool_events.publish_outage(pool, is_active, &mut events);
        pool_events.publish_panic(pool, &mut events);
        match pool_events.publish_limits(pool, now, &mut events) {
            true => self.quiet.insert(which.clone()),
            false => self.quiet.remove(which),
        };
        let PublishedPoolEvents { conditions, is_panicking, is_down, limits } = &pool_events;
        if !conditions.is_empty() || *is_panicking || *is_down || !limits.is_empty() {
            self.pools.insert(which.clone(), pool_events);
        }
        events
    }

    /// Pools with something to publish by now.
    pub(super) fn unpublished(&self, now: Instant) -> Vec<PoolKey> {
        let is_over = |it: &&PoolKey| {
            let limits = self.pools.get(*it).map(|it| it.limits.values());
            limits
                .into_iter()
                .flatten()
                .any(|it| it.at.is_some_and(|at| now.saturating_duration_since(at) >= QUIET))
        };
        self.quiet.iter().filter(is_over).cloned().collect()
    }

    /// Forgets the published events of a pool.
    pub(super) fn forget(&mut self, which: &PoolKey) {
        self.pools.remove(which);
        self.quiet.remove(which);
    }
}

// === impl PublishedPoolEvents ===

impl PublishedPoolEvents {
    fn publish_health(&mut self, pool: &Pool, events: &mut Vec<EndpointEvent>) {
        let mut conditions = HashMap::new();
        for member in pool.endpoints() {
            let place = Arc::as_ptr(&member).addr();
            let mut last = self.conditions.remove(&place).map(|it| it.1);
            for condition in member.take_changes() {
                publish_endpoint(pool, &member, last.as_ref(), &condition, events);
                last = Some(condition);
            }
            let is_well = |it: &EndpointHealth| it.health != Health::Down && it.ejected.is_none();
            if let Some(last) = last.filter(|it| !is_well(it)) {
                conditions.insert(place, (member, last));
            }
        }
        self.conditions = conditions;
    }

    /// Publishes when the last healthy endpoint of a pool goes down, and when the first one is back. Endpoints that
    /// were never checked, such as replacements, count as neither.
    fn publish_outage(&mut self, pool: &Pool, is_active: bool, events: &mut Vec<EndpointEvent>) {
        let members = pool.endpoints();
        let is_all = |health| members.iter().all(|it| it.health() == health);
        let has_up = members.iter().any(|it| it.health() == Health::Up);
        let is_down = !members.is_empty() && (is_all(Health::Down) || (self.is_down && !has_up));
        let (service, color) = (pool.service().clone(), pool.color());
        match (is_down, std::mem::replace(&mut self.is_down, is_down)) {
            (true, false) => {
                if is_active {
                    error!(%service, %color, "no endpoint of the active color is up; see `flipgate status`");
                } else {
                    warn!(%service, %color, "no endpoint is up");
                }
                events.push(EndpointEvent::PoolDown { service, color });
            }
            (false, true) => {
                info!(%service, %color, endpoints = members.len(), "pool recovered");
                events.push(EndpointEvent::PoolUp { service, color });
            }
            _ => {}
        }
    }

    fn publish_panic(&mut self, pool: &Pool, events: &mut Vec<EndpointEvent>) {
        let (service, color) = (pool.service().clone(), pool.color());
        let panicking = pool.is_panicking();
        if std::mem::replace(&mut self.is_panicking, panicking) == panicking {
            return;
        }
        if panicking {
            warn!(%service, %color, "panic mode: too few endpoints are usable, so unhealthy ones get requests");
        } else {
            info!(%service, %color, "panic mode ended");
        }
        events.push(EndpointEvent::PanicChanged { service, color, panicking });
    }

    /// Returns whether a limit event is so recent that more hits may have to be published later.
    fn publish_limits(
        &mut self,
        pool: &Pool,
        now: Instant,
        events: &mut Vec<EndpointEvent>,
    ) -> bool {
        let mut is_quiet = false;
        for limit in LimitHit::ALL {
            let hits = pool.metrics().limit_hits(limit);
            if hits == 0 {
                continue;
            }
            let (service, color, limit) = (pool.service().clone(), pool.color(), limit.as_str());
            let published = self.limits.entry(limit).or_default();
            let is_recent = |it: Instant| now.saturating_duration_since(it) < QUIET;
            if published.hits == hits || published.at.is_some_and(is_recent) {
                is_quiet |= published.hits != hits;
                continue;
            }
            let requests = hits.saturating_sub(published.hits);
            *published = PublishedLimitHits { hits, at: Some(now) };
            warn!(%service, %color, limit, requests, "requests met a limit");
            events.push(EndpointEvent::LimitHit { service, color, limit, requests });
        }
        is_quiet
    }
}

fn publish_endpoint(
    pool: &Pool,
    member: &EndpointState,
    before: Option<&EndpointHealth>,
    after: &EndpointHealth,
    events: &mut Vec<EndpointEvent>,
) {
    let (service, color) = (pool.service().clone(), pool.color());
    let (endpoint, address) = (member.configured().clone(), member.resolved());
    let (health, reason) = (after.health, after.failure.as_ref().map(|it| it.detail.to_string()));
    let was = before.map_or(Health::Unknown, |it| it.health);
    // The first check of a healthy endpoint is no news.
    if was != health && (was, health) != (Health::Unknown, Health::Up) {
        let (at, why) = (address.map(tracing::field::display), reason.as_deref());
        match health {
            Health::Down => {
                warn!(%service, %color, %endpoint, address = at, %health, reason = why, "health changed");
            }
            _ => info!(%service, %color, %endpoint, address = at, %health, "health changed"),
        }
        let (service, endpoint) = (service.clone(), endpoint.clone());
        events.push(EndpointEvent::HealthChanged {
            service,
            color,
            endpoint,
            address,
            health,
            reason,
        });
    }
    let was_ejected = before.and_then(|it| it.ejected.as_ref());
    match (was_ejected, &after.ejected) {
        (was, Some(now)) if was != Some(now) => {
            let (until, reason) = (now.until, now.reason.to_string());
            warn!(%service, %color, %endpoint, %until, reason, "endpoint ejected");
            events.push(EndpointEvent::EndpointEjected {
                service,
                color,
                endpoint,
                address,
                until,
                reason,
            });
        }
        (Some(_), None) => {
            info!(%service, %color, %endpoint, "endpoint returned");
            events.push(EndpointEvent::EndpointReturned { service, color, endpoint, address });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::pools, *};
    use crate::upstream::HealthFailure;

    #[test]
    fn a_pool_that_was_down_has_recovered_when_an_endpoint_is_up_and_not_before() {
        let which = ("web".parse().expect("a name"), crate::model::Color::Blue);
        let mut pool_events = PublishedEvents::default();
        let mut follow = |pool: &Pool| -> Vec<&str> {
            let events = pool_events.known(&which, pool, true, Instant::now());
            let name = |it: &EndpointEvent| match it {
                EndpointEvent::PoolDown { .. } => Some("down"),
                EndpointEvent::PoolUp { .. } => Some("up"),
                _ => None,
            };
            events.iter().filter_map(name).collect()
        };
        let (old, _pools) = pools(&["127.0.0.1:1"]);
        assert!(follow(&old).is_empty(), "not checked yet");
        old.record_check(&old.endpoints()[0], Err(HealthFailure::refused("refused")));
        assert_eq!(follow(&old), ["down"]);
        let (new, _pools) = pools(&["127.0.0.1:2", "127.0.0.1:3"]);
        assert!(follow(&new).is_empty(), "its endpoints were not checked yet");
        new.record_check(&new.endpoints()[0], Err(HealthFailure::refused("refused")));
        assert!(follow(&new).is_empty());
        new.record_check(&new.endpoints()[1], Ok(()));
        assert_eq!(follow(&new), ["up"]);
        let (none, _pools) = pools(&[]);
        assert!(follow(&none).is_empty());
    }
}
