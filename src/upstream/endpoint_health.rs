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
    pub what: Arc<str>,
}

/// What trouble with an endpoint means for requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// It answers, but not as it should.
    Answers,
    /// It takes no connections. Those that are open end as they should.
    Refuses,
    /// Nothing is heard of it: what is open may stay so for ever.
    Silent,
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
    pub what: Arc<str>,
}

/// How willingly an endpoint is chosen. In the order of preference.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(super) enum Tier {
    /// Nothing is known against it.
    Good = 0,
    /// Nobody has looked at it yet.
    Untried = 1,
    /// It is left out for what requests got of it.
    Ejected = 2,
    /// Its checks say that it answers badly.
    Shunned = 3,
    /// It takes no connections.
    Gone = 4,
    /// Nothing is heard of it.
    Silent = 5,
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
    against: u32,
    /// Connections in a row that requests could not open.
    missed: u32,
    ejected: Option<EjectedUntil>,
    /// How often it was ejected, without a long good time in between.
    ejections: u32,
    returned: Option<Instant>,
    /// Conditions that nobody has been told of.
    news: VecDeque<EndpointHealth>,
}

/// Conditions that are kept until somebody asks for them, several times a second.
const NEWS_MAX: usize = 16;

/// Being left out, by the clock that is not set.
#[derive(Debug)]
struct EjectedUntil {
    told: Ejected,
    since: Instant,
    until: Instant,
}

// === impl HealthFailure ===

impl HealthFailure {
    /// It answers, but not as it should.
    pub fn answers(what: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Answers, what: what.into() }
    }

    /// It takes no connections.
    pub fn refuses(what: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Refuses, what: what.into() }
    }

    /// Nothing is heard of it.
    pub fn silent(what: impl Into<Arc<str>>) -> Self {
        Self { kind: FailureKind::Silent, what: what.into() }
    }
}

// === impl Tier ===

