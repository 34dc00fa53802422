//! The failures of a watch by client: no single client can make a good color fail.
//!
//! # Which failures count
//!
//! [`FailingClients`] keeps, for each address, the failures since [`FailingClients::forget`] and how many of them
//! counted. In each tick it first adds all failures of the tick. Then it counts the failures of an address as long as
//! the sum of its counted failures is at most the failures of all *other* addresses, or 1. The result does not depend
//! on the order of the addresses within the tick. A failure that does not count is dropped for good: it is neither a
//! failure nor a good answer.
//!
//! - **The bound on false alarms holds.** In every tick, at most the failures of this tick count, and the other answers
//!   stay the same. The evidence of the test grows with the failures of each tick, so it is at most the evidence
//!   without this file, for which the bound was shown. Failures must not move to a later tick: that could raise the
//!   evidence.
//! - **None supplies more than half of the failures** as soon as another address has failed, since what counts of an
//!   address is at most what came of the others. The one failure that is always allowed makes the first failure of a
//!   dead color count. With `clients` of 3 or more it is never the reason for an alarm: the others have at least 2 by
//!   then.
//! - **Old failures give no credit.** The caller calls `forget` whenever the test says that a rise of the share, if
//!   there is one, is most likely still to come. Without it, a few failures a minute of many clients would sum up, and
//!   a single client could match all of them in one second. The number of addresses is also counted since then.
//! - **One client is enough if `clients` is 0 or 1**: then every failure counts.
//!
//! # What it does not prevent
//!
//! - A client with `clients` addresses or more can fire the test. One that owns an IPv6 network larger than a /64 has
//!   as many.
//! - One client can double the failures of the others. Simulated, with a limit of 5 %, 10 to 1,000 requests/s, and one
//!   client that adds as many failing requests as all others send requests: if the others fail at 1 %, 0 of 6,000
//!   watches fire; at 2 %, up to 4 of 1,000; at 3 %, 33 to 94 %.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv6Addr},
};

/// The most addresses that are distinguished. All further ones count as one address, which lowers what counts.
const ADDRESSES_MAX: usize = 1024;

/// The bits of an IPv6 address that count: a host usually has a /64 for itself (RFC 4291, section 2.5.4).
const IPV6_MASK: u128 = !0 << 64;

/// Counts failures by client, and says which of them count.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FailingClients {
    /// So many addresses must have failures: 1 to [`ADDRESSES_MAX`].
    needed: usize,
    /// At most [`ADDRESSES_MAX`], each with at least one failure.
    by_address: BTreeMap<IpAddr, ClientFailures>,
    /// Of all further addresses.
    rest: ClientFailures,
    /// Of all addresses.
    all: u64,
}

/// The failures of one client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct ClientFailures {
    /// All of them.
    seen: u64,
    /// Those that counted.
    counted: u64,
}

// === impl FailingClients ===

impl FailingClients {
    /// Failures must come from at least `needed` addresses: 1 to 1,024; others count as the nearest of these.
    pub(super) fn new(needed: usize) -> Self {
        let needed = needed.clamp(1, ADDRESSES_MAX);
        Self { needed, by_address: BTreeMap::new(), rest: ClientFailures::default(), all: 0 }
    }

    /// Adds the failures of one tick and returns how many of them count. An address may occur several times.
    ///
    /// Clients without an address (of a Unix socket) may share one, such as `0.0.0.0`; they then count as one client.
    pub(super) fn count(&mut self, failures: &[(IpAddr, u64)]) -> u64 {
        for (address, count) in failures.iter().filter(|it| it.1 > 0) {
            let client = self.client_or_rest(client_of(*address));
            client.seen = client.seen.saturating_add(*count);
            self.all = self.all.saturating_add(*count);
        }
        let mut counted = 0_u64;
        for (address, count) in failures.iter().filter(|it| it.1 > 0) {
            let (needed, all) = (self.needed, self.all);
            let client = self.client_or_rest(client_of(*address));
            let allowed = if needed == 1 { u64::MAX } else { (all - client.seen.min(all)).max(1) };
            let counts = allowed.saturating_sub(client.counted).min(*count);
            client.counted = client.counted.saturating_add(counts);
            counted = counted.saturating_add(counts);
        }
        counted
    }

    /// Whether enough addresses have failures.
    pub(super) fn are_enough(&self) -> bool {
        self.len() >= self.needed
    }

