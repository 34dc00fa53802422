//! How one endpoint is doing, by what its checks and its requests have found.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::model::{Ejection, Health, HealthCheck};

/// What is wrong with an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthFailure {
    /// What it means for requests.
    pub kind: FailureKind,
    /// What it is, in words.
    pub detail: Arc<str>,
}

/// What trouble with an endpoint means for requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// It answers, but not as it should.
    BadResponse,
    /// It takes no connections. Those that are open end as they should.
    Refused,
    /// Nothing is heard of it: what is open may stay so for ever.
    Unresponsive,
}

/// How an endpoint is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointHealth {
    /// What its checks have found.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
    /// What they found wrong, while it is down.
    pub failure: Option<HealthFailure>,
    /// Whether it is left out for what requests got of it.
    pub ejected: Option<Ejected>,
}

/// Being left out for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejected {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: Arc<str>,
}

/// How willingly an endpoint is chosen. In the order of preference.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(super) enum Tier {
    /// Nothing is known against it.
    Healthy = 0,
    /// Nobody has looked at it yet.
    Unchecked = 1,
    /// It is left out for what requests got of it.
    Ejected = 2,
    /// Its checks say that it answers badly.
    Unhealthy = 3,
    /// It takes no connections.
    Refusing = 4,
    /// Nothing is heard of it.
    Unresponsive = 5,
}

/// What is known of an endpoint, with what was counted to know it.
#[derive(Debug)]
pub(super) struct HealthState {
    health: Health,
    since: Timestamp,
    failure: Option<HealthFailure>,
    /// Whether it was ever up.
    was_up: bool,
    /// Checks in a row that said otherwise than `health`.
    contrary: u32,
    /// Connections in a row that requests could not open.
    connect_failures: u32,
    ejected: Option<EjectedUntil>,
    /// How often it was ejected, without a long good time in between.
    ejections: u32,
    returned: Option<Instant>,
    /// Conditions that nobody has been told of.
    changes: VecDeque<EndpointHealth>,
}

/// Conditions that are kept until somebody asks for them, several times a second.
const CHANGES_MAX: usize = 16;

/// Being left out, by the clock that is not set.
#[derive(Debug)]
struct EjectedUntil {
    public: Ejected,
    since: Instant,
    until: Instant,
}

// === impl HealthFailure ===

