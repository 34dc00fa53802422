//! The health of one endpoint, from its health checks and its requests.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::model::{Ejection, Health, HealthCheck};

/// Why an endpoint is down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthFailure {
    /// What it means for requests.
    pub kind: FailureKind,
    /// The details as text.
    pub detail: Arc<str>,
}

/// What a health failure means for requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// The endpoint responds, but not as expected.
    BadResponse,
    /// The endpoint accepts no connections. Open ones continue.
    Refused,
    /// The endpoint does not respond at all: open connections may hang.
    Unresponsive,
}

/// The health of an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointHealth {
    /// The result of its health checks.
    pub health: Health,
    /// Since when `health` has this value.
    pub since: Timestamp,
    /// Why, while it is down.
    pub failure: Option<HealthFailure>,
    /// Whether it is ejected because of failed requests.
    pub ejected: Option<Ejected>,
}

/// An ejection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejected {
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Why.
    pub reason: Arc<str>,
}

/// The order in which endpoints are preferred, best first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(super) enum Tier {
    /// Healthy.
    Healthy = 0,
    /// Not checked yet.
    Unchecked = 1,
    /// Ejected because of failed requests.
    Ejected = 2,
    /// Down: health checks get an unexpected response.
    Unhealthy = 3,
    /// Down: it accepts no connections.
    Refusing = 4,
    /// Down: it does not respond.
    Unresponsive = 5,
}

/// The health of an endpoint, with the counters that it follows from.
#[derive(Debug)]
pub(super) struct HealthState {
    health: Health,
    since: Timestamp,
    failure: Option<HealthFailure>,
    /// Whether it was ever up.
    was_up: bool,
    /// Consecutive checks that contradict `health`.
    contrary: u32,
    /// Consecutive connect failures of requests.
    connect_failures: u32,
    /// Whether it accepted no connections at any time since it went down.
    was_unreachable: bool,
    ejected: Option<EjectedUntil>,
    /// Ejections without a long healthy time in between.
    ejections: u32,
    returned: Option<Instant>,
    /// Changes that were not reported yet.
    changes: VecDeque<EndpointHealth>,
}

/// Changes that are kept until they are reported, several times a second.
const CHANGES_MAX: usize = 16;

/// An ejection, with monotonic times.
#[derive(Debug)]
struct EjectedUntil {
    public: Ejected,
    since: Instant,
    until: Instant,
}

// === impl HealthFailure ===

impl HealthFailure {
    /// The endpoint responds, but not as expected.
    pub fn bad_response(reason: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::BadResponse, detail: reason.into() }
    }

    /// The endpoint accepts no connections.
    pub fn refused(reason: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Refused, detail: reason.into() }
    }

    /// The endpoint does not respond.
    pub fn unresponsive(reason: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Unresponsive, detail: reason.into() }
    }
}

// === impl Tier ===

impl Tier {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Healthy,
            1 => Self::Unchecked,
            2 => Self::Ejected,
            3 => Self::Unhealthy,
            4 => Self::Refusing,
            _ => Self::Unresponsive,
        }
    }
}

// === impl HealthState ===

impl HealthState {
    pub(super) fn unknown() -> Self {
        Self {
            health: Health::Unknown,
            since: Timestamp::now(),
            failure: None,
            was_up: false,
            contrary: 0,
            connect_failures: 0,
            was_unreachable: false,
            ejected: None,
            ejections: 0,
            returned: None,
            changes: VecDeque::new(),
        }
    }

    /// The changes since the last call, in order.
    pub(super) fn take_changes(&mut self) -> Vec<EndpointHealth> {
        // Frees the memory: most endpoints never change again.
        std::mem::take(&mut self.changes).into()
    }