impl Tier {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Good,
            1 => Self::Untried,
            2 => Self::Ejected,
            3 => Self::Shunned,
            4 => Self::Gone,
            _ => Self::Silent,
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
            against: 0,
            missed: 0,
            ejected: None,
            ejections: 0,
            returned: None,
            news: VecDeque::new(),
        }
    }

    /// The conditions that it came to since this was asked the last time, in order.
    pub(super) fn news(&mut self) -> Vec<EndpointHealth> {
        // The memory is given back: most endpoints never have any again.
        std::mem::take(&mut self.news).into()
    }

    fn note(&mut self) {
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(self.condition());
    }

    pub(super) fn standing(&self) -> Tier {
        match (self.health, self.failure.as_ref().map(|it| it.kind)) {
            (Health::Down, Some(FailureKind::Silent)) => Tier::Silent,
            (Health::Down, Some(FailureKind::Refuses)) => Tier::Gone,
            (Health::Down, _) => Tier::Shunned,
            _ if self.is_ejected() => Tier::Ejected,
            (Health::Unknown, _) => Tier::Untried,
            (Health::Up, _) => Tier::Good,
        }
    }

    pub(super) fn condition(&self) -> EndpointHealth {
        let failure = self.failure.clone().filter(|_| self.health == Health::Down);
        let ejected = self.ejected.as_ref().map(|it| it.told.clone());
        EndpointHealth { health: self.health, since: self.since, failure, ejected }
    }

    /// Whether it is not as it was long enough, so that it should be looked at more often.
    pub(super) fn is_unsettled(&self) -> bool {
        self.health != Health::Up || self.is_turning()
    }

    /// Whether its last check said otherwise than those before.
    pub(super) fn is_turning(&self) -> bool {
        self.against > 0
    }

    /// If it is down and was never up: what is wrong with it.
    pub(super) fn starting(&self) -> Option<FailureKind> {
        let is_starting = self.health == Health::Down && !self.was_up;
        self.failure.as_ref().filter(|_| is_starting).map(|it| it.kind)
    }

    /// Takes the result of a check. The first check decides, and the first success does: `rise` is for an
    /// endpoint that was up and failed. Other results have to agree with each other.
    pub(super) fn checked(&mut self, found: Result<(), HealthFailure>, check: &HealthCheck) {
        let (health, needed) = match (&found, self.health) {
            (Ok(()), Health::Up) => {
                (self.against, self.missed) = (0, 0);
                return;
            }
            (Err(failure), Health::Down) => {
                self.against = 0;
                self.failure = Some(failure.clone());
                return;
            }
            (Ok(()), Health::Down) if !self.was_up => (Health::Up, 1),
            (Ok(()), Health::Down) => (Health::Up, check.rise),
            (Err(_), Health::Up) => (Health::Down, check.fall),
            (Ok(()), Health::Unknown) => (Health::Up, 1),
            (Err(_), Health::Unknown) => (Health::Down, 1),
        };
        self.against += 1;
        if self.against >= needed {
            self.turn(health, found.err());
        }
    }

    /// Takes that a request could not open a connection. As good as a check that failed. Returns whether
    /// it is down for that from now on.
    pub(super) fn missed(&mut self, failure: HealthFailure, fall: u32) -> bool {
        self.missed = self.missed.saturating_add(1);
        let is_turned = self.missed >= fall && self.health != Health::Down;
        if is_turned {
            self.turn(Health::Down, Some(failure));
        }
        is_turned
    }

    /// Takes that a request could open one.
    pub(super) fn reached(&mut self) {
        self.missed = 0;
    }

    fn turn(&mut self, health: Health, failure: Option<HealthFailure>) {
        (self.health, self.failure, self.since) = (health, failure, Timestamp::now());
        (self.against, self.missed) = (0, 0);
        self.was_up |= health == Health::Up;
        self.note();
    }

    /// Whether there are conditions that nobody has been told of.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
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
    pub(super) fn eject(&mut self, what: Arc<str>, rules: &Ejection, now: Instant) {
        let was_good = |it: Instant| now.saturating_duration_since(it) > rules.longest;
        if self.returned.is_some_and(was_good) {
            self.ejections = 0;
        }
        self.ejections = self.ejections.saturating_add(1);
        let time = rules.base.saturating_mul(self.ejections).min(rules.longest);
        let since = Timestamp::now();
        let until = since.checked_add(time).unwrap_or(Timestamp::MAX);
        let told = Ejected { since, until, what };
        self.ejected = Some(EjectedUntil { told, since: now, until: now + time });
        self.note();
    }

    /// Lets it in again if its time is over.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let is_over = self.ejected.as_ref().is_some_and(|it| it.until <= now);
        if is_over {
            self.let_in(now);
        }
        is_over
    }

    /// Lets it in again.
    pub(super) fn let_in(&mut self, now: Instant) {
        (self.ejected, self.returned) = (None, Some(now));
        self.note();
    }
}