impl HealthFailure {
    /// It answers, but not as it should.
    pub fn bad_response(reason: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::BadResponse, detail: reason.into() }
    }

    /// It takes no connections.
    pub fn refused(reason: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Refused, detail: reason.into() }
    }

    /// Nothing is heard of it.
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
            ejected: None,
            ejections: 0,
            returned: None,
            changes: VecDeque::new(),
        }
    }

    /// The conditions that it came to since this was asked the last time, in order.
    pub(super) fn take_changes(&mut self) -> Vec<EndpointHealth> {
        // The memory is given back: most endpoints never have any again.
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

    /// Whether it is not as it was long enough, so that it should be looked at more often.
    pub(super) fn needs_frequent_checks(&self) -> bool {
        self.health != Health::Up || self.is_transitioning()
    }

    /// Whether its last check said otherwise than those before.
    pub(super) fn is_transitioning(&self) -> bool {
        self.contrary > 0
    }

    /// If it is down and was never up: what is wrong with it.
    pub(super) fn startup_failure(&self) -> Option<FailureKind> {
        let is_starting = self.health == Health::Down && !self.was_up;
        self.failure.as_ref().filter(|_| is_starting).map(|it| it.kind)
    }

    /// Takes the result of a check. The first check decides, and the first success does: `rise` is for an
    /// endpoint that was up and failed. Other results have to agree with each other.
    pub(super) fn record_check(&mut self, found: Result<(), HealthFailure>, check: &HealthCheck) {
        let (health, needed) = match (&found, self.health) {
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
        if self.contrary >= needed {
            self.set_health(health, found.err());
        }
    }

    /// Takes that a request could not open a connection. As good as a check that failed. Returns whether
    /// it is down for that from now on.
    pub(super) fn record_connect_failure(&mut self, failure: HealthFailure, fall: u32) -> bool {
        self.connect_failures = self.connect_failures.saturating_add(1);
        let is_now_down = self.connect_failures >= fall && self.health != Health::Down;
        if is_now_down {
            self.set_health(Health::Down, Some(failure));
        }
        is_now_down
    }

    /// Takes that a request could open one.
    pub(super) fn record_connect_success(&mut self) {
        self.connect_failures = 0;
    }

    fn set_health(&mut self, health: Health, failure: Option<HealthFailure>) {
        (self.health, self.failure, self.since) = (health, failure, Timestamp::now());
        (self.contrary, self.connect_failures) = (0, 0);
        self.was_up |= health == Health::Up;
        self.record_change();
    }

    /// Whether there are conditions that nobody has been told of.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn was_ejected(&self) -> bool {
        self.ejections > 0
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    /// Since when it is left out, if it is.
    pub(super) fn ejected_since(&self) -> Option<Instant> {
        self.ejected.as_ref().map(|it| it.since)
    }

    /// Leaves it out from `now` on: longer each time, unless it was good for a long time.
    pub(super) fn eject(&mut self, reason: Arc<str>, rules: &Ejection, now: Instant) {
        let was_good = |it: Instant| now.saturating_duration_since(it) > rules.longest;
        if self.returned.is_some_and(was_good) {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let time = rules.base.saturating_mul(self.ejections).min(rules.longest);
        let since = Timestamp::now();
        let until = since.checked_add(time).unwrap_or(Timestamp::MAX);
        let public = Ejected { since, until, reason };
        self.ejected = Some(EjectedUntil { public, since: now, until: now + time });
        self.record_change();
    }

    /// Lets it in again if its time is over.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let is_over = self.ejected.as_ref().is_some_and(|it| it.until <= now);
        if is_over {
            self.readmit(now);
        }
        is_over
    }

    /// Lets it in again.
    pub(super) fn readmit(&mut self, now: Instant) {
        (self.ejected, self.returned) = (None, Some(now));
        self.record_change();
    }
}

impl HealthCheck {
    /// How long to wait for the next look: an endpoint that is not settled is looked at as often as it
    /// takes to know within one interval.
    #[must_use]
    pub fn interval_for(&self, is_unsettled: bool) -> Duration {
        let needed = self.rise.max(self.fall).max(1);
        if is_unsettled { self.interval / needed } else { self.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed_check() -> Result<(), HealthFailure> {
        Err(HealthFailure::bad_response("500"))
    }

    #[test]
    fn the_first_check_decides_and_later_ones_need_a_streak() {
        let check = HealthCheck { rise: 2, fall: 3, ..HealthCheck::default() };
        let mut state = HealthState::unknown();
        assert_eq!(state.tier(), Tier::Unchecked);
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Healthy);
        for found in [failed_check(), failed_check(), Ok(()), failed_check(), failed_check()] {
            state.record_check(found, &check);
            assert_eq!(state.tier(), Tier::Healthy, "never three in a row");
        }
        state.record_check(failed_check(), &check);
        assert_eq!(state.tier(), Tier::Unhealthy);
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Unhealthy, "it was up: one is not enough");
        state.record_check(Err(HealthFailure::refused("refused")), &check);
        assert_eq!(state.tier(), Tier::Refusing, "what is wrong may change");
        state.record_check(Err(HealthFailure::unresponsive("no answer")), &check);
        assert_eq!(state.tier(), Tier::Unresponsive);
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Unresponsive, "never two in a row");
        state.record_check(Ok(()), &check);
        assert_eq!((state.tier(), state.details().failure), (Tier::Healthy, None));
    }

    #[test]
    fn the_first_success_of_an_endpoint_that_was_never_up_is_enough() {
        let check = HealthCheck { rise: 3, fall: 1, ..HealthCheck::default() };
        let mut state = HealthState::unknown();
        assert_eq!(state.startup_failure(), None, "it was not checked yet");
        state.record_check(Err(HealthFailure::refused("refused")), &check);
        assert_eq!(state.startup_failure(), Some(FailureKind::Refused));
        state.record_check(failed_check(), &check);
        assert_eq!(state.startup_failure(), Some(FailureKind::BadResponse));
        state.record_check(Ok(()), &check);
        assert_eq!((state.tier(), state.startup_failure()), (Tier::Healthy, None));
        state.record_check(failed_check(), &check);
        assert_eq!((state.tier(), state.startup_failure()), (Tier::Unhealthy, None), "it was up");
        for _ in 0..2 {
            state.record_check(Ok(()), &check);
            assert_eq!(state.tier(), Tier::Unhealthy);
        }
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Healthy);
        let mut state = HealthState::unknown();
        assert!(
            state.record_connect_failure(HealthFailure::refused("refused"), 1),
            "found by a request"
        );
        assert_eq!(state.startup_failure(), Some(FailureKind::Refused));
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Healthy);
    }

    #[test]
    fn connect_failures_of_requests_count_as_failed_checks() {
        let mut state = HealthState::unknown();
        let failure = || HealthFailure::refused("refused");
        state.record_connect_failure(failure(), 3);
        state.record_connect_failure(failure(), 3);
        state.record_connect_success();
        state.record_connect_failure(failure(), 3);
        state.record_connect_failure(failure(), 3);
        assert_eq!(state.tier(), Tier::Unchecked);
        state.record_connect_failure(failure(), 3);
        assert_eq!(state.tier(), Tier::Refusing);
    }

    #[test]
    fn repeated_ejections_last_longer() {
        let rules = Ejection::default();
        let mut state = HealthState::unknown();
        state.record_check(Ok(()), &HealthCheck::default());
        let mut now = Instant::now();
        for seconds in [30, 60, 90] {
            state.eject("503".into(), &rules, now);
            assert_eq!(state.tier(), Tier::Ejected);
            assert!(!state.release(now + Duration::from_secs(seconds - 1)));
            now += Duration::from_secs(seconds);
            assert!(state.release(now), "after {seconds} s");
            assert_eq!(state.tier(), Tier::Healthy);
        }
        now += rules.longest + Duration::from_secs(1);
        state.eject("503".into(), &rules, now);
        assert!(state.release(now + rules.base), "a long good time is remembered");
        let ejected: Vec<_> = state.take_changes().iter().map(|it| it.ejected.is_some()).collect();
        assert_eq!(ejected, [false, true, false, true, false, true, false, true, false]);
        assert!(state.take_changes().is_empty(), "news are told once");
    }

    #[test]
    fn an_endpoint_in_transition_is_checked_often_enough_to_settle_within_an_interval() {
        let check = HealthCheck { rise: 2, fall: 4, ..HealthCheck::default() };
        assert_eq!(check.interval_for(false), check.interval);
        assert_eq!(check.interval_for(true) * check.fall, check.interval);
    }
}
