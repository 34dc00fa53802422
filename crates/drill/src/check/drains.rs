//! Whether it was told in time, and not too early, that a color is drained.
//!
//! # What is promised
//!
//! When the last request of a color that is not active has ended, the proxy tells that the color is drained:
//! whatever generation replaced the side that was left last. If the color is made active before that,
//! no event is due. So the checker judges each flip away from a color: if all requests that can have been inside had
//! ended a [`BOUND`] before the color could be active again, an event has to be there; and one that is there is
//! not later than the bound.

use std::collections::HashMap;

use super::{
    super::record::{DrainedEvent, Flip, FlipOutcome, History, Kind, Outcome},
    Promise, analysis,
    checker::{Checker, FindingBuilder, format_millis},
};
use crate::color::Color;

/// How long after the last request of a color has ended its event may be heard: 500 ms, in nanoseconds, and
/// [`LAGS`] times as much as the drill itself was late meanwhile.
pub(crate) const BOUND: u64 = 500_000_000;

/// Three have to run on a busy machine until an event is heard: what carries the request, what tells, and what hears.
const DELAY_FACTOR: u64 = 3;

/// A time in which a color is not active.
struct InactivePeriod<'a> {
    service: u8,
    color: Color,
    /// The flip that it begins with.
    flip: &'a Flip,
    /// When the next flip to the color was called, if there was one, and the generation that has it.
    next_active: u64,
    next_generation: Option<u64>,
}

/// When the requests of one color of a service have ended, at the latest.
#[derive(Default)]
struct LastRequestEnds {
    /// Of those that began until then, if they can have been inside. In order.
    by_begin: Vec<(u64, u64)>,
    /// Of those of the public whose color was decided until then. In order.
    by_decision: Vec<(u64, u64)>,
}

/// The events of one color of a service.
#[derive(Default)]
struct DrainEvents {
    /// When each generation was heard of first.
    first: HashMap<u64, u64>,
    /// All, in the order in which they were heard.
    all: Vec<DrainedEvent>,
}

impl Checker<'_> {
    /// Whether anybody was inside of a color after it was told to be drained.
    pub(super) fn check_drains(&mut self) {
        let mut builder = FindingBuilder::new(Promise::Drained);
        let Some(drained) = &self.history.drained else {
            return self.push_finding(
                builder.unchecked("the proxy does not tell when a color is drained"),
            );
        };
        let first = analysis::first_drains(self.history, drained);
        for request in &self.history.requests {
            let (Some(color), 1..) = (request.color, request.active_at) else { continue };
            // Testers come and go, and hold up no drain; a public request whose preview header was honored
            // does not either. Strays are reported already.
            let asks_for_color = matches!(request.kind, Kind::Preview | Kind::RefusedPreview);
            if asks_for_color || self.wrong_color_requests.contains(&request.id) {
                continue;
            }
            let Some(DrainedEvent { received, generation, .. }) = first.first_after(request, color)
            else {
                continue;
            };
            builder.finding.checked += 1;
            if received < request.active_at {
                let text = format!(
                    "{color} was told to be drained of what generation {generation} replaced at {}, and {} was \
                     still at it {} later",
                    self.format_time(received),
                    self.request_name(request),
                    format_millis(request.active_at - received),
                );
                builder.break_at(received, text);
            }
        }
        self.check_events(drained, &mut builder);
        if builder.finding.checked == 0 && builder.finding.broken == 0 {
            builder = builder.unchecked("nothing that tells was inside of a color that drained");
        }
        self.push_finding(builder);
    }

    /// Whether each event came that had to, and in time.
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
            self.check_event(&period, ends.of(&period), events, builder);
        }
    }

    /// Judges what was told of one flip, after which the last request had ended at `last_end`.
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
        let is_gone = self.explanations.is_proxy_gone(flip.called, until);
        if is_gone || !event_gaps.is_complete(flip.called, received.unwrap_or(due)) {
            return;
        }
        builder.finding.checked += 1;
        let pool = format!("{} {color}", self.history.services[usize::from(*service)]);
        let called = self.format_time(flip.called);
        match received {
            Some(received) => {
                let late = received.saturating_sub(last_end);
                builder.finding.max_delay = builder.finding.max_delay.max(late);
                if received > limit(received) {
                    let text = format!(
                        "{pool} was told to be drained after its flip called at {called} only {} after its last request \
                         had ended (at {})",
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
                        ", and was not made active again before {}",
                        self.format_time(next_active)
                    ),
                };
                let text = format!(
                    "{pool} was never told to be drained after its flip called at {called}: its last request had ended \
                     at {}{again}",
                    self.format_time(last_end),
                );
                builder.break_at(due.min(self.history.ended), text);
            }
        }
    }
}

impl DrainEvents {
    /// When the event of the flip itself was heard.
    fn own_event(&self, period: &InactivePeriod<'_>) -> Option<u64> {
        self.first.get(&period.flip.generation?).copied()
    }

    /// When another was heard that says as much: of something that was replaced before and left later, or that was
    /// replaced meanwhile.
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
    /// When everybody had left for whom a color was not drained yet: the flip was acknowledged, too.
    fn of(&self, period: &InactivePeriod<'_>) -> u64 {
        let latest = |of: &[(u64, u64)], until: u64| {
            of[..of.partition_point(|it| it.0 <= until)].last().map_or(0, |it| it.1)
        };
        let acknowledged = period.flip.acknowledged;
        let begun = latest(&self.by_begin, acknowledged);
        // Who should not have come in any more is found by another promise, and holds the drain all the same.
        let decided = latest(&self.by_decision, period.next_active.saturating_sub(1));
        acknowledged.max(begun).max(decided)
    }
}

/// Each flip away from a color after which something is to be told.
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
            all.push(InactivePeriod {
                service,
                color,
                flip,
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
            // Who has no answer may have been inside of either.
            if request.color.is_some_and(|it| it != color) {
                continue;
            }
            let ends = all.entry((request.service, color)).or_default();
            ends.by_begin.push((request.began, request.ended));
            if request.color.is_some() && request.kind != Kind::Preview {
                ends.by_decision.push((request.decided(), request.ended));
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
