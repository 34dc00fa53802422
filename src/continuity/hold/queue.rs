//! The queue of a hold: a machine without I/O and without a clock.
//!
//! Requests go in the order in which they came. Only the first one looks at the time; each one wakes the next when it is
//! admitted, so that the order holds over all workers.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    task::Waker,
    time::{Duration, Instant},
};

#[derive(Debug)]
pub(super) struct HoldQueue {
    phase: Phase,
    places: usize,
    /// By number: a smaller one came earlier.
    waiting: BTreeMap<u64, Waiting>,
    /// How many requests of each client wait.
    clients: HashMap<IpAddr, usize>,
    next: u64,
    /// The request that goes, until it is admitted.
    going: Option<u64>,
    /// When the next request may go, while it is releasing.
    due: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Requests wait until then.
    Holding { until: Instant },
    /// All that wait go at once. The hold goes on until then.
    Flushing { until: Instant },
    /// They go one after the other since then.
    Releasing { since: Instant },
    /// New requests do not wait.
    Open,
}

#[derive(Debug)]
struct Waiting {
    client: Option<IpAddr>,
    waker: Option<Waker>,
}

/// What would happen to a new request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EnterResult {
    Open,
    Wait,
    Full,
}

/// What a waiting request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// It is admitted now.
    Go,
    /// It waits, and asks again at this time if it is not woken before.
    Wait(Option<Instant>),
    /// It is refused: Flipgate stops.
    Refused,
}

/// How long a full queue takes to go.
const RELEASE: Duration = Duration::from_secs(2);

/// The longest time between two requests that go, however few places there are.
const INTERVAL_MAX: Duration = Duration::from_millis(5);

/// How far the pace may catch up after a late wake.
const CATCH_UP: Duration = Duration::from_millis(10);

/// After this time, the rest of the queue goes at once: more requests come than the pace lets go.
const RELEASE_MAX: Duration = Duration::from_secs(4);

/// So many requests of one client may always wait.
const CLIENT_MIN: usize = 8;

// === impl HoldQueue ===

impl HoldQueue {
    pub(super) fn holding(until: Instant, places: usize) -> Self {
        Self {
            phase: Phase::Holding { until },
            places,
            waiting: BTreeMap::new(),
            clients: HashMap::new(),
            next: 0,
            going: None,
            due: until,
        }
    }

    /// Holds until then. Like all changes it returns whom to wake.
    pub(super) fn hold(&mut self, until: Instant, places: usize) -> Option<Waker> {
        self.places = places;
        self.phase = Phase::Holding { until };
        self.first_waker()
    }

    /// Goes on to hold after [`Self::flush`].
    pub(super) fn resume(&mut self, now: Instant) -> Option<Waker> {
        if let Phase::Flushing { until } = self.phase {
            self.phase = Phase::Holding { until };
            self.advance(now);
        }
        self.first_waker()
    }

    pub(super) fn release(&mut self, now: Instant) -> Option<Waker> {
        if let Phase::Holding { .. } | Phase::Flushing { .. } = self.phase {
            self.begin_release(now);
        }
        self.first_waker()
    }

    pub(super) fn flush(&mut self) -> Option<Waker> {
        if let Phase::Holding { until } = self.phase {
            self.phase = Phase::Flushing { until };
        }
        self.first_waker()
    }