    /// How many addresses have failures. Those beyond 1,024 count as one.
    pub(super) fn len(&self) -> usize {
        self.by_address.len() + usize::from(self.rest.seen > 0)
    }

    /// Forgets all failures.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.needed);
    }

    fn client_or_rest(&mut self, client: IpAddr) -> &mut ClientFailures {
        let is_full = self.by_address.len() >= ADDRESSES_MAX;
        match self.by_address.entry(client) {
            Entry::Occupied(it) => it.into_mut(),
            Entry::Vacant(_) if is_full => &mut self.rest,
            Entry::Vacant(it) => it.insert(ClientFailures::default()),
        }
    }
}

/// The address that stands for a client: an IPv4 address, or the /64 of an IPv6 address.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() & IPV6_MASK).into(),
        it @ IpAddr::V4(_) => it,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 | number).to_be_bytes())
    }

    #[test]
    fn of_one_client_as_many_failures_count_as_the_others_have() {
        let mut clients = FailingClients::new(3);
        assert_eq!(clients.count(&[(client(1), 100)]), 1, "one failure always counts");
        assert_eq!(clients.count(&[(client(1), 100)]), 0);
        assert_eq!(clients.count(&[(client(2), 3)]), 3, "client 1 has more");
        assert_eq!(clients.count(&[(client(1), 100)]), 2, "3 of client 1 in all");
        assert!(!clients.are_enough());
        assert_eq!(clients.count(&[(client(3), 5), (client(1), 100), (client(2), 1)]), 12);
        assert!(clients.are_enough());
        assert_eq!(clients.count(&[(client(1), 100)]), 0);
    }

    #[test]
    fn the_order_within_a_tick_does_not_matter() {
        let tick = [(client(1), 9), (client(2), 2), (client(3), 1), (client(1), 4)];
        let mut reversed = tick;
        reversed.reverse();
        let (mut one, mut other) = (FailingClients::new(3), FailingClients::new(3));
        assert_eq!(one.count(&tick), 6);
        assert_eq!(other.count(&reversed), 6);
        assert_eq!(one, other);
    }

    #[test]
    fn if_one_client_is_enough_every_failure_counts() {
        for needed in [0, 1] {
            let mut clients = FailingClients::new(needed);
            assert!(!clients.are_enough(), "there is no failure yet");
            assert_eq!(clients.count(&[(client(1), 7)]), 7);
            assert!(clients.are_enough());
        }
    }

    #[test]
    fn two_clients_with_half_of_the_failures_each_count_in_full() {
        let mut clients = FailingClients::new(2);
        for _ in 0..100 {
            assert_eq!(clients.count(&[(client(1), 5), (client(2), 5)]), 10);
        }
        assert!(clients.are_enough());
    }

    #[test]
    fn what_came_before_forget_gives_no_credit() {
        let mut clients = FailingClients::new(3);
        for number in 0..500 {
            clients.count(&[(client(number), 1)]);
        }
        clients.forget();
        assert_eq!(clients.len(), 0);
        assert_eq!(clients.count(&[(client(1), 100)]), 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_and_mapped_addresses_are_one_client() {
        let mut clients = FailingClients::new(3);
        for address in ["2001:db8::1", "2001:db8::ffff:0:0:1", "192.0.2.1", "::ffff:192.0.2.1"] {
            clients.count(&[(address.parse().unwrap(), 1)]);
        }
        assert_eq!(clients.len(), 2);
        clients.count(&[("2001:db8:0:1::1".parse().unwrap(), 1)]);
        assert_eq!(clients.len(), 3);
    }

    #[test]
    fn memory_is_bounded_and_further_addresses_count_as_one() {
        let mut clients = FailingClients::new(3);
        let counted: u64 = (0..1024).map(|it| clients.count(&[(client(it), 1)])).sum();
        assert_eq!(counted, 1024, "different clients count in full");
        let counted: u64 = (1024..100_000).map(|it| clients.count(&[(client(it), 1)])).sum();
        assert_eq!(counted, 1024, "the rest counts as one client");
        assert_eq!((clients.len(), clients.by_address.len()), (1025, 1024));
    }

    #[test]
    fn every_count_is_allowed() {
        let mut clients = FailingClients::new(2);
        clients.count(&[(client(1), u64::MAX), (client(2), u64::MAX), (client(1), 1)]);
        clients.count(&[(client(1), u64::MAX), (client(3), 0)]);
        assert_eq!(clients.len(), 2, "a client without failures is none");
        assert_eq!(clients.count(&[]), 0);
    }
}
