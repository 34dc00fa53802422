//! Is there an order in which the table is one register that flips?
//!
//! Every flip has a call and an acknowledgement, and happened at one instant between the two. Every
//! request has a begin and the head of its answer, and was decided on at one instant between these. The
//! check looks for an instant for each flip such that every request was answered by what was active at
//! some instant of its own: linearizability of a single register whose values are known (Herlihy and
//! Wing, 1990; Gibbons and Korach, 1997, section 4 for known read mappings).
//!
//! Since flips do not overlap, it is decided exactly and in one pass: what a request says of the flips
//! around it is a bound for the instant of one (`the old color answered, so the flip was not before this
//! request began`), or one of two bounds for neighbors. Taking every instant as late as its bounds
//! allow satisfies the others if anything does.
//!
//! The same pass over several services at once, where a flip of many has one instant, finds flips that
//! were seen in halves.

use crate::color::Color;

/// A request, as far as the register is concerned.
#[derive(Clone, Copy, Debug)]
pub struct RegisterRead {
    /// Where it stands among all requests.
    pub request: usize,
    /// Which service it asked, counted from 0.
    pub service: u8,
    /// The color that answered.
    pub color: Color,
    /// When it was sent, in nanoseconds of [`crate::sample::now_ns`].
    pub began: u64,
    /// When the head of its response was there.
    pub ended: u64,
}

/// A flip that is known to have happened.
#[derive(Clone, Debug)]
pub struct RegisterWrite {
    /// Where it stands among all flips.
    pub flip: usize,
    /// The services that it changed, each with the color that it made active.
    pub changes: Vec<(u8, Color)>,
    /// When it was called, in nanoseconds of [`crate::sample::now_ns`].
    pub called: u64,
    /// When its acknowledgement was there.
    pub acknowledged: u64,
    /// Whether the color before it is not known, so that it counts whatever that was.
    pub is_reset: bool,
}

/// Why there is no such order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conflict {
    /// A request was answered by a color that was not active at any instant of it.
    Stale {
        /// The request's place, as in [`RegisterRead::request`].
        request: usize,
        /// The flip that had made the other color active; none for the color at the beginning.
        since: Option<usize>,
    },
    /// One request shows that a flip had happened, and another, which began later, that it had not.
    Backwards {
        /// The flip's place, as in [`RegisterWrite::flip`].
        flip: usize,
        /// The request that the new color answered.
        new: usize,
        /// The later request that the old color answered.
        old: usize,
    },
}

/// The flips of one service that change it.
#[derive(Debug, Default)]
struct FlipSequence {
    /// Places in the writes.
    writes: Vec<usize>,
    /// The color before each of them, and after the last.
    colors: Vec<Color>,
}

/// What is known of the instant of a flip.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Not before, and the request that says so.
    from: (u64, Option<usize>),
    /// Not after.
    until: (u64, Option<usize>),
}

/// Not both: a flip before `began` and its neighbor after `ended`.
#[derive(Clone, Copy, Debug)]
struct NeighborConstraint {
    first: usize,
    began: u64,
    second: usize,
    ended: u64,
    request: usize,
}

/// Every conflict that is found: each stale request, and for each flip at most one that goes backwards.
///
/// `writes` are in order and do not overlap; `initial` has the color of each service at the beginning.
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
    let (mut found, mut eithers) = (Vec::new(), Vec::new());
    for read in reads {
        let Some(sequence) = sequences.get(usize::from(read.service)) else { continue };
        // Flips before `first` were over when it began; from `last` on they began after it ended.
        let first = sequence.writes.partition_point(|it| writes[*it].acknowledged < read.began);
        let last = sequence.writes.partition_point(|it| writes[*it].called <= read.ended);
        let last = last.max(first);
        if sequence.colors[first..=last].iter().all(|it| *it != read.color) {
            let since = first.checked_sub(1).map(|it| writes[sequence.writes[it]].flip);
            found.push(Conflict::Stale { request: read.request, since });
            continue;
        }
        // Between two flips that it met whole, it met a color for certain.
        if first == last || sequence.colors[first + 1..last].contains(&read.color) {
            continue;
        }
        let (opens, closes) = (sequence.writes[first], sequence.writes[last - 1]);
        match (sequence.colors[first] == read.color, sequence.colors[last] == read.color) {
            (true, false) => not_before(&mut bounds[opens], read),
            (false, true) => not_after(&mut bounds[closes], read.ended, read.request),
            _ => eithers.push(NeighborConstraint {
                first: opens,
                began: read.began,
                second: closes,
                ended: read.ended,
                request: read.request,
            }),
        }
    }
    eithers.sort_by_key(|it| it.first);
    let mut eithers = eithers.into_iter().peekable();
    for index in 0..writes.len() {
        let Bounds { from, until } = bounds[index];
        let instant = until.0;
        if from.0 > until.0
            && let (Some(old), Some(new)) = (from.1, until.1)
        {
            found.push(Conflict::Backwards { flip: writes[index].flip, new, old });
        }
        while let Some(either) = eithers.next_if(|it| it.first == index) {
            if instant < either.began {
                not_after(&mut bounds[either.second], either.ended, either.request);
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
            // What changes nothing cannot be seen.
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
