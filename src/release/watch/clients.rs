//! The failures of a watch by client: no single client can make a good version fail.

use std::{collections::HashMap, net::IpAddr};

/// The most clients that are distinguished. All further ones count as one client, which lowers what counts.
const CLIENTS_MAX: usize = 1024;

/// Counts failures by client, and says which of them count.
#[derive(Clone, Debug)]
pub(super) struct FailingClients {
    /// So many clients must have failures.
    needed: usize,
    by_client: HashMap<Option<IpAddr>, u64>,
    total: u64,
    largest: u64,
    /// Failures that were counted.
    counted: u64,
}

// === impl FailingClients ===

impl FailingClients {
    /// Failures of at least `needed` clients count. With 1, one client is enough.
    pub(super) fn new(needed: usize) -> Self {
        Self { needed, by_client: HashMap::new(), total: 0, largest: 0, counted: 0 }
    }

    /// Adds the failures of one tick, and returns how many of them count: never more than came, and in all never more of
    /// one client than of all others together, unless one client is enough.
    ///
    /// Failures that do not count are dropped. They are not counted as good answers.
    pub(super) fn add(&mut self, failures: &[(Option<IpAddr>, u64)]) -> u64 {
        let mut came = 0;
        for (client, count) in failures {
            let is_known = self.by_client.contains_key(client);
            let key = if is_known || self.by_client.len() < CLIENTS_MAX { *client } else { None };
            let of_client = self.by_client.entry(key).or_default();
            *of_client += count;
            self.largest = self.largest.max(*of_client);
            came += count;
        }
        self.total += came;
        let allowed = match self.needed {
            0 | 1 => self.total,
            _ => self.total.min(2 * (self.total - self.largest)),
        };
        let counts = allowed.saturating_sub(self.counted).min(came);
        self.counted += counts;
        counts
    }

    /// Whether enough clients have failures.
    pub(super) fn are_enough(&self) -> bool {
        self.by_client.len() >= self.needed
    }

    /// How many clients have failures.
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn one_client_alone_counts_for_nothing_and_at_most_as_the_others_together() {
        let mut clients = FailingClients::new(3);
        assert_eq!(clients.add(&[(client(1), 100)]), 0);
        assert_eq!(
            clients.add(&[(client(2), 3)]),
            3,
            "3 of client 2, and 3 of client 1 are allowed"
        );
        assert_eq!(clients.add(&[(client(1), 100)]), 3, "the 3 of client 1");
        assert_eq!(clients.add(&[(client(1), 100)]), 0);
        assert!(!clients.are_enough());
        assert_eq!(clients.add(&[(client(3), 5), (client(4), 5)]), 10);
        assert!(clients.are_enough());
        assert_eq!(clients.add(&[(client(1), 100)]), 10);
        assert_eq!(clients.counted, 26);
        assert_eq!(clients.total - clients.largest, 13);
    }

    #[test]
    fn behind_one_address_every_failure_counts() {
        let mut clients = FailingClients::new(1);
        assert!(!clients.are_enough(), "no failure yet");
        assert_eq!(clients.add(&[(client(1), 7)]), 7);
        assert!(clients.are_enough());
    }

    #[test]
    fn failures_of_different_clients_all_count_and_memory_is_bounded() {
        let mut clients = FailingClients::new(3);
        for number in 0..10_000_u32 {
            let address = Some(IpAddr::from(number.to_be_bytes()));
            clients.add(&[(address, 1)]);
        }
        assert_eq!(clients.len(), CLIENTS_MAX + 1);
        // The first one has nothing to be compared with, and then each has.
        assert!(clients.counted >= 2 * 1024 - 2, "{}", clients.counted);
    }
}
