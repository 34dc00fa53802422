//! What is known of the pins of a service while the process runs.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::members::Members;
use crate::model::Color;

/// The pins of a service in use. Tables of later generations keep it; it does not survive the process.
#[derive(Debug)]
pub struct PinActivity {
    members: Members,
    /// Requests of the service in the current interval, for the share.
    requests: AtomicU64,
    /// Pinned requests in the current interval.
    pinned_requests: AtomicU64,
    /// The first of them, by the order of their pins.
    pinned: Mutex<Vec<u32>>,
    /// Pins of a smaller order have lapsed.
    oldest: AtomicU32,
    /// Whether there may be a pin to blue, and to green.
    has_pins: [AtomicBool; 2],
}

/// The most pinned requests of one interval that are remembered. Of more, the first ones stand for all.
const SAMPLES_MAX: usize = 10_000;

/// The fewest requests of an interval of which a share is judged.
const REQUESTS_MIN: u64 = 20;

// === impl PinActivity ===

impl PinActivity {
    /// No activity. `secret` must be random. `has_pins`: whether there may be pins of an earlier process.
    #[must_use]
    pub fn new(secret: [u8; 16], has_pins: bool) -> Self {
        Self {
            members: Members::new(secret),
            requests: AtomicU64::new(0),
            pinned_requests: AtomicU64::new(0),
            pinned: Mutex::default(),
            oldest: AtomicU32::new(0),
            has_pins: [has_pins, has_pins].map(AtomicBool::new),
        }
    }

    /// Whether there may be a pin to this color.
    #[must_use]
    pub fn has_pins(&self, color: Color) -> bool {
        self.has_pins[color as usize].load(Relaxed)
    }

    /// Notes that there may be a pin to this color, or that there is none any more.
    pub fn set_has_pins(&self, color: Color, has_pins: bool) {
        let known = &self.has_pins[color as usize];
        if known.load(Relaxed) != has_pins {
            known.store(has_pins, Relaxed);
        }
    }

    /// The transactions.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Counts a request of the service, while pins hold a color.
    pub fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Whether a pin has lapsed because pins had too large a share. If not, counts the request as pinned.
    #[must_use]
    pub fn admits(&self, order: u32) -> bool {
        if order < self.oldest.load(Relaxed) {
            return false;
        }
        self.pinned_requests.fetch_add(1, Relaxed);
        let mut pinned = self.pinned();
        if pinned.len() < SAMPLES_MAX {
            pinned.push(order);
        }
        true
    }

    /// Ends an interval: if pins had more than `max_share` percent of its requests, the oldest ones lapse until the rest
    /// has that share. An interval with few requests goes on.
    pub fn limit_share(&self, max_share: u8) {
        if self.requests.load(Relaxed) < REQUESTS_MIN {
            return;
        }
        let requests = self.requests.swap(0, Relaxed);
        let total = self.pinned_requests.swap(0, Relaxed);
        let mut pinned = std::mem::take(&mut *self.pinned());
        let allowed = requests * u64::from(max_share) / 100;
        if total <= allowed || pinned.is_empty() {
            return;
        }
        // The part of the remembered ones that may stay, as of all.
        let allowed = pinned.len() as u64 * allowed / total;
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        pinned.sort_unstable();
        // The oldest that stays. Pins of the same order lapse together.
        let first_kept = pinned.len() - allowed;
        let oldest = match pinned.get(first_kept) {
            Some(order) if pinned[first_kept - 1] == *order => order.saturating_add(1),
            Some(order) => *order,
            None => pinned[first_kept - 1].saturating_add(1),
        };
        self.oldest.fetch_max(oldest, Relaxed);
    }

    fn pinned(&self) -> MutexGuard<'_, Vec<u32>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(activity: &PinActivity, orders: impl IntoIterator<Item = u32>, others: usize) {
        let mut requests = others;
        for order in orders {
            requests += 1;
            let _ = activity.admits(order);
        }
        (0..requests).for_each(|_| activity.count_request());
    }

    #[test]
    fn the_oldest_pins_lapse_until_the_rest_has_its_share() {
        let activity = PinActivity::new([1; 16], false);
        interval(&activity, 0..50, 50);
        activity.limit_share(20);
        assert!(!activity.admits(29) && activity.admits(30), "20 of 100 stay");
        activity.limit_share(20);
        // They do not come back when there is room again.
        interval(&activity, [45], 99);
        activity.limit_share(20);
        assert!(!activity.admits(29));
    }

    #[test]
    fn a_share_that_is_kept_and_a_few_requests_change_nothing() {
        let activity = PinActivity::new([1; 16], false);
        interval(&activity, 0..20, 80);
        activity.limit_share(20);
        interval(&activity, 0..19, 0);
        activity.limit_share(20);
        assert!(activity.admits(0));
    }

    #[test]
    fn the_share_of_few_requests_is_judged_over_several_intervals() {
        let activity = PinActivity::new([1; 16], false);
        for _ in 0..10 {
            interval(&activity, 0..9, 1);
            activity.limit_share(10);
        }
        assert!(!activity.admits(0));
    }

    #[test]
    fn a_share_of_more_requests_than_are_remembered_is_kept() {
        let activity = PinActivity::new([1; 16], false);
        interval(&activity, (0..100_000).map(|it| it % 1000), 100_000);
        activity.limit_share(10);
        assert!(!activity.admits(700), "a fifth of the pinned requests may stay");
        assert!(activity.admits(900));
    }

    #[test]
    fn with_no_share_at_all_every_pin_lapses() {
        let activity = PinActivity::new([1; 16], false);
        interval(&activity, [3, 3, 7], 40);
        activity.limit_share(0);
        assert!(!activity.admits(7) && activity.admits(8));
    }
}
