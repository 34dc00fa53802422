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
    super::record::{Drained, Flip, FlipEnd, History, Kind, Outcome},
    Promise, analysis,
    checker::{Checker, FindingBuilder, millis},
};
use crate::color::Color;

/// How long after the last request of a color has ended its event may be heard: 500 ms, in nanoseconds, and
/// [`LAGS`] times as much as the drill itself was late meanwhile.
pub(crate) const BOUND: u64 = 500_000_000;

/// Three have to run on a busy machine until an event is heard: what carries the request, what tells, and what hears.
const LAGS: u64 = 3;

/// A time in which a color is not active.
struct InactivePeriod<'a> {
    service: u8,
    color: Color,
    /// The flip that it begins with.
    flip: &'a Flip,
    /// When the next flip to the color was called, if there was one, and the generation that has it.
    back: u64,
    generation: Option<u64>,
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
    all: Vec<Drained>,
}

impl Checker<'_> {
    /// Whether anybody was inside of a color after it was told to be drained.
    pub(super) fn drains(&mut self) {
        let mut count = FindingBuilder::new(Promise::Drained);
        let Some(drained) = &self.history.drained else {
            return self.close(count.unchecked("the proxy does not tell when a color is drained"));
        };
        let first = analysis::first_drains(self.history, drained);
        for request in &self.history.requests {
            let (Some(color), 1..) = (request.color, request.alive) else { continue };
            // Testers come and go, and hold up no drain; a public request whose preview header was honored
            // does not either. Strays are reported already.
            let asks_for_color = matches!(request.kind, Kind::Preview | Kind::RefusedPreview);
            if asks_for_color || self.strays.contains(&request.id) {
                continue;
            }
            let Some(Drained { heard, generation, .. }) = first.after(request, color) else {
                continue;
            };
            count.finding.checked += 1;
            if heard < request.alive {
                let text = format!(
                    "{color} was told to be drained of what generation {generation} replaced at {}, and {} was \
                     still at it {} later",
                    self.time(heard),
                    self.name(request),
                    millis(request.alive - heard),
                );
                count.break_at(heard, text);
            }
        }
        self.tellings(drained, &mut count);
        if count.finding.checked == 0 && count.finding.broken == 0 {
            count = count.unchecked("nothing that tells was inside of a color that drained");
        }
        self.close(count);
    }

    /// Whether each event came that had to, and in time.
    fn tellings(&self, drained: &[Drained], count: &mut FindingBuilder) {
        let ends = ends(self.history);
        let mut told: HashMap<(u8, Color), DrainEvents> = HashMap::new();
        for it in drained {
            let of = told.entry((it.service, it.color)).or_default();
            of.first.entry(it.generation).or_insert(it.heard);
            of.all.push(*it);
        }
        let nothing = (LastRequestEnds::default(), DrainEvents::default());
        for absence in absences(self.history) {
            let key = (absence.service, absence.color);
            let ends = ends.get(&key).unwrap_or(&nothing.0);
            let told = told.get(&key).unwrap_or(&nothing.1);
            self.telling(&absence, ends.of(&absence), told, count);
        }
    }

    /// Judges what was told of one flip, after which the last request had ended at `over`.
    fn telling(
        &self,
        absence: &InactivePeriod<'_>,
        over: u64,
        told: &DrainEvents,
        count: &mut FindingBuilder,
    ) {
        let InactivePeriod { service, color, flip, back, .. } = absence;
        let hearing = &self.history.hearing;
        let limit = |until: u64| over + BOUND + LAGS * hearing.lag(over, until);
        let due = limit(over + 2 * BOUND);
        let is_due = due < *back;
        let heard = match told.own(absence) {
            Some(heard) => Some(heard),
            None if is_due => told.other(absence),
            None => return,
        };
        let until = heard.unwrap_or(due).max(due);
        let is_gone = self.explanations.is_proxy_gone(flip.called, until);
        if is_gone || !hearing.is_good(flip.called, heard.unwrap_or(due)) {
            return;
        }
        count.finding.checked += 1;
        let what = format!("{} {color}", self.history.services[usize::from(*service)]);
        let called = self.time(flip.called);
        match heard {
            Some(heard) => {
                let late = heard.saturating_sub(over);
                count.finding.late = count.finding.late.max(late);
                if heard > limit(heard) {
                    let text = format!(
                        "{what} was told to be drained after its flip called at {called} only {} after its last request \
                         had ended (at {})",
                        millis(late),
                        self.time(over),
                    );
                    count.break_at(heard, text);
                }
            }
            None => {
                let again = match *back {
                    u64::MAX => String::new(),
                    back => format!(", and was not made active again before {}", self.time(back)),
                };
                let text = format!(
                    "{what} was never told to be drained after its flip called at {called}: its last request had ended \
                     at {}{again}",
                    self.time(over),
                );
                count.break_at(due.min(self.history.ended), text);
            }
        }
    }
}