impl HealthCheck {
    /// How long to wait for the next look: an endpoint that is not settled is looked at as often as it
    /// takes to know within one interval.
    #[must_use]
    pub fn pause(&self, is_unsettled: bool) -> Duration {
        let needed = self.rise.max(self.fall).max(1);
        if is_unsettled { self.interval / needed } else { self.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> Result<(), HealthFailure> {
        Err(HealthFailure::answers("500"))
    }

    #[test]
    fn the_first_look_decides_and_later_ones_have_to_agree() {
        let check = HealthCheck { rise: 2, fall: 3, ..HealthCheck::default() };
        let mut state = HealthState::unknown();
        assert_eq!(state.standing(), Tier::Untried);
        state.checked(Ok(()), &check);
        assert_eq!(state.standing(), Tier::Good);
        for found in [bad(), bad(), Ok(()), bad(), bad()] {
            state.checked(found, &check);
            assert_eq!(state.standing(), Tier::Good, "never three in a row");
        }
        state.checked(bad(), &check);
        assert_eq!(state.standing(), Tier::Shunned);
        state.checked(Ok(()), &check);
        assert_eq!(state.standing(), Tier::Shunned, "it was up: one is not enough");
        state.checked(Err(HealthFailure::refuses("refused")), &check);
        assert_eq!(state.standing(), Tier::Gone, "what is wrong may change");
        state.checked(Err(HealthFailure::silent("no answer")), &check);
        assert_eq!(state.standing(), Tier::Silent);
        state.checked(Ok(()), &check);
        assert_eq!(state.standing(), Tier::Silent, "never two in a row");
        state.checked(Ok(()), &check);
        assert_eq!((state.standing(), state.condition().failure), (Tier::Good, None));
    }

    #[test]
    fn the_first_success_of_an_endpoint_that_was_never_up_is_enough() {
        let check = HealthCheck { rise: 3, fall: 1, ..HealthCheck::default() };
        let mut state = HealthState::unknown();
        assert_eq!(state.starting(), None, "it was not checked yet");
        state.checked(Err(HealthFailure::refuses("refused")), &check);
        assert_eq!(state.starting(), Some(FailureKind::Refuses));
        state.checked(bad(), &check);
        assert_eq!(state.starting(), Some(FailureKind::Answers));
        state.checked(Ok(()), &check);
        assert_eq!((state.standing(), state.starting()), (Tier::Good, None));
        state.checked(bad(), &check);
        assert_eq!((state.standing(), state.starting()), (Tier::Shunned, None), "it was up");
        for _ in 0..2 {
            state.checked(Ok(()), &check);
            assert_eq!(state.standing(), Tier::Shunned);
        }
        state.checked(Ok(()), &check);
        assert_eq!(state.standing(), Tier::Good);
        let mut state = HealthState::unknown();
        assert!(state.missed(HealthFailure::refuses("refused"), 1), "found by a request");
        assert_eq!(state.starting(), Some(FailureKind::Refuses));
        state.checked(Ok(()), &check);
        assert_eq!(state.standing(), Tier::Good);
    }

    #[test]
    fn connections_that_cannot_be_opened_count_as_checks() {
        let mut state = HealthState::unknown();
        let failure = || HealthFailure::refuses("refused");
        state.missed(failure(), 3);
        state.missed(failure(), 3);
        state.reached();
        state.missed(failure(), 3);
        state.missed(failure(), 3);
        assert_eq!(state.standing(), Tier::Untried);
        state.missed(failure(), 3);
        assert_eq!(state.standing(), Tier::Gone);
    }

    #[test]
    fn who_is_ejected_again_and_again_stays_out_for_longer() {
        let rules = Ejection::default();
        let mut state = HealthState::unknown();
        state.checked(Ok(()), &HealthCheck::default());
        let mut now = Instant::now();
        for seconds in [30, 60, 90] {
            state.eject("503".into(), &rules, now);
            assert_eq!(state.standing(), Tier::Ejected);
            assert!(!state.release(now + Duration::from_secs(seconds - 1)));
            now += Duration::from_secs(seconds);
            assert!(state.release(now), "after {seconds} s");
            assert_eq!(state.standing(), Tier::Good);
        }
        now += rules.longest + Duration::from_secs(1);
        state.eject("503".into(), &rules, now);
        assert!(state.release(now + rules.base), "a long good time is remembered");
        let ejected: Vec<_> = state.news().iter().map(|it| it.ejected.is_some()).collect();
        assert_eq!(ejected, [false, true, false, true, false, true, false, true, false]);
        assert!(state.news().is_empty(), "news are told once");
    }

    #[test]
    fn who_is_not_settled_is_looked_at_often_enough_to_know_within_an_interval() {
        let check = HealthCheck { rise: 2, fall: 4, ..HealthCheck::default() };
        assert_eq!(check.pause(false), check.interval);
        assert_eq!(check.pause(true) * check.fall, check.interval);
    }
}
