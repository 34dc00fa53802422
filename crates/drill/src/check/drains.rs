//! Checks that each `drained` event comes in time, and not too early.
//!
//! # The promise
//!
//! When the last request of an inactive color has ended, the proxy sends a `drained` event. Its generation is that of
//! any flip that replaced the color since it was drained last. If the color becomes active before its last request has
//! ended, no event is due. So the check takes each flip away from a color: if all requests that may have been routed to
//! the color ended at least [`BOUND`] before the color could be active again, there must be an event. An event must not
//! come later than the bound.

use std::collections::HashMap;

use super::{
    super::record::{DrainedEvent, Flip, FlipOutcome, History, Kind, Outcome, Request},
    Promise, analysis,
    checker::{Checker, FindingBuilder, format_millis},
    pins::CLOCK,
};
use crate::color::Color;

/// The longest delay from the end of the last request to its event: 500 ms, in nanoseconds. [`DELAY_FACTOR`] times the
/// delay of the drill's own timer is added.
pub(crate) const BOUND: u64 = 500_000_000;

/// Until an event is received, a busy machine must run three tasks: the end of the request, the event, its receiver.
const DELAY_FACTOR: u64 = 3;

/// A time in which a color of a service is not active.
struct InactivePeriod<'a> {
    service: u8,
    color: Color,
    /// The flip with which it begins.
    flip: &'a Flip,
    /// When the flip to the color before that was acknowledged; 0 if there was none.
    active_since: u64,
    /// When the next flip to the color was called, if there is one, and its generation.
    next_active: u64,
    next_generation: Option<u64>,
}

/// The latest ends of the requests of one color of a service.
#[derive(Default)]
struct LastRequestEnds {
    /// By the begin of the request, with all requests that may have been routed to the color. Sorted.
    by_begin: Vec<(u64, u64)>,
    /// By the time of routing, with public requests of the color. Sorted.
    by_decision: Vec<(u64, u64)>,
}

/// The events of one color of a service.
#[derive(Default)]
struct DrainEvents {
    /// When the first event of each generation was received.
    first: HashMap<u64, u64>,
    /// All, in the order of their reception.
    all: Vec<DrainedEvent>,
}