    /// The wakers of all that wait.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        self.waiting.values_mut().filter_map(|it| it.waker.take()).collect()
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a request still goes that was let go before the hold began anew.
    pub(super) fn is_letting_go(&self) -> bool {
        self.going.is_some() && matches!(self.phase, Phase::Holding { .. })
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The time until the hold ends by itself, and whether it lets requests go.
    pub(super) fn remaining(&mut self, now: Instant) -> (Duration, bool) {
        self.advance(now);
        match self.phase {
            Phase::Holding { until } | Phase::Flushing { until } => {
                (until.saturating_duration_since(now), false)
            }
            Phase::Releasing { .. } | Phase::Open => (Duration::ZERO, true),
        }
    }

    /// The time until the queue is empty, about.
    pub(super) fn left(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let going = self.interval() * u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        match self.phase {
            Phase::Holding { until } | Phase::Flushing { until } => {
                until.saturating_duration_since(now) + going.min(RELEASE_MAX)
            }
            Phase::Releasing { .. } => going.min(RELEASE_MAX),
            Phase::Open => Duration::ZERO,
        }
    }

    /// What happens to a new request. `client` is `None` for one that may take every place.
    pub(super) fn admits(&mut self, client: Option<IpAddr>, now: Instant) -> EnterResult {
        self.advance(now);
        let waiting = self.waiting.len();
        let is_fair = client.is_none_or(|it| {
            let own = self.clients.get(&it).copied().unwrap_or_default();
            // Some places stay free for other clients, as with the limits of requests in flight.
            own < CLIENT_MIN || own <= self.places.saturating_sub(waiting)
        });
        match self.phase {
            Phase::Open => EnterResult::Open,
            _ if waiting < self.places && is_fair => EnterResult::Wait,
            _ => EnterResult::Full,
        }
    }

    /// Takes a place, and returns its number.
    pub(super) fn enter(&mut self, client: Option<IpAddr>) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(client) = client {
            *self.clients.entry(client).or_default() += 1;
        }
        self.waiting.insert(number, Waiting { client, waker: None });
        number
    }

    pub(super) fn poll_turn(&mut self, number: u64, waker: &Waker, now: Instant) -> Turn {
        self.advance(now);
        let is_first = self.going.is_none() && self.waiting.keys().next() == Some(&number);
        let until = match self.phase {
            _ if !is_first => None,
            Phase::Holding { until } => Some(until),
            Phase::Releasing { since } if now < since + RELEASE_MAX => {
                Some(self.due).filter(|it| now < *it)
            }
            Phase::Releasing { .. } | Phase::Flushing { .. } | Phase::Open => None,
        };
        if is_first && until.is_none() {
            self.remove(number);
            self.going = Some(number);
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            self.due = self.due.max(earliest) + self.interval();
            return Turn::Go;
        }
        if let Some(waiting) = self.waiting.get_mut(&number)
            && !waiting.waker.as_ref().is_some_and(|it| it.will_wake(waker))
        {
            waiting.waker = Some(waker.clone());
        }
        Turn::Wait(until)
    }

    /// Gives a place up, or notes that its request was admitted.
    pub(super) fn leave(&mut self, number: u64) -> Option<Waker> {
        let was_first = self.waiting.keys().next() == Some(&number);
        self.remove(number);
        let was_going = self.going == Some(number);
        if was_going {
            self.going = None;
        }
        let is_empty = self.waiting.is_empty() && self.going.is_none();
        if is_empty && matches!(self.phase, Phase::Releasing { .. }) {
            self.phase = Phase::Open;
        }
        if was_first || was_going { self.first_waker() } else { None }
    }

    fn remove(&mut self, number: u64) {
        let Some(Waiting { client, .. }) = self.waiting.remove(&number) else { return };
        if let Some(client) = client
            && let Some(own) = self.clients.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Notes what follows from the time.
    fn advance(&mut self, now: Instant) {
        if let Phase::Holding { until } | Phase::Flushing { until } = self.phase
            && now >= until
        {
            self.begin_release(now);
        }
    }

    fn begin_release(&mut self, now: Instant) {
        let is_empty = self.waiting.is_empty() && self.going.is_none();
        self.phase = if is_empty { Phase::Open } else { Phase::Releasing { since: now } };
        self.due = now;
    }

    /// The time between two requests that go.
    fn interval(&self) -> Duration {
        let places = u32::try_from(self.places.max(1)).unwrap_or(u32::MAX);
        (RELEASE / places).min(INTERVAL_MAX)
    }

    /// The waker of the first request, which then looks at the time.
    fn first_waker(&mut self) -> Option<Waker> {
        self.waiting.values_mut().next()?.waker.take()
    }
}