impl DrainEvents {
    /// When the event of the flip itself was heard.
    fn own(&self, absence: &InactivePeriod<'_>) -> Option<u64> {
        self.first.get(&absence.flip.generation?).copied()
    }

    /// When another was heard that says as much: of something that was replaced before and left later, or that was
    /// replaced meanwhile.
    fn other(&self, absence: &InactivePeriod<'_>) -> Option<u64> {
        let first = self.all.partition_point(|it| it.heard < absence.flip.called);
        let mut since = self.all[first..].iter();
        let is_before = |it: &&Drained| absence.generation.is_none_or(|back| it.generation < back);
        since.find(is_before).map(|it| it.heard)
    }
}

impl LastRequestEnds {
    /// When everybody had left for whom a color was not drained yet: the flip was acknowledged, too.
    fn of(&self, absence: &InactivePeriod<'_>) -> u64 {
        let latest = |of: &[(u64, u64)], until: u64| {
            of[..of.partition_point(|it| it.0 <= until)].last().map_or(0, |it| it.1)
        };
        let acknowledged = absence.flip.acknowledged;
        let begun = latest(&self.by_begin, acknowledged);
        // Who should not have come in any more is found by another promise, and holds the drain all the same.
        let decided = latest(&self.by_decision, absence.back.saturating_sub(1));
        acknowledged.max(begun).max(decided)
    }
}

/// Each flip away from a color after which something is to be told.
fn absences(history: &History) -> Vec<InactivePeriod<'_>> {
    let mut all: Vec<InactivePeriod> = Vec::new();
    for service in 0..u8::try_from(history.services.len()).unwrap_or(u8::MAX) {
        let to = |it: &Flip| it.changes.iter().find(|it| it.0 == service).map(|it| it.1);
        let flips = history.flips.iter().filter(|it| it.end != FlipEnd::Refused);
        let flips: Vec<(&Flip, Color)> = flips.filter_map(|it| Some((it, to(it)?))).collect();
        for (place, (flip, active)) in flips.iter().enumerate() {
            let was_known = place == 0 || flips[place - 1].0.end == FlipEnd::Done;
            if flip.end != FlipEnd::Done || flip.generation.is_none() || !was_known {
                continue;
            }
            let color = active.other();
            let mut later = flips[place + 1..].iter();
            let back = later.find(|(it, to)| *to == color || it.end == FlipEnd::Unknown);
            let (back, generation) =
                back.map_or((u64::MAX, None), |(it, _)| (it.called, it.generation));
            all.push(InactivePeriod { service, color, flip, back, generation });
        }
    }
    all
}

fn ends(history: &History) -> HashMap<(u8, Color), LastRequestEnds> {
    let mut all: HashMap<(u8, Color), LastRequestEnds> = HashMap::new();
    for request in &history.requests {
        if matches!(request.outcome, Outcome::Unsent | Outcome::Unconnected) {
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