impl Checker<'_> {
    /// Checks that no request of a color was in flight after the `drained` event of the color.
    pub(super) fn check_drains(&mut self) {
        let mut builder = FindingBuilder::new(Promise::Drained);
        let Some(drained) = &self.history.drained else {
            return self.push_finding(builder.unchecked("the proxy reports no drains"));
        };
        let first = analysis::first_drains(self.history, drained);
        for request in &self.history.requests {
            let (Some(color), 1..) = (request.color, request.active_at) else { continue };
            // Previews can begin at any time, and so can public requests with a preview header that the proxy obeyed.
            // Responses of the wrong color are reported by another promise.
            let asks_for_color = matches!(request.kind, Kind::Preview | Kind::RefusedPreview);
            // The proxy may ask a drained color for an asset that the active one does not have.
            if asks_for_color
                || request.is_asset()
                || self.has_unfinished_share(request, color)
                || self.wrong_color_requests.contains(&request.id)
            {
                continue;
            }
            let Some(DrainedEvent { received, generation, .. }) = first.first_after(request, color)
            else {
                continue;
            };
            builder.finding.checked += 1;
            if received < request.active_at {
                let text = format!(
                    "the `drained` event of {color} (generation {generation}) came at {}, but {} was still in flight \
                     {} later",
                    self.format_time(received),
                    self.request_name(request),
                    format_millis(request.active_at - received),
                );
                builder.break_at(received, text);
            }
        }
        self.check_events(drained, &mut builder);
        self.check_candidates(drained, &mut builder);
        if builder.finding.checked == 0 && builder.finding.broken == 0 {
            builder = builder.unchecked("no color drained while a request was in flight");
        }
        self.push_finding(builder);
    }

    /// Whether the color may have got the request by a gradual promotion that was not finished: no flip tells of it.
    fn has_unfinished_share(&self, request: &Request, color: Color) -> bool {
        let History { gradual, flips, .. } = self.history;
        gradual.iter().any(|it| {
            let is_flip_of_it = |flip: &Flip| {
                flip.called == it.from && flip.changes.contains(&(it.service, it.color))
            };
            it.color == color && it.covers(request) && !flips.iter().any(is_flip_of_it)
        })
    }

    /// Checks that each due event came, and in time.
    fn check_events(&self, drained: &[DrainedEvent], builder: &mut FindingBuilder) {
        let ends = last_request_ends(self.history);
        let mut events: HashMap<(u8, Color), DrainEvents> = HashMap::new();
        for it in drained {
            let of = events.entry((it.service, it.color)).or_default();
            of.first.entry(it.generation).or_insert(it.received);
            of.all.push(*it);
        }
        let nothing = (LastRequestEnds::default(), DrainEvents::default());
        for period in inactive_periods(self.history) {
            let key = (period.service, period.color);
            let ends = ends.get(&key).unwrap_or(&nothing.0);
            let events = events.get(&key).unwrap_or(&nothing.1);
            let last_end = ends.of(&period).max(self.pins_end(&period));
            self.check_event(&period, last_end, events, builder);
        }
    }

    /// When the pins of transactions that began before a flip end; 0 if there are none. A pin is valid for as long after the
    /// flip, however long its transaction takes.
    fn pins_end(&self, period: &InactivePeriod<'_>) -> u64 {
        let Some(age) = self.history.pin_age else { return 0 };
        period.flip.acknowledged.saturating_add(age)
    }

    /// No candidate is drained while it has its share.
    fn check_candidates(&self, drained: &[DrainedEvent], builder: &mut FindingBuilder) {
        for promotion in &self.history.gradual {
            let mut steps = promotion.steps.iter().filter(|it| it.percent > 0);
            let Some(first) = steps.next() else { continue };
            let until = steps.next_back().unwrap_or(first).until;
            let delay = self.history.event_gaps.longest_delay(first.from, until);
            // An event of the time before may come late.
            let from = first.from + BOUND + DELAY_FACTOR * delay;
            let is_its = |it: &&DrainedEvent| {
                (it.service, it.color) == (promotion.service, promotion.color)
                    && (from..until).contains(&it.received)
            };
            for event in drained.iter().filter(is_its) {
                let text = format!(
                    "the `drained` event of {} {} came at {}, while it had a share of the clients",
                    self.history.services[usize::from(promotion.service)],
                    promotion.color,
                    self.format_time(event.received),
                );
                builder.break_at(event.received, text);
            }
        }
    }

    /// Whether a scan has certainly begun on a color since the color became active and before the flip away from it, so that
    /// it must not be drained before its pins have ended. Of pages it is not known whether they have pins.
    fn is_pinned(&self, period: &InactivePeriod<'_>) -> bool {
        let of_scans = (Kind::Scan, period.service, Some(period.color));
        self.history.requests.iter().any(|it| {
            (it.kind, it.service, it.color) == of_scans
                && (!it.goes_on() && it.outcome == Outcome::Complete)
                && (it.began > period.active_since && it.ended < period.flip.called)
        })
    }

    /// Checks the event of one flip, after which the last request ended at `last_end`.
    fn check_event(
        &self,
        period: &InactivePeriod<'_>,
        last_end: u64,
        events: &DrainEvents,
        builder: &mut FindingBuilder,
    ) {
        let InactivePeriod { service, color, flip, next_active, .. } = period;
        let event_gaps = &self.history.event_gaps;
        let limit = |until: u64| {
            last_end + BOUND + DELAY_FACTOR * event_gaps.longest_delay(last_end, until)
        };
        let due = limit(last_end + 2 * BOUND);
        let is_due = due < *next_active;
        let received = match events.own_event(period) {
            Some(received) => Some(received),
            None if is_due => events.equivalent_event(period),
            None => return,
        };
        let until = received.unwrap_or(due).max(due);
        let is_gone = self.excuses.is_proxy_gone(flip.called, until);
        if is_gone || !event_gaps.is_complete(flip.called, received.unwrap_or(due)) {
            return;
        }
        builder.finding.checked += 1;
        let pool = format!("{} {color}", self.history.services[usize::from(*service)]);
        let called = self.format_time(flip.called);
        if let (Some(age), Some(received)) = (self.history.pin_age, received)
            && received.saturating_add(CLOCK) < self.history.flip_from(flip).saturating_add(age)
            && self.is_pinned(period)
        {
            let text = format!(
                "the `drained` event of {pool} after the flip called at {called} came {} before its pins could end",
                format_millis(self.history.flip_from(flip).saturating_add(age) - received),
            );
            builder.break_at(received, text);
            return;
        }
        match received {
            Some(received) => {
                let late = received.saturating_sub(last_end);
                builder.finding.max_delay = builder.finding.max_delay.max(late);
                if received > limit(received) {
                    let text = format!(
                        "the `drained` event of {pool} after the flip called at {called} came {} after the end of its \
                         last request (at {})",
                        format_millis(late),
                        self.format_time(last_end),
                    );
                    builder.break_at(received, text);
                }
            }
            None => {
                let again = match *next_active {
                    u64::MAX => String::new(),
                    next_active => format!(
                        ", and the color was not active again before {}",
                        self.format_time(next_active)
                    ),
                };
                let text = format!(
                    "no `drained` event of {pool} came after the flip called at {called}: its last request ended at \
                     {}{again}",
                    self.format_time(last_end),
                );
                builder.break_at(due.min(self.history.ended), text);
            }
        }
    }
}

