//! Figures of a history: rates, latencies, acknowledgements, drains. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use hdrhistogram::Histogram;

use super::record::{Flip, FlipOutcome, History, Kind, Outcome, Request};
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
    pub(super) away_from_flips: Histogram<u64>,
    /// The same within [`NEAR`] of a flip.
    pub(super) near_flips: Histogram<u64>,
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
pub(super) const NEAR_FLIP: u64 = 100_000_000;

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
            away_from_flips: histogram(),
            near_flips: histogram(),
            acknowledged: histogram(),
            drains: histogram(),
            slices: std::iter::repeat_with(Slice::new).take(SLICES).collect(),
            slice: slice as f64 / 1e9,
        };
        let index = |at: u64| {
            let index = usize::try_from(at.checked_sub(began)? / slice).ok()?;
            (index < SLICES).then_some(index)
        };
        let mut counted = 0_u64;
        for request in &history.requests {
            let Request { kind, outcome, color, due, head, ended: end, .. } = *request;
            let is_good = outcome == Outcome::Complete;
            let (all, failed) = figures.kinds.entry(kind).or_default();
            *all += 1;
            let is_failed = !is_good && !explained.contains(&request.id);
            *failed += u64::from(is_failed);
            if let Some(color) = color {
                figures.colors[color as usize] += 1;
            }
            if let (Some(color), Some(index)) = (color, index(head)) {
                figures.slices[index].colors[color as usize] += 1;
            }
            if let (true, Some(index)) = (is_failed, index(end)) {
                figures.slices[index].failed += 1;
            }
            let Some(index) = index(due) else { continue };
            counted += 1;
            if !kind.is_long() && is_good {
                let micros = end.saturating_sub(due) / 1000;
                record(&mut figures.slices[index].latency, micros);
                let near = is_near_flip(&history.flips, due, end);
                record(
                    if near { &mut figures.near_flips } else { &mut figures.away_from_flips },
                    micros,
                );
            }
        }
        figures.rate = counted as f64 / ((ended - began) as f64 / 1e9);
        for flip in &history.flips {
            if flip.outcome == FlipOutcome::Acknowledged && !flip.lost_response {
                record(&mut figures.acknowledged, (flip.acknowledged - flip.called) / 1000);
            }
        }
        let generations =
            history.flips.iter().filter_map(|it| Some((it.generation?, it.acknowledged)));
        let by_generation: HashMap<u64, u64> = generations.collect();
        for drained in history.drained.iter().flatten() {
            if let Some(acknowledged) = by_generation.get(&drained.generation) {
                let took = drained.received.saturating_sub(*acknowledged);
                record(&mut figures.drains, took / 1_000_000);
            }
        }
        figures
    }

    /// How much larger the 99th percentile is near flips. `None` if there is not enough of either to tell.
    pub(super) fn ratio(&self) -> Option<f64> {
        const ENOUGH: u64 = 1000;
        let is_enough = self.away_from_flips.len() >= ENOUGH && self.near_flips.len() >= ENOUGH;
        let of = |it: &Histogram<u64>| it.value_at_quantile(0.99).max(1) as f64;
        is_enough.then(|| of(&self.near_flips) / of(&self.away_from_flips))
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
fn is_near_flip(flips: &[Flip], from: u64, until: u64) -> bool {
    // Flips are in order and do not overlap.
    let next = flips.partition_point(|it| it.acknowledged + NEAR_FLIP < from);
    flips.get(next).is_some_and(|it| it.called <= until + NEAR_FLIP)
}

/// Two digits are told apart, which is a hundredth of what is measured.
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

fn record(histogram: &mut Histogram<u64>, value: u64) {
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
            outcome: Outcome::Complete,
            color: Some(Color::Blue),
            instance: 1,
            due,
            began: ended - 1000,
            received: 0,
            head: ended,
            ended,
            active_at: 0,
        }
    }

    #[test]
    fn latency_counts_from_the_due_time_and_any_overlap_with_a_flip_is_near_it() {
        let second = 1_000_000_000;
        let flip = Flip {
            changes: vec![(0, Color::Green)],
            called: 5 * second,
            acknowledged: 5 * second + 2_000_000,
            outcome: FlipOutcome::Acknowledged,
            generation: None,
            error: None,
            lost_response: false,
        };
        let history = History {
            services: vec!["web".to_owned()],
            initial: vec![Color::Blue],
            began: 0,
            ended: 10 * second,
            requests: vec![
                short(second, second + 1_000_000),
                short(4 * second, 5 * second - NEAR_FLIP + 1),
                short(5 * second + 2_000_000 + NEAR_FLIP + 1, 6 * second),
            ],
            flips: vec![flip],
            ..History::default()
        };
        let figures = Figures::of(&history, &HashSet::new());
        assert_eq!((figures.away_from_flips.len(), figures.near_flips.len()), (2, 1));
        assert!(figures.near_flips.max() >= 890_000, "{}", figures.near_flips.max());
        assert_eq!(figures.acknowledged.max() / 16, 2000 / 16);
        assert_eq!(figures.kinds[&Kind::Short], (3, 0));
        assert!((figures.rate - 0.3).abs() < 0.01 && figures.ratio().is_none());
    }
}
