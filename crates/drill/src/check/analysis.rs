//! Facts that the checks need: which flips happened, which requests show it, which failures a kill excuses, and which
//! `drained` event a request must end before.

use std::collections::BTreeMap;

use super::{
    super::record::{
        DrainedEvent, Flip, FlipOutcome, History, Kill, KilledProcess, Kind, Outcome, Request,
    },
    pins::Transactions,
    register::{RegisterRead, RegisterWrite},
};
use crate::color::Color;

/// The time for the repair of a color that failed on purpose: 1 s, in nanoseconds.
const REPAIR: u64 = 1_000_000_000;

/// A time in which the active color of a service is not known, or in which clients get both colors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UnknownPeriod {
    service: u8,
    from: u64,
    until: u64,
}

/// The time after the kill of an endpoint in which it may not be up again, although it was started: 10 s, in nanoseconds.
const RESTART: u64 = 10_000_000_000;

/// The kills of the drill, which excuse some failures.
pub(super) struct Excuses<'a> {
    history: &'a History,
}

/// For each service and color, the first `drained` event after each flip away from the color.
pub(super) struct FirstDrains {
    /// In the order of the flips away from the color: when the next flip back was called, and the first event of this
    /// flip or a later one.
    by_service: Vec<[Vec<(u64, DrainedEvent)>; 2]>,
}

// === impl Explanations ===

impl<'a> Excuses<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        Self { history }
    }

    /// Whether a kill excuses the failure of a request. A kill of the proxy excuses a missing or incomplete response,
    /// but not wrong content. A kill of an endpoint excuses its own requests, and those that cannot be retried on
    /// another endpoint. A kill of the last endpoint of a color excuses all requests that may have been routed there.
    pub(super) fn is_excused(&self, request: &Request) -> bool {
        let is_loss = match request.outcome {
            Outcome::NotConnected
            | Outcome::NoResponse
            | Outcome::Truncated
            | Outcome::TimedOut => true,
            Outcome::ErrorStatus(code) => code >= 500,
            _ => false,
        };
        is_loss && (self.is_of_bad_color(request) || self.is_of_kill(request))
    }

    /// Whether a color that failed on purpose may have answered the request with an error.
    fn is_of_bad_color(&self, request: &Request) -> bool {
        let Request { began, ended, service, outcome, .. } = *request;
        outcome == Outcome::ErrorStatus(500)
            && self.history.trials.iter().any(|it| {
                let is_own = it.service == service && request.color == Some(it.color);
                // The endpoints are repaired soon after `until`.
                is_own && ended >= it.from && began <= it.until.saturating_add(REPAIR)
            })
    }

    fn is_of_kill(&self, request: &Request) -> bool {
        self.kills_during(request).any(|kill| match kill.process {
            KilledProcess::Proxy => true,
            KilledProcess::Upstream { instance, .. } if request.instance != 0 => {
                request.instance == instance
            }
            KilledProcess::Upstream { color, was_last, .. } => {
                (was_last || !request.kind.is_repeatable()) && self.may_have_reached(request, color)
            }
        })
    }

    /// Whether a color may have had no endpoint for a request of a transaction that began there, since the drill had killed
    /// one. A pin to a color without an endpoint that is up is void.
    pub(super) fn may_have_lost_its_color(
        &self,
        request: &Request,
        began: u64,
        color: Color,
    ) -> bool {
        self.may_have_no_endpoint(request.service, color, (began, request.ended))
    }

    /// Whether a color may have had no endpoint that is up for some of a time: the drill had killed the last one, or several
    /// soon after each other, so that the first one was not up again.
    pub(super) fn may_have_no_endpoint(
        &self,
        service: u8,
        color: Color,
        (from, until): (u64, u64),
    ) -> bool {
        let kills = self.history.kills.iter().filter_map(|kill| match kill.process {
            KilledProcess::Upstream { service: of, color: killed, instance, was_last }
                if (of, killed) == (service, color) =>
            {
                Some((kill, instance, was_last))
            }
            _ => None,
        });
        let kills: Vec<_> = kills.collect();
        let is_last = |(kill, instance, was_last): &(&Kill, u16, bool)| {
            let is_soon_after = |(other, of, _): &(&Kill, u16, bool)| {
                of != instance && other.from <= kill.from && kill.from - other.from <= RESTART
            };
            *was_last || kills.iter().any(is_soon_after)
        };
        let was_without =
            |it: &(&Kill, u16, bool)| is_last(it) && it.0.from <= until && it.0.until >= from;
        kills.iter().any(was_without)
    }

    /// Whether a request was in flight when a process was killed that it may have reached, so that a retry is right.
    pub(super) fn may_be_repeated(&self, request: &Request) -> bool {
        self.kills_during(request).any(|kill| match kill.process {
            KilledProcess::Proxy => true,
            KilledProcess::Upstream { color, .. } => self.may_have_reached(request, color),
        })
    }

    /// The kills during a request: of the proxy, or of an endpoint of its service.
    fn kills_during(&self, request: &Request) -> impl Iterator<Item = &'a Kill> {
        let Request { began, ended, service, .. } = *request;
        self.history.kills.iter().filter(move |kill| {
            let is_own = match kill.process {
                KilledProcess::Proxy => true,
                KilledProcess::Upstream { service: it, .. } => it == service,
            };
            is_own && began <= kill.until && ended >= kill.from
        })
    }

    /// Whether a request may have been routed to a color: the color was active during the request, or a tester asked
    /// for it.
    fn may_have_reached(&self, request: &Request, color: Color) -> bool {
        if request.kind == Kind::Preview || self.history.gradual.iter().any(|it| it.covers(request))
        {
            return true;
        }
        let History { initial, flips, .. } = self.history;
        let Some(mut active) = initial.get(usize::from(request.service)).copied() else {
            return false;
        };
        let mut since = 0;
        for flip in flips.iter().filter(|it| it.outcome != FlipOutcome::Refused) {
            let change = flip.changes.iter().find(|it| it.0 == request.service);
            let Some((_, to)) = change else { continue };
            let overlaps = since <= request.ended && flip.acknowledged >= request.began;
            if overlaps && (active == color || flip.outcome == FlipOutcome::Unknown) {
                return true;
            }
            (active, since) = (*to, flip.called);
        }
        active == color && since <= request.ended
    }

    /// Whether the proxy was stopped at some time between these.
    pub(super) fn is_proxy_gone(&self, from: u64, until: u64) -> bool {
        let kills = &self.history.kills;
        let mut kills = kills.iter().filter(|it| it.process == KilledProcess::Proxy);
        kills.any(|kill| from <= kill.until && until >= kill.from)
    }
}