    fn record_change(&mut self) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(self.details());
    }

    pub(super) fn tier(&self) -> Tier {
        match (self.health, self.failure.as_ref().map(|it| it.kind)) {
            (Health::Down, Some(FailureKind::Unresponsive)) => Tier::Unresponsive,
            (Health::Down, Some(FailureKind::Refused)) => Tier::Refusing,
            (Health::Down, _) => Tier::Unhealthy,
            _ if self.is_ejected() => Tier::Ejected,
            (Health::Unknown, _) => Tier::Unchecked,
            (Health::Up, _) => Tier::Healthy,
        }
    }

    pub(super) fn details(&self) -> EndpointHealth {
        let failure = self.failure.clone().filter(|_| self.health == Health::Down);
        let ejected = self.ejected.as_ref().map(|it| it.public.clone());
        EndpointHealth { health: self.health, since: self.since, failure, ejected }
    }

    /// Whether the health is changing or not good, so that checks are more frequent.
    pub(super) fn needs_frequent_checks(&self) -> bool {
        self.health != Health::Up || self.is_transitioning()
    }

    /// Whether the last check contradicts `health`.
    pub(super) fn is_transitioning(&self) -> bool {
        self.contrary > 0
    }

    /// The failure, if the endpoint is down and was never up.
    pub(super) fn startup_failure(&self) -> Option<FailureKind> {
        let is_starting = self.health == Health::Down && !self.was_up;
        self.failure.as_ref().filter(|_| is_starting).map(|it| it.kind)
    }

    /// Records the result of a check. The first check decides, and so does the first success: `rise` is for an endpoint
    /// that was up and failed. Other changes need `rise` or `fall` consecutive results.
    ///
    /// An endpoint that accepted no connections and is up again is readmitted: it was restarted, or the network was
    /// interrupted, and the failed requests are from before that.
    pub(super) fn record_check(&mut self, found: Result<(), HealthFailure>, check: &HealthCheck) {
        self.was_unreachable |= matches!(self.tier(), Tier::Refusing | Tier::Unresponsive);
        let (health, streak) = match (&found, self.health) {
            (Ok(()), Health::Up) => {
                (self.contrary, self.connect_failures) = (0, 0);
                return;
            }
            (Err(failure), Health::Down) => {
                self.contrary = 0;
                self.failure = Some(failure.clone());
                return;
            }
            (Ok(()), Health::Down) if !self.was_up => (Health::Up, 1),
            (Ok(()), Health::Down) => (Health::Up, check.rise),
            (Err(_), Health::Up) => (Health::Down, check.fall),
            (Ok(()), Health::Unknown) => (Health::Up, 1),
            (Err(_), Health::Unknown) => (Health::Down, 1),
        };
        self.contrary += 1;
        if self.contrary < streak {
            return;
        }
        self.set_health(health, found.err());
        let was_unreachable = std::mem::take(&mut self.was_unreachable);
        if was_unreachable && health == Health::Up && self.is_ejected() {
            self.readmit(Instant::now());
        }
    }

    /// Records that a request could not connect, which counts like a failed check. Returns whether the endpoint is now
    /// down because of it.
    pub(super) fn record_connect_failure(&mut self, failure: HealthFailure, fall: u32) -> bool {
        self.connect_failures = self.connect_failures.saturating_add(1);
        let is_now_down = self.connect_failures >= fall && self.health != Health::Down;
        if is_now_down {
            self.set_health(Health::Down, Some(failure));
        }
        is_now_down
    }

    /// Records that a request could connect.
    pub(super) fn record_connect_success(&mut self) {
        self.connect_failures = 0;
    }

    fn set_health(&mut self, health: Health, failure: Option<HealthFailure>) {
        (self.health, self.failure, self.since) = (health, failure, Timestamp::now());
        (self.contrary, self.connect_failures) = (0, 0);
        self.was_up |= health == Health::Up;
        self.record_change();
    }

    /// Whether there are changes that were not reported yet.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn was_ejected(&self) -> bool {
        self.ejections > 0
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    /// Since when it is ejected, if it is.
    pub(super) fn ejected_since(&self) -> Option<Instant> {
        self.ejected.as_ref().map(|it| it.since)
    }

    /// Ejects it from `now` on. Each ejection is longer than the last, unless it was healthy for a long time.
    pub(super) fn eject(&mut self, reason: Arc<str>, rules: &Ejection, now: Instant) {
        let was_healthy = |it: Instant| now.saturating_duration_since(it) > rules.duration_max;
        if self.returned.is_some_and(was_healthy) {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let time = rules.base_duration.saturating_mul(self.ejections).min(rules.duration_max);
        let since = Timestamp::now();
        let until = since.checked_add(time).unwrap_or(Timestamp::MAX);
        let public = Ejected { since, until, reason };
        self.ejected = Some(EjectedUntil { public, since: now, until: now + time });
        self.record_change();
    }

    /// Readmits it if the ejection is over.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let is_expired = self.ejected.as_ref().is_some_and(|it| it.until <= now);
        if is_expired {
            self.readmit(now);
        }
        is_expired
    }

    /// Readmits it.
    pub(super) fn readmit(&mut self, now: Instant) {
        (self.ejected, self.returned) = (None, Some(now));
        self.record_change();
    }
}

impl HealthCheck {
    /// The time until the next check. While the health is changing, checks are frequent enough to settle it within one
    /// interval.
    #[must_use]
    pub fn interval_for(&self, is_unsettled: bool) -> Duration {
        let streak = self.rise.max(self.fall).max(1);
        if is_unsettled { self.interval / streak } else { self.interval }
    }
}

#[cfg(test)]
mod tests;
