//! Linearizability of the routing table: does it behave as one register that the flips write and the requests read?
//!
//! Every flip takes effect at one instant between its call and its acknowledgement. Every request is routed at one
//! instant between its begin and the head of its response. The check looks for an instant for each flip such that the
//! color of each response was active at some instant of its request: linearizability of a single register in
//! which the write of each value read is known (Herlihy and Wing, 1990; Gibbons and Korach, 1997, section 4).
//!
//! Since flips do not overlap, one pass decides this exactly. A request during a flip is a bound for the instant of the
//! flip (`the old color answered, so the flip was not before the begin of this request`). A request that overlaps two
//! flips says that one of two bounds holds. Choosing the latest instant that the bounds of a flip allow satisfies
//! the constraints of its neighbor if any choice does.
//!
//! The same pass over several services at once, where a flip of several services has one instant, finds partial
//! flips.

use crate::color::Color;

/// A request: a read of the register.
#[derive(Clone, Copy, Debug)]
pub struct RegisterRead {
    /// Its index among all requests.
    pub request: usize,
    /// The index of its service.
    pub service: u8,
    /// The color of the response.
    pub color: Color,
    /// When the request was sent, in nanoseconds of [`crate::sample::now_ns`].
    pub began: u64,
    /// When the head of its response was received.
    pub ended: u64,
}

/// A flip that happened: a write of the register.
#[derive(Clone, Debug)]
pub struct RegisterWrite {
    /// Its index among all flips.
    pub flip: usize,
    /// The services that it changed, each with the color that it made active.
    pub changes: Vec<(u8, Color)>,
    /// When it was called, in nanoseconds of [`crate::sample::now_ns`].
    pub called: u64,
    /// When its acknowledgement was received.
    pub acknowledged: u64,
    /// Whether the color before it is not known, so that it counts as a change in any case.
    pub is_reset: bool,
}

/// Why the history is not linearizable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conflict {
    /// The color of a response was not active at any instant of its request.
    Stale {
        /// The index of the request, as in [`RegisterRead::request`].
        request: usize,
        /// The flip that had made the other color active. None if that color was active from the beginning.
        since: Option<usize>,
    },
    /// One request shows that a flip had taken effect, and a request that began later shows that it had not.
    Backwards {
        /// The index of the flip, as in [`RegisterWrite::flip`].
        flip: usize,
        /// The request with a response of the new color.
        new: usize,
        /// The later request with a response of the old color.
        old: usize,
    },
}

/// The flips that change one service.
#[derive(Debug, Default)]
struct FlipSequence {
    /// Indices in the writes.
    writes: Vec<usize>,
    /// The color before each of them, and after the last.
    colors: Vec<Color>,
}

/// Bounds of the instant of a flip.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// The earliest instant, and the request that requires it.
    from: (u64, Option<usize>),
    /// The latest instant, and the request that requires it.
    until: (u64, Option<usize>),
}

/// Excludes that one flip took effect before `began` and the next one after `ended`.
#[derive(Clone, Copy, Debug)]
struct NeighborConstraint {
    first: usize,
    began: u64,
    second: usize,
    ended: u64,
    request: usize,
}

/// All conflicts: each stale request, and for each flip at most one pair of requests in the wrong order.
///
/// `writes` are in order of time and do not overlap. `initial` has the first active color of each service.
#[must_use]
pub fn conflicts(
    initial: &[Color],
    writes: &[RegisterWrite],
    reads: &[RegisterRead],
) -> Vec<Conflict> {
    let sequences = flip_sequences(initial, writes);
    let mut bounds: Vec<Bounds> = writes
        .iter()
        .map(|it| Bounds { from: (it.called, None), until: (it.acknowledged, None) })
        .collect();
    let (mut found, mut constraints) = (Vec::new(), Vec::new());
    for read in reads {
        let Some(sequence) = sequences.get(usize::from(read.service)) else { continue };
        // Flips before `first` were acknowledged when it began. Flips from `last` on were called after it ended.
        let first = sequence.writes.partition_point(|it| writes[*it].acknowledged < read.began);
        let last = sequence.writes.partition_point(|it| writes[*it].called <= read.ended);
        let last = last.max(first);
        if sequence.colors[first..=last].iter().all(|it| *it != read.color) {
            let since = first.checked_sub(1).map(|it| writes[sequence.writes[it]].flip);
            found.push(Conflict::Stale { request: read.request, since });
            continue;
        }
        // A color between two flips that lie within the request was active during it for certain.
        if first == last || sequence.colors[first + 1..last].contains(&read.color) {
            continue;
        }
        let (opens, closes) = (sequence.writes[first], sequence.writes[last - 1]);
        match (sequence.colors[first] == read.color, sequence.colors[last] == read.color) {
            (true, false) => not_before(&mut bounds[opens], read),
            (false, true) => not_after(&mut bounds[closes], read.ended, read.request),
            _ => constraints.push(NeighborConstraint {
                first: opens,
                began: read.began,
                second: closes,
                ended: read.ended,
                request: read.request,
            }),
        }
    }
    constraints.sort_by_key(|it| it.first);
    let mut constraints = constraints.into_iter().peekable();
    for index in 0..writes.len() {
        let Bounds { from, until } = bounds[index];
        let instant = until.0;
        if from.0 > until.0
            && let (Some(old), Some(new)) = (from.1, until.1)
        {
            found.push(Conflict::Backwards { flip: writes[index].flip, new, old });
        }
        while let Some(constraint) = constraints.next_if(|it| it.first == index) {
            if instant < constraint.began {
                not_after(&mut bounds[constraint.second], constraint.ended, constraint.request);
            }
        }
    }
    found
}

fn not_before(bounds: &mut Bounds, read: &RegisterRead) {
    if read.began > bounds.from.0 {
        bounds.from = (read.began, Some(read.request));
    }
}

fn not_after(bounds: &mut Bounds, ended: u64, request: usize) {
    if ended < bounds.until.0 {
        bounds.until = (ended, Some(request));
    }
}

fn flip_sequences(initial: &[Color], writes: &[RegisterWrite]) -> Vec<FlipSequence> {
    let sequence = |color: &Color| FlipSequence { writes: Vec::new(), colors: vec![*color] };
    let mut sequences: Vec<FlipSequence> = initial.iter().map(sequence).collect();
    for (index, write) in writes.iter().enumerate() {
        for (service, color) in &write.changes {
            let Some(sequence) = sequences.get_mut(usize::from(*service)) else { continue };
            // A flip to the active color is not visible.
            if write.is_reset || sequence.colors.last() != Some(color) {
                sequence.writes.push(index);
                sequence.colors.push(*color);
            }
        }
    }
    sequences
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