/// The flips that happened, and the times in which the result of a flip is not known.
pub(super) fn writes(flips: &[Flip]) -> (Vec<RegisterWrite>, Vec<UnknownPeriod>) {
    let (mut writes, mut uncertain): (Vec<RegisterWrite>, Vec<UnknownPeriod>) =
        (Vec::new(), Vec::new());
    for (index, flip) in flips.iter().enumerate() {
        match flip.outcome {
            FlipOutcome::Refused => {}
            FlipOutcome::Unknown => uncertain.extend(flip.changes.iter().map(|(service, _)| {
                UnknownPeriod { service: *service, from: flip.called, until: u64::MAX }
            })),
            FlipOutcome::Acknowledged => {
                let mut is_reset = false;
                for (service, _) in &flip.changes {
                    let open =
                        |it: &&mut UnknownPeriod| it.service == *service && it.until == u64::MAX;
                    for it in uncertain.iter_mut().filter(open) {
                        it.until = flip.acknowledged;
                        is_reset = true;
                    }
                }
                writes.push(RegisterWrite {
                    flip: index,
                    changes: flip.changes.clone(),
                    called: flip.called,
                    acknowledged: flip.acknowledged,
                    is_reset,
                });
            }
        }
    }
    (writes, uncertain)
}

/// The times in which a gradual promotion gave clients of a service different colors.
pub(super) fn gradual_periods(history: &History) -> impl Iterator<Item = UnknownPeriod> {
    history.gradual.iter().map(|it| UnknownPeriod {
        service: it.service,
        from: it.from,
        until: it.until,
    })
}

/// What the responses to public clients show of the routing table.
pub(super) fn reads(history: &History, uncertain: &[UnknownPeriod]) -> Vec<RegisterRead> {
    let requests = history.requests.iter().enumerate();
    let transactions = Transactions::of(history);
    // The color of a preview is the choice of the tester, and the first request of a transaction decides that of the others.
    let public = requests.filter(|(_, it)| {
        it.kind != Kind::Preview && it.head != 0 && !transactions.may_keep_color(it)
    });
    let reads = public.filter_map(|(index, it)| {
        let Request { service, began, .. } = *it;
        Some(RegisterRead { request: index, service, color: it.color?, began, ended: it.routed() })
    });
    let is_certain = |read: &RegisterRead| {
        !uncertain
            .iter()
            .any(|it| it.service == read.service && read.began <= it.until && read.ended >= it.from)
    };
    reads.filter(is_certain).collect()
}

pub(super) fn first_drains(history: &History, drained: &[DrainedEvent]) -> FirstDrains {
    let services = 0..u8::try_from(history.services.len()).unwrap_or(u8::MAX);
    let mut events: BTreeMap<(u8, Color, u64), DrainedEvent> = BTreeMap::new();
    for it in drained {
        let first = events.entry((it.service, it.color, it.generation)).or_insert(*it);
        first.received = first.received.min(it.received);
    }
    let drains = |service: u8, color: Color| {
        let (mut drains, mut back) = (Vec::new(), u64::MAX);
        // From the last flip back, so that each has the first event of itself and all later ones. A color without
        // requests since an earlier flip has no event of its own.
        let mut first: Option<DrainedEvent> = None;
        for flip in history.flips.iter().rev().filter(|it| it.outcome != FlipOutcome::Refused) {
            if flip.changes.contains(&(service, color)) {
                back = flip.called;
            }
            if flip.outcome != FlipOutcome::Acknowledged
                || !flip.changes.contains(&(service, color.other()))
            {
                continue;
            }
            let own = flip.generation.and_then(|it| events.get(&(service, color, it)));
            first = own.copied().into_iter().chain(first).min_by_key(|it| it.received);
            drains.extend(first.map(|it| (back, it)));
        }
        drains.reverse();
        drains
    };
    FirstDrains {
        by_service: services.map(|it| Color::BOTH.map(|color| drains(it, color))).collect(),
    }
}

// === impl FirstDrains ===

impl FirstDrains {
    /// The first `drained` event of `color` that this request must end before: the event of a flip away from the color,
    /// where the request was routed before the next flip back was called. A response by a color that is not active
    /// again yet belongs to a request that was routed before the color was replaced.
    pub(super) fn first_after(&self, request: &Request, color: Color) -> Option<DrainedEvent> {
        let drains = &self.by_service.get(usize::from(request.service))?[color as usize];
        let first = drains.partition_point(|(back, _)| *back <= request.routed());
        drains.get(first).map(|(_, drained)| *drained)
    }
}
