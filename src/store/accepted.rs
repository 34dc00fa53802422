//! The calls with an idempotency key that were accepted.

use std::sync::Arc;

use crate::model::{Difference, Generation, VersionedMap};

/// A call that was accepted under an idempotency key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcceptedCall {
    /// The key, 1 to 255 characters.
    pub key: String,
    /// Distinguishes a repeated call from another call with the same key.
    pub fingerprint: String,
    /// The generation that the call made.
    pub generation: Generation,
    /// When it was accepted, in Unix seconds; `None` in what versions before 0.2.0 wrote.
    pub at: Option<u64>,
}

/// Accepted calls, oldest first and by key. Cheap to clone and to change, however many there are.
#[derive(Clone, Debug, Default)]
pub struct AcceptedCalls {
    by_order: VersionedMap<u64, Arc<AcceptedCall>>,
    orders: VersionedMap<Arc<str>, u64>,
}

// === impl AcceptedCalls ===

impl AcceptedCalls {
    /// How many are remembered.
    pub const MAX: usize = 10_000;

    /// How many expired calls one change removes at most, so that no change takes long.
    const FORGOTTEN_MAX: usize = 64;

    /// Adds a call and removes the oldest calls beyond the limit. Replaces a call with the same key.
    pub fn put(&mut self, call: AcceptedCall) {
        self.remove(&call.key);
        let order = self.by_order.last().map_or(0, |it| it.0 + 1);
        self.orders.insert(call.key.as_str().into(), order);
        self.by_order.insert(order, Arc::new(call));
        if self.len() > Self::MAX {
            self.forget_oldest();
        }
    }

    /// Removes the oldest expired calls, a limited number at once.
    pub fn forget(&mut self, is_old: impl Fn(&AcceptedCall) -> bool) {
        for _ in 0..Self::FORGOTTEN_MAX {
            if !self.iter().next().is_some_and(&is_old) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.iter().next().map(|it| it.key.clone());
        if let Some(key) = oldest {
            self.remove(&key);
        }
    }

    /// Removes the call with a key.
    pub fn remove(&mut self, key: &str) {
        if let Some(order) = self.orders.remove(key) {
            self.by_order.remove(&order);
        }
    }

    /// The call under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&AcceptedCall> {
        self.by_order.get(self.orders.get(key)?).map(|it| &**it)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &AcceptedCall> {
        self.by_order.values().map(|it| &**it)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// The calls that a later version has and this one does not, with their places; and the keys that it
    /// does not have any more. Takes time in proportion to what differs.
    #[must_use]
    pub fn changes<'a>(&'a self, later: &'a Self) -> (Vec<(u64, &'a AcceptedCall)>, Vec<&'a str>) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for difference in self.by_order.differences(&later.by_order) {
            match difference {
                Difference::Added(order, call) => put.push((*order, &**call)),
                // The order begins anew after all calls were removed.
                Difference::Changed(order, before, call) => {
                    put.push((*order, &**call));
                    if !later.orders.contains_key(before.key.as_str()) {
                        gone.push(before.key.as_str());
                    }
                }
                Difference::Removed(_, call) if !later.orders.contains_key(call.key.as_str()) => {
                    gone.push(call.key.as_str());
                }
                Difference::Removed(..) => {}
            }
        }
        (put, gone)
    }
}

/// The same calls in the same order; which numbers the order has does not matter.
impl PartialEq for AcceptedCalls {
    fn eq(&self, other: &Self) -> bool {
        self.by_order.is_same_version(&other.by_order)
            || self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for AcceptedCalls {}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: usize, generation: u64) -> AcceptedCall {
        AcceptedCall {
            key: format!("key-{number}"),
            fingerprint: "f".to_owned(),
            generation: Generation(generation),
            at: Some(generation),
        }
    }

    #[test]
    fn the_oldest_are_forgotten_beyond_the_limit_and_a_key_is_there_once() {
        let mut calls = AcceptedCalls::default();
        for number in 0..=AcceptedCalls::MAX {
            calls.put(call(number, 1));
        }
        assert_eq!(calls.len(), AcceptedCalls::MAX);
        assert_eq!(calls.iter().next(), Some(&call(1, 1)));
        assert_eq!((calls.get("key-0"), calls.get("key-2")), (None, Some(&call(2, 1))));
        calls.put(call(1, 2));
        assert_eq!(calls.len(), AcceptedCalls::MAX);
        assert_eq!(calls.iter().last(), Some(&call(1, 2)));
        assert_eq!(calls.iter().count(), AcceptedCalls::MAX);
    }

    #[test]
    fn changes_lists_only_added_and_removed_calls() {
        let mut calls = AcceptedCalls::default();
        (0..AcceptedCalls::MAX).for_each(|it| calls.put(call(it, 1)));
        let mut later = calls.clone();
        later.put(call(AcceptedCalls::MAX, 2));
        let (put, gone) = calls.changes(&later);
        assert_eq!((put.len(), put[0].1), (1, &call(AcceptedCalls::MAX, 2)));
        assert_eq!(gone, ["key-0"]);
        // After all calls were removed, a new call has the number of the first one: the first one is still reported as removed.
        let mut one = AcceptedCalls::default();
        one.put(call(1, 1));
        let mut other = one.clone();
        other.forget(|_| true);
        other.put(call(2, 2));
        let (put, gone) = one.changes(&other);
        assert_eq!((put[0].1, gone), (&call(2, 2), vec!["key-1"]));
        // A key that is used again is reported as new, not as removed.
        let mut again = later.clone();
        again.put(call(7, 3));
        let (put, gone) = later.changes(&again);
        assert_eq!((put.len(), put[0].1, gone.len()), (1, &call(7, 3), 0));
    }

    #[test]
    fn old_calls_are_removed_and_recent_calls_are_kept() {
        let mut calls = AcceptedCalls::default();
        (0..10).for_each(|it| calls.put(call(it, it as u64)));
        calls.forget(|it| it.at < Some(4));
        assert_eq!(calls.iter().map(|it| it.generation.0).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
        calls.forget(|_| false);
        assert_eq!(calls.len(), 6);
    }
}
