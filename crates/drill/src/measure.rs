//! Figures of a history: rates, latencies, acknowledgements, drains. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use hdrhistogram::Histogram;

use super::record::{Flip, FlipEnd, History, Kind, Outcome, Request};
use crate::color::Color;

/// Figures of a history.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// How many there were of each kind, and how many of them did not end as they should, those left out
    /// that a kill explains.
    pub(super) kinds: BTreeMap<Kind, (u64, u64)>,
    /// Requests begun a second, while it counted.
    pub(super) rate: f64,
    /// How many were answered by blue and by green.
    pub(super) colors: [u64; 2],
    /// Microseconds from when a short request was due to the end of its answer, away from flips.
    pub(super) steady: Histogram<u64>,
    /// The same within [`NEAR`] of a flip.
    pub(super) near: Histogram<u64>,
    /// Microseconds from the call of a flip to its acknowledgement.
    pub(super) acknowledged: Histogram<u64>,
    /// Milliseconds from the acknowledgement of a flip to the word that what it replaced is drained.
    pub(super) drains: Histogram<u64>,
    /// What happened over the time, in even slices.
    pub(super) slices: Vec<Slice>,
    /// Seconds of each of them.
    pub(super) slice: f64,
}

/// What happened in a part of the time.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Microseconds, of short requests that were due in it.
    pub(super) latency: Histogram<u64>,
    /// Heads of answers of blue and of green.
    pub(super) colors: [u64; 2],
    /// Requests that ended in it, and not as they should.
    pub(super) failed: u64,
}

/// How close to a flip is near: 100 ms.
pub(super) const NEAR: u64 = 100_000_000;

const SLICES: usize = 240;

/// Microseconds that are told apart at most: ten minutes.
const MICROS_MAX: u64 = 600_000_000;

impl Figures {
    /// Figures of a history, in which the bad ends of the numbers in `explained` are nobody's fault.
    pub(super) fn of(history: &History, explained: &HashSet<u64>) -> Self {
        let (began, ended) = (history.began, history.ended.max(history.began + 1));
        let slice = ((ended - began) / SLICES as u64).max(1);
        let mut figures = Self {
            kinds: BTreeMap::new(),
            rate: 0.0,
            colors: [0; 2],
            steady: histogram(),
            near: histogram(),
            acknowledged: histogram(),
            drains: histogram(),
            slices: std::iter::repeat_with(Slice::new).take(SLICES).collect(),
            slice: slice as f64 / 1e9,
        };
        let place = |at: u64| {
            let place = usize::try_from(at.checked_sub(began)? / slice).ok()?;
            (place < SLICES).then_some(place)
        };
        let mut counted = 0_u64;
        for request in &history.requests {
            let Request { kind, outcome, color, due, head, ended: end, .. } = *request;
            let is_good = outcome == Outcome::Whole;
            let (all, failed) = figures.kinds.entry(kind).or_default();
            *all += 1;
            let is_failed = !is_good && !explained.contains(&request.id);
            *failed += u64::from(is_failed);
            if let Some(color) = color {
                figures.colors[color as usize] += 1;
            }
            if let (Some(color), Some(place)) = (color, place(head)) {
                figures.slices[place].colors[color as usize] += 1;
            }
            if let (true, Some(place)) = (is_failed, place(end)) {
                figures.slices[place].failed += 1;
            }
            let Some(place) = place(due) else { continue };
            counted += 1;
            if !kind.is_long() && is_good {
                let micros = end.saturating_sub(due) / 1000;
                note(&mut figures.slices[place].latency, micros);
                let near = is_near(&history.flips, due, end);
                note(if near { &mut figures.near } else { &mut figures.steady }, micros);
            }
        }
        figures.rate = counted as f64 / ((ended - began) as f64 / 1e9);
        for flip in &history.flips {
            if flip.end == FlipEnd::Done && !flip.was_lost {
                note(&mut figures.acknowledged, (flip.acknowledged - flip.called) / 1000);
            }
        }
        let generations =
            history.flips.iter().filter_map(|it| Some((it.generation?, it.acknowledged)));
        let by_generation: HashMap<u64, u64> = generations.collect();
        for drained in history.drained.iter().flatten() {
            if let Some(acknowledged) = by_generation.get(&drained.generation) {
                let took = drained.heard.saturating_sub(*acknowledged);
                note(&mut figures.drains, took / 1_000_000);
            }
        }
        figures
    }

    /// How much larger the 99th percentile is near flips. `None` if there is not enough of either to tell.
    pub(super) fn ratio(&self) -> Option<f64> {
        const ENOUGH: u64 = 1000;
        let is_enough = self.steady.len() >= ENOUGH && self.near.len() >= ENOUGH;
        let of = |it: &Histogram<u64>| it.value_at_quantile(0.99).max(1) as f64;
        is_enough.then(|| of(&self.near) / of(&self.steady))
    }
}

impl Slice {
    fn new() -> Self {
        Self { latency: histogram(), colors: [0; 2], failed: 0 }
    }

    pub(super) fn count(&self, color: Color) -> u64 {
        self.colors[color as usize]
    }
}

/// Whether something from `from` to `until` was within [`NEAR`] of a flip.
fn is_near(flips: &[Flip], from: u64, until: u64) -> bool {
    // Flips are in order and do not overlap.
    let next = flips.partition_point(|it| it.acknowledged + NEAR < from);
    flips.get(next).is_some_and(|it| it.called <= until + NEAR)
}

/// Two digits are told apart, which is a hundredth of what is measured.
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

fn note(histogram: &mut Histogram<u64>, value: u64) {
    // It grows as far as it has to.
    let _ = histogram.record(value.min(MICROS_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(due: u64, ended: u64) -> Request {
        Request {
            id: due,
            service: 0,
            kind: Kind::Short,
            outcome: Outcome::Whole,
            color: Some(Color::Blue),
            instance: 1,
            due,
            began: ended - 1000,
            met: 0,
            head: ended,
            ended,
            alive: 0,
        }
    }

    #[test]
    fn what_waited_is_as_late_as_it_was_due_and_near_a_flip_if_any_of_it_was() {
        let second = 1_000_000_000;
        let flip = Flip {
            changes: vec![(0, Color::Green)],
            called: 5 * second,
            acknowledged: 5 * second + 2_000_000,
            end: FlipEnd::Done,
            generation: None,
            trouble: None,
            was_lost: false,
        };
        let history = History {
            services: vec!["web".to_owned()],
            initial: vec![Color::Blue],
            began: 0,
            ended: 10 * second,
            requests: vec![
                short(second, second + 1_000_000),
                short(4 * second, 5 * second - NEAR + 1),
                short(5 * second + 2_000_000 + NEAR + 1, 6 * second),
            ],
            flips: vec![flip],
            ..History::default()
        };
        let figures = Figures::of(&history, &HashSet::new());
        assert_eq!((figures.steady.len(), figures.near.len()), (2, 1));
        assert!(figures.near.max() >= 890_000, "{}", figures.near.max());
        assert_eq!(figures.acknowledged.max() / 16, 2000 / 16);
        assert_eq!(figures.kinds[&Kind::Short], (3, 0));
        assert!((figures.rate - 0.3).abs() < 0.01 && figures.ratio().is_none());
    }
}
