//! Figures of a history: rates, latencies, acknowledgements, drains. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use hdrhistogram::Histogram;

use super::record::{Flip, FlipOutcome, History, Kind, Outcome, Request};
use crate::color::Color;

/// Figures of a history.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Requests of each kind: all, and those that failed without the excuse of a kill.
    pub(super) kinds: BTreeMap<Kind, (u64, u64)>,
    /// Requests per second of the measured load.
    pub(super) rate: f64,
    /// Responses of blue and of green.
    pub(super) colors: [u64; 2],
    /// Microseconds from the due time of a short request to the end of its response, away from flips.
    pub(super) away_from_flips: Histogram<u64>,
    /// The same, within [`NEAR_FLIP`] of a flip.
    pub(super) near_flips: Histogram<u64>,
    /// Microseconds from the call of a flip to its acknowledgement.
    pub(super) acknowledged: Histogram<u64>,
    /// Milliseconds from the acknowledgement of a flip to the `drained` event of the replaced color.
    pub(super) drains: Histogram<u64>,
    /// The measured time in equal slices.
    pub(super) slices: Vec<Slice>,
    /// The duration of a slice, in seconds.
    pub(super) slice: f64,
}

/// The requests of a part of the time.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Latencies of short requests that were due in it, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Response heads of blue and of green.
    pub(super) colors: [u64; 2],
    /// Requests that failed in it.
    pub(super) failed: u64,
}

/// Requests within this time of a flip are near it: 100 ms, in nanoseconds.
pub(super) const NEAR_FLIP: u64 = 100_000_000;

/// Slices of the time at most, and requests that a slice has at least on average: a slice without any has a reason.
const SLICES_MAX: usize = 240;
const SLICE_REQUESTS: usize = 20;

/// Longer latencies count as this one: ten minutes, in microseconds.
const MICROS_MAX: u64 = 600_000_000;

impl Figures {
    /// Figures of a history. A kill excuses the failures of the requests in `excused`.
    pub(super) fn of(history: &History, excused: &HashSet<u64>) -> Self {
        let (began, ended) = (history.began, history.ended.max(history.began + 1));
        let count = (history.requests.len() / SLICE_REQUESTS).clamp(1, SLICES_MAX);
        let slice = (ended - began).div_ceil(count as u64).max(1);
        let mut figures = Self {
            kinds: BTreeMap::new(),
            rate: 0.0,
            colors: [0; 2],
            away_from_flips: histogram(),
            near_flips: histogram(),
            acknowledged: histogram(),
            drains: histogram(),
            slices: std::iter::repeat_with(Slice::new).take(count).collect(),
            slice: slice as f64 / 1e9,
        };
        let index = |at: u64| {
            let index = usize::try_from(at.checked_sub(began)? / slice).ok()?;
            (index < count).then_some(index)
        };
        let flips = flip_times(history);
        let mut counted = 0_u64;
        for request in &history.requests {
            let Request { kind, outcome, color, due, head, ended: end, .. } = *request;
            let is_good = outcome == Outcome::Complete;
            let (all, failed) = figures.kinds.entry(kind).or_default();
            *all += 1;
            let is_failed = !is_good && !excused.contains(&request.id);
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
                let near = is_near_flip(&flips, due, end);
                record(
                    if near { &mut figures.near_flips } else { &mut figures.away_from_flips },
                    micros,
                );
            }
        }
        figures.rate = counted as f64 / ((ended - began) as f64 / 1e9);
        for flip in &history.flips {
            if flip.outcome == FlipOutcome::Acknowledged
                && !flip.lost_response
                && !flip.is_automatic
            {
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

    /// The 99th percentile near flips divided by that away from flips. `None` if there are too few requests.
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

/// Whether a request from `from` to `until` was within [`NEAR_FLIP`] of a flip.
fn is_near_flip(flips: &[FlipTime], from: u64, until: u64) -> bool {
    // Flips are in order of time and do not overlap.
    let next = flips.partition_point(|it| it.acknowledged + NEAR_FLIP < from);
    flips.get(next).is_some_and(|it| it.called <= until + NEAR_FLIP)
}

/// The time from the call of a flip to its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct FlipTime {
    called: u64,
    acknowledged: u64,
}

/// The times of all flips.
fn flip_times(history: &History) -> Vec<FlipTime> {
    let time =
        |flip: &Flip| FlipTime { called: history.flip_from(flip), acknowledged: flip.acknowledged };
    history.flips.iter().map(time).collect()
}

/// Two significant digits: an error of at most one percent.
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

fn record(histogram: &mut Histogram<u64>, value: u64) {
    // A histogram of this kind resizes itself.
    let _ = histogram.record(value.min(MICROS_MAX));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{GradualPromotion, ShareStep};

    pub(crate) fn short(due: u64, ended: u64) -> Request {
        Request {
            transaction: 0,
            client: 0,
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
            moved: 0,
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
            is_automatic: false,
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

    #[test]
    fn only_the_last_step_of_a_gradual_promotion_is_a_flip() {
        let second = 1_000_000_000;
        let flip = Flip {
            changes: vec![(0, Color::Green)],
            called: second,
            acknowledged: 9 * second,
            outcome: FlipOutcome::Acknowledged,
            generation: None,
            error: None,
            lost_response: false,
            is_automatic: true,
        };
        let step = |percent, from, until| ShareStep { percent, from, until };
        let gradual = GradualPromotion {
            service: 0,
            color: Color::Green,
            from: second,
            until: 9 * second,
            steps: vec![step(10, 2 * second, 5 * second), step(50, 5 * second, 9 * second - 1)],
        };
        let history = History {
            services: vec!["web".to_owned()],
            initial: vec![Color::Blue],
            began: 0,
            ended: 10 * second,
            requests: vec![short(4 * second, 4 * second + 1000), short(9 * second, 9 * second + 1)],
            flips: vec![flip.clone()],
            gradual: vec![gradual],
            ..History::default()
        };
        let count = |history: &History| {
            let figures = Figures::of(history, &HashSet::new());
            (figures.away_from_flips.len(), figures.near_flips.len())
        };
        assert_eq!(count(&history), (1, 1));
        let flips = vec![Flip { is_automatic: false, ..flip }];
        assert_eq!(count(&History { flips, ..history }), (0, 2), "a flip that takes as long");
    }
}
