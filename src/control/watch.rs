//! An eye on every endpoint: has them checked and their names resolved, lets the ejected in again, and
//! tells what has changed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tracing::{error, info, warn};

use super::{actor::Control, checks::Checks, events::EventKind, names::NameBook};
use crate::{
    metrics::LimitHit,
    model::{Color, Health, ServiceName},
    upstream::{Condition, Member, Pool},
};

/// The time between two looks at what is known. How often endpoints are asked is theirs to say.
const STEP: Duration = Duration::from_millis(250);

/// The time between two looks at the files of TLS.
const FILES: Duration = Duration::from_secs(2);

/// The time between two events of the same limit.
const QUIET: Duration = Duration::from_secs(10);

/// What was told already.
#[derive(Default)]
struct Told {
    /// What each member was last told to be like. By its place in memory, which the member beside it keeps
    /// from being used again.
    conditions: HashMap<usize, (Arc<Member>, Condition)>,
    panicking: HashMap<(ServiceName, Color), bool>,
    down: HashSet<(ServiceName, Color)>,
    limits: HashMap<(ServiceName, Color, &'static str), LimitTold>,
}

/// How often a limit was met when that was last told, and when that was.
#[derive(Default)]
struct LimitTold {
    hits: u64,
    at: Option<Instant>,
}

impl Control {
    /// Looks after all endpoints. Runs until it is dropped, and all that it has started ends with it.
    pub async fn watch(&self) {
        let (mut checks, mut names) = (Checks::default(), NameBook::new(self.names().clone()));
        let mut told = Told::default();
        let mut changes = self.changes();
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut files_at, mut files) = (Instant::now(), None::<JoinHandle<()>>);
        loop {
            tokio::select! {
                _ = step.tick() => {}
                changed = changes.changed() => if changed.is_err() { return },
                () = names.hear() => {}
            }
            let now = Instant::now();
            let pools = self.pools();
            for event in names.follow(&pools, now) {
                self.events().publish(event);
            }
            checks.follow(&pools);
            for pool in &pools {
                pool.release(now);
            }
            let is_active = |it: &Pool| self.active(it.service()) == Some(it.color());
            for event in told.follow(&pools, is_active, now) {
                self.events().publish(event);
            }
            // A disk may take its time: endpoints must not wait for it, and one look at it is enough.
            let is_done = files.as_ref().is_none_or(JoinHandle::is_finished);
            if is_done && now.saturating_duration_since(files_at) >= FILES {
                files_at = now;
                let control = self.clone();
                files = Some(tokio::task::spawn_blocking(move || control.refresh_tls()));
            }
        }
    }

    /// Has pools whose files for TLS have changed use the new ones.
    fn refresh_tls(&self) {
        for pool in self.pools() {
            let (service, color) = (pool.service(), pool.color());
            match pool.refresh_tls() {
                Ok(false) => {}
                Ok(true) => info!(%service, %color, "certificates read again"),
                Err(error) => warn!(%service, %color, %error, "certificates stay as they were"),
            }
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.switch().look(|table| {
            let sides = table.services().iter();
            sides
                .flat_map(|it| Color::BOTH.map(|color| Arc::clone(it.side(color).pool())))
                .collect()
        })
    }
}

// === impl Told ===

impl Told {
    /// What is to be told since this was called the last time.
    fn follow(
        &mut self,
        pools: &[Arc<Pool>],
        is_active: impl Fn(&Pool) -> bool,
        now: Instant,
    ) -> Vec<EventKind> {
        let mut events = Vec::new();
        let mut conditions = HashMap::new();
        for pool in pools {
            for member in pool.members() {
                let place = Arc::as_ptr(&member).addr();
                let mut last = self.conditions.remove(&place).map(|it| it.1);
                for condition in member.news() {
                    tell_of_member(pool, &member, last.as_ref(), &condition, &mut events);
                    last = Some(condition);
                }
                if let Some(last) = last {
                    conditions.insert(place, (member, last));
                }
            }
            self.tell_of_outage(pool, is_active(pool), &mut events);
            self.tell_of_panic(pool, &mut events);
            self.tell_of_limits(pool, now, &mut events);
        }
        self.conditions = conditions;
        let is_there = |service: &ServiceName| pools.iter().any(|it| it.service() == service);
        self.panicking.retain(|(service, _), _| is_there(service));
        self.down.retain(|(service, _)| is_there(service));
        self.limits.retain(|(service, ..), _| is_there(service));
        events
    }

