//! How many connections each client address has, on all workers together.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::model::one_client;

/// The open connections of each client address. Asked when a connection opens and when it closes, but
/// not by requests.
#[derive(Debug)]
pub struct Crowd {
    max: usize,
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
    /// At most so many connections of one address.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, open: Mutex::default() }
    }

    /// Counts a connection in, unless its address has as many as it may.
    pub(super) fn join(self: &Arc<Self>, address: IpAddr) -> Option<Standing> {
        let address = one_client(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Standing { crowd: Arc::clone(self), address })
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
        let crowd = Arc::new(Crowd::new(2));
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().expect("an address"));
        let places = [crowd.join(one), crowd.join(one)];
        assert!(places.iter().all(Option::is_some) && crowd.join(one).is_none());
        assert!(crowd.join(other).is_some(), "others have their own");
        drop(places);
        assert!(crowd.join(one).is_some());
        assert!(crowd.open.lock().expect("whole").is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_client() {
        let crowd = Arc::new(Crowd::new(1));
        let join = |it: &str| crowd.join(it.parse().expect("an address"));
        let _one = join("2001:db8::1").expect("the first");
        assert!(join("2001:db8::2").is_none() && join("2001:db8:0:1::1").is_some());
    }
}