impl DrainEvents {
    /// When the event of the flip itself was received.
    fn own_event(&self, period: &InactivePeriod<'_>) -> Option<u64> {
        self.first.get(&period.flip.generation?).copied()
    }

    /// When another event was received that means the same: of an earlier flip with requests that ended later, or of a
    /// change of the endpoints meanwhile.
    fn equivalent_event(&self, period: &InactivePeriod<'_>) -> Option<u64> {
        let first = self.all.partition_point(|it| it.received < period.flip.called);
        let mut since = self.all[first..].iter();
        let is_before = |it: &&DrainedEvent| {
            period.next_generation.is_none_or(|next_active| it.generation < next_active)
        };
        since.find(is_before).map(|it| it.received)
    }
}

impl LastRequestEnds {
    /// When the last request ended that the drain had to wait for. Not before the acknowledgement of the flip.
    fn of(&self, period: &InactivePeriod<'_>) -> u64 {
        let latest = |of: &[(u64, u64)], until: u64| {
            of[..of.partition_point(|it| it.0 <= until)].last().map_or(0, |it| it.1)
        };
        let acknowledged = period.flip.acknowledged;
        let begun = latest(&self.by_begin, acknowledged);
        // Requests that were routed too late break another promise, but the drain has to wait for them, too.
        let decided = latest(&self.by_decision, period.next_active.saturating_sub(1));
        acknowledged.max(begun).max(decided)
    }
}

/// Each flip away from a color that may need a `drained` event.
fn inactive_periods(history: &History) -> Vec<InactivePeriod<'_>> {
    let mut all: Vec<InactivePeriod> = Vec::new();
    for service in 0..u8::try_from(history.services.len()).unwrap_or(u8::MAX) {
        let to = |it: &Flip| it.changes.iter().find(|it| it.0 == service).map(|it| it.1);
        let flips = history.flips.iter().filter(|it| it.outcome != FlipOutcome::Refused);
        let flips: Vec<(&Flip, Color)> = flips.filter_map(|it| Some((it, to(it)?))).collect();
        for (index, (flip, active)) in flips.iter().enumerate() {
            let was_known = index == 0 || flips[index - 1].0.outcome == FlipOutcome::Acknowledged;
            if flip.outcome != FlipOutcome::Acknowledged || flip.generation.is_none() || !was_known
            {
                continue;
            }
            let color = active.other();
            let mut later = flips[index + 1..].iter();
            let next_active =
                later.find(|(it, to)| *to == color || it.outcome == FlipOutcome::Unknown);
            let (next_active, generation) =
                next_active.map_or((u64::MAX, None), |(it, _)| (it.called, it.generation));
            let active_since = if index == 0 { 0 } else { flips[index - 1].0.acknowledged };
            all.push(InactivePeriod {
                service,
                color,
                flip,
                active_since,
                next_active,
                next_generation: generation,
            });
        }
    }
    all
}

fn last_request_ends(history: &History) -> HashMap<(u8, Color), LastRequestEnds> {
    let mut all: HashMap<(u8, Color), LastRequestEnds> = HashMap::new();
    for request in &history.requests {
        if matches!(request.outcome, Outcome::NotSent | Outcome::NotConnected) {
            continue;
        }
        for color in Color::BOTH {
            // A request without a response may have been routed to either color.
            if request.color.is_some_and(|it| it != color) {
                continue;
            }
            let ends = all.entry((request.service, color)).or_default();
            ends.by_begin.push((request.began, request.ended));
            if request.color.is_some() && request.kind != Kind::Preview && !request.is_asset() {
                ends.by_decision.push((request.routed(), request.ended));
            }
        }
    }
    for ends in all.values_mut() {
        for line in [&mut ends.by_begin, &mut ends.by_decision] {
            line.sort_unstable();
            let mut latest = 0;
            for (_, ended) in line {
                latest = latest.max(*ended);
                *ended = latest;
            }
        }
    }
    all
}