    /// Tells when the last endpoint of a pool has gone down, and when the first one is back.
    fn tell_of_outage(&mut self, pool: &Pool, is_active: bool, events: &mut Vec<EventKind>) {
        let members = pool.members();
        let is_down = !members.is_empty() && members.iter().all(|it| it.health() == Health::Down);
        let (service, color) = (pool.service().clone(), pool.color());
        let which = (service.clone(), color);
        match (is_down, self.down.contains(&which)) {
            (true, false) => {
                self.down.insert(which);
                if is_active {
                    error!(%service, %color, "no endpoint of the active color is up: the status says why");
                } else {
                    warn!(%service, %color, "no endpoint is up");
                }
                events.push(EventKind::PoolDown { service, color });
            }
            (false, true) => {
                self.down.remove(&which);
                info!(%service, %color, "an endpoint is up again, or there are none");
                events.push(EventKind::PoolUp { service, color });
            }
            _ => {}
        }
    }

    fn tell_of_panic(&mut self, pool: &Pool, events: &mut Vec<EventKind>) {
        let (service, color) = (pool.service().clone(), pool.color());
        let panicking = pool.is_panicking();
        let before = self.panicking.insert((service.clone(), color), panicking);
        if before.unwrap_or(false) == panicking {
            return;
        }
        if panicking {
            warn!(%service, %color, "too few endpoints are well: bad ones are used too");
        } else {
            info!(%service, %color, "enough endpoints are well again");
        }
        events.push(EventKind::PanicChanged { service, color, panicking });
    }

    fn tell_of_limits(&mut self, pool: &Pool, now: Instant, events: &mut Vec<EventKind>) {
        for limit in LimitHit::ALL {
            let hits = pool.metrics().limit_hits(limit);
            if hits == 0 {
                continue;
            }
            let (service, color, limit) = (pool.service().clone(), pool.color(), limit.as_str());
            let told = self.limits.entry((service.clone(), color, limit)).or_default();
            let is_quiet = |it: Instant| now.saturating_duration_since(it) < QUIET;
            if told.hits == hits || told.at.is_some_and(is_quiet) {
                continue;
            }
            let requests = hits.saturating_sub(told.hits);
            *told = LimitTold { hits, at: Some(now) };
            warn!(%service, %color, limit, requests, "requests met a limit");
            events.push(EventKind::LimitHit { service, color, limit, requests });
        }
    }
}

fn tell_of_member(
    pool: &Pool,
    member: &Member,
    before: Option<&Condition>,
    after: &Condition,
    events: &mut Vec<EventKind>,
) {
    let (service, color) = (pool.service().clone(), pool.color());
    let (endpoint, address) = (member.endpoint().clone(), member.resolved());
    let (health, reason) = (after.health, after.trouble.as_ref().map(|it| it.what.to_string()));
    let was = before.map_or(Health::Unknown, |it| it.health);
    // The first look at an endpoint that is well is no news.
    if was != health && (was, health) != (Health::Unknown, Health::Up) {
        let (at, why) = (address.map(tracing::field::display), reason.as_deref());
        match health {
            Health::Down => {
                warn!(%service, %color, %endpoint, address = at, %health, reason = why, "health changed");
            }
            _ => info!(%service, %color, %endpoint, address = at, %health, "health changed"),
        }
        let (service, endpoint) = (service.clone(), endpoint.clone());
        events.push(EventKind::HealthChanged { service, color, endpoint, address, health, reason });
    }
    let was_ejected = before.and_then(|it| it.ejected.as_ref());
    match (was_ejected, &after.ejected) {
        (was, Some(now)) if was != Some(now) => {
            let (until, reason) = (now.until, now.what.to_string());
            warn!(%service, %color, %endpoint, %until, reason, "endpoint ejected");
            events.push(EventKind::EndpointEjected {
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
            events.push(EventKind::EndpointReturned { service, color, endpoint, address });
        }
        _ => {}
    }
}
