//! How many connections each client address has, on all workers together.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::{Networks, one_client};

/// The open connections of each client address. Asked when a connection opens and when it closes, but
/// not by requests.
#[derive(Debug)]
pub struct Crowd {
    max: usize,
    /// Addresses that are those of many clients, and have no limit.
    exempt: Networks,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place in the crowd; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Standing {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

// === impl Crowd ===

impl Crowd {
    /// At most so many connections of one address, unless it is one of `exempt`.
    #[must_use]
    pub fn new(max: usize, exempt: Networks) -> Self {
        Self { max, exempt, open: Mutex::default() }
    }

    /// Counts a connection in, unless its address has as many as it may.
    pub(super) fn join(self: &Arc<Self>, address: IpAddr) -> Option<Standing> {
        let max = if self.exempt.contains(address.to_canonical()) { usize::MAX } else { self.max };
        self.join_below(max, address)
    }

    /// Counts a connection in for which another one of its address is about to close.
    pub(super) fn join_instead(self: &Arc<Self>, address: IpAddr) -> Option<Standing> {
        self.join_below(usize::MAX, address)
    }

    fn join_below(self: &Arc<Self>, max: usize, address: IpAddr) -> Option<Standing> {
        let address = one_client(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Standing { crowd: Arc::clone(self), address })
    }

    /// The clients with more than so many connections, as [`one_client`] names them, but for those without
    /// a limit.
    pub(super) fn beyond(&self, share: usize) -> HashSet<IpAddr> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let many = open.iter().filter(|(address, count)| {
            **count > share && !self.exempt.contains(address.to_canonical())
        });
        many.map(|(address, _)| *address).collect()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut open = self.crowd.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let crowd = Arc::new(Crowd::new(2, Networks::default()));
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().expect("an address"));
        let places = [crowd.join(one), crowd.join(one)];
        assert!(places.iter().all(Option::is_some) && crowd.join(one).is_none());
        assert!(crowd.join(other).is_some(), "others have their own");
        drop(places);
        assert!(crowd.join(one).is_some());
        assert!(crowd.open.lock().expect("whole").is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn an_address_of_many_clients_has_no_limit_and_no_share() {
        let exempt = ["192.0.2.0/24".parse().expect("a network")].into_iter().collect();
        let crowd = Arc::new(Crowd::new(1, exempt));
        let [proxy, client] =
            ["192.0.2.1", "198.51.100.1"].map(|it| it.parse().expect("an address"));
        let _open = [crowd.join(proxy), crowd.join(proxy), crowd.join(proxy), crowd.join(client)]
            .map(|it| it.expect("a place"));
        assert!(crowd.join(client).is_none());
        let _more = crowd.join_instead(client).expect("one for one that closes");
        assert_eq!(crowd.beyond(1), [client].into());
        assert!(crowd.beyond(2).is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_client() {
        let crowd = Arc::new(Crowd::new(1, Networks::default()));
        let join = |it: &str| crowd.join(it.parse().expect("an address"));
        let _one = join("2001:db8::1").expect("the first");
        assert!(join("2001:db8::2").is_none() && join("2001:db8:0:1::1").is_some());
    }
}
