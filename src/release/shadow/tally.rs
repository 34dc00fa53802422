//! Counts the copied requests, and keeps the first differences. Pure.

use super::compare::{Aspect, Obstacle, Outcome};
use crate::upstream::{NotCopied, OpenTap};

/// The most differences that are reported.
const REPORTED_MAX: usize = 5;

/// The copied requests so far.
#[derive(Debug, Default)]
pub(in crate::release) struct Tally {
    pub(in crate::release) compared: u64,
    pub(in crate::release) different: u64,
    noise: [u64; Aspect::ALL.len()],
    not_compared: [u64; Obstacle::ALL.len()],
    /// The first differences, each once.
    pub(in crate::release) differences: Vec<String>,
}

// === impl Tally ===

impl Tally {
    /// Counts a result.
    pub(in crate::release) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::NotCompared(why) => self.not_compared[why as usize] += 1,
            Outcome::Compared { noise, difference } => {
                self.compared += 1;
                noise.iter().for_each(|it| self.noise[*it as usize] += 1);
                if let Some(difference) = difference {
                    self.different += 1;
                    if self.differences.len() < REPORTED_MAX
                        && !self.differences.contains(&difference)
                    {
                        self.differences.push(difference);
                    }
                }
            }
        }
    }

    /// What was compared and what was not, in sentences.
    pub(in crate::release) fn evidence(&self, tap: &OpenTap) -> Vec<String> {
        let mut evidence = vec![format!("requests copied: {}", tap.copied())];
        let queued = u64::try_from(tap.queued()).unwrap_or(u64::MAX);
        let dropped = tap.not_copied(NotCopied::Dropped);
        let not_copied = NotCopied::ALL.map(|it| (it, tap.not_copied(it)));
        let skipped = not_copied.iter().filter(|it| it.0 != NotCopied::Dropped);
        let skipped = skipped.map(|(why, count)| (described(*why), *count));
        let lists = [
            ("not copied", list(skipped)),
            ("dropped", list([("because the queue was full", dropped)].into_iter())),
            ("not sent", list([("that waited at the end", queued)].into_iter())),
            (
                "not compared",
                list(Obstacle::ALL.iter().map(|it| (it.as_str(), self.not_compared[*it as usize]))),
            ),
            (
                "not judged, because two responses of the active color differ",
                list(Aspect::ALL.iter().map(|it| (it.as_str(), self.noise[*it as usize]))),
            ),
        ];
        let listed = lists.into_iter().filter(|(_, list)| !list.is_empty());
        evidence.extend(listed.map(|(what, list)| format!("{what}: {list}")));
        evidence
    }
}

/// The counts that are not 0, each with what it counts.
fn list<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let some = counts.filter(|it| it.1 > 0);
    some.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn described(why: NotCopied) -> &'static str {
    match why {
        NotCopied::Credentials => "with credentials",
        NotCopied::Range => "with Range",
        NotCopied::Conditional => "conditional",
        NotCopied::Body => "with a body or an upgrade",
        NotCopied::Excluded => "excluded by path",
        NotCopied::Dropped => "dropped",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::upstream::{Tap, TapSettings};

    #[test]
    fn everything_is_counted_and_the_first_differences_are_kept_once() {
        let settings = TapSettings { share: 100, credentials: false, exclude: Vec::new() };
        let tap = Arc::new(Tap::default());
        let open = tap.open(settings).expect("it was closed");
        let queue = tap.queue().expect("open");
        queue.push(b"head");
        [NotCopied::Range, NotCopied::Dropped].into_iter().for_each(|it| queue.skip(it));
        let mut tally = Tally::default();
        let compared = |noise: &[Aspect], difference: Option<String>| Outcome::Compared {
            noise: noise.to_vec(),
            difference,
        };
        tally.add(compared(&[Aspect::Body, Aspect::Headers], None));
        (0..10).for_each(|it| tally.add(compared(&[], Some(format!("d{}", it / 2 * 2)))));
        tally.add(Outcome::NotCompared(Obstacle::NotModified));
        assert_eq!((tally.compared, tally.different), (11, 10));
        assert_eq!(tally.differences, ["d0", "d2", "d4", "d6", "d8"]);
        assert_eq!(
            tally.evidence(&open),
            [
                "requests copied: 1",
                "not copied: 1 with Range",
                "dropped: 1 because the queue was full",
                "not sent: 1 that waited at the end",
                "not compared: 1 with status 304",
                "not judged, because two responses of the active color differ: 1 headers, 1 parts of the body",
            ]
        );
    }

    #[test]
    fn each_count_has_its_place() {
        assert!(Obstacle::ALL.iter().enumerate().all(|(place, it)| *it as usize == place));
        assert!(Aspect::ALL.iter().enumerate().all(|(place, it)| *it as usize == place));
    }
}
