//! The limits of a service: concurrent requests, and requests per second of one client.

use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::model::{RateLimit, ServiceLimits, client_key};

/// A limit on how many of something exist at once.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    max: usize,
    in_use: AtomicUsize,
}

/// A client may hold as many permits as are free: one client alone gets a half, two get a third each.
pub const CLIENT_SHARE_FACTOR: usize = 1;

/// A service may hold four times as many permits as are free: one service alone gets four fifths, two get four ninths
/// each.
pub const SERVICE_SHARE_FACTOR: usize = 4;

/// What a browser with a few tabs uses at once; always allowed.
const FAIR_MIN: usize = 16;

/// Counts one towards a [`ConcurrencyLimit`] until dropped.
#[derive(Debug)]
pub struct ConcurrencyPermit(Arc<ConcurrencyLimit>);

/// The limits of a service. Both of its pools share them, so a flip does not reset them.
#[derive(Debug)]
pub struct Admission {
    in_flight: Option<Arc<ConcurrencyLimit>>,
    rate: Option<ClientRates>,
    limits: (Option<usize>, Option<RateLimit>),
}

/// The recent requests of each client address.
struct ClientRates {
    /// Each has a part of the addresses, so that workers rarely wait for each other.
    shards: Box<[RateShard]>,
    quota: Quota,
    hashing: SeededHasher,
    clock: DefaultClock,
}

/// The clients of one shard.
struct RateShard {
    clients: ArcSwap<KeyedLimiter>,
    /// Requests since the number of clients was last checked.
    since_check: AtomicUsize,
}

/// By address as an IPv6 number.
type KeyedLimiter = RateLimiter<u128, HashMapStateStore<u128, SeededHasher>, DefaultClock>;

/// Hashes addresses with a secret seed, so that clients cannot choose addresses of one shard.
#[derive(Clone, Copy)]
struct SeededHasher(u64);

struct FoldingHasher(u64);

const SHARDS: usize = 16;

/// The golden ratio as a 64-bit fraction; odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The maximum of addresses in a shard. Above it, clients with a full quota are removed; if that is not enough, all
/// are, which costs less than to remember or to refuse new clients.
const ADDRESSES_MAX: usize = 16 * 1024;

/// Requests between two checks of the number of addresses.
const CHECK_EVERY: usize = 1024;

// === impl ConcurrencyLimit ===

impl ConcurrencyLimit {
    /// A limit of `max`.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, in_use: AtomicUsize::new(0) })
    }

    /// One more permit, unless the limit is reached.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>) -> Option<ConcurrencyPermit> {
        // Counted first, so that two concurrent calls cannot both take the last permit.
        let permit = ConcurrencyPermit(Arc::clone(self));
        (self.in_use.fetch_add(1, Relaxed) < self.max).then_some(permit)
    }

    /// Whether a client or service that holds `held` permits may have one more: up to `times` as many as are free. So
    /// some permits stay free for others, however many a few of them want, and nothing is refused while less than half
    /// is in use (dynamic thresholds: Choudhury and Hahne, 1998). A few are always allowed.
    #[must_use]
    pub fn is_within_share(&self, held: usize, times: usize) -> bool {
        held <= FAIR_MIN || held <= self.max.saturating_sub(self.in_use()).saturating_mul(times)
    }

    /// Permits in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Relaxed)
    }

    /// Whether all permits are in use.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.in_use() >= self.max
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Relaxed);
    }
}

// === impl Admission ===

impl Admission {
    /// No requests counted yet.
    #[must_use]
    pub fn new(limits: &ServiceLimits) -> Arc<Self> {
        Arc::new(Self {
            in_flight: limits.in_flight.map(ConcurrencyLimit::new),
            rate: limits.client_rate.map(ClientRates::new),
            limits: (limits.in_flight, limits.client_rate),
        })
    }

    /// Whether it was made for these limits.
    #[must_use]
    pub fn matches(&self, limits: &ServiceLimits) -> bool {
        self.limits == (limits.in_flight, limits.client_rate)
    }

    /// The limit on concurrent requests, if there is one.
    #[must_use]
    pub fn in_flight(&self) -> Option<&Arc<ConcurrencyLimit>> {
        self.in_flight.as_ref()
    }

    /// Counts a request of a client.
    ///
    /// # Errors
    ///
    /// The seconds until the client may send the next request, if it is over its rate.
    pub fn check_rate(&self, client: Option<IpAddr>) -> Result<(), NonZeroU32> {
        match (&self.rate, client) {
            (Some(rates), Some(client)) => rates.check_rate(client),
            _ => Ok(()),
        }
    }
}

// === impl ClientRates ===

impl ClientRates {
    fn new(rate: RateLimit) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let hashing = SeededHasher::default();
        let part = || RateShard {
            clients: ArcSwap::from_pointee(KeyedLimiter::hashmap_with_hasher(quota, hashing)),
            since_check: AtomicUsize::new(0),
        };
        let shards = (0..SHARDS).map(|_| part()).collect();
        Self { shards, quota, hashing, clock: DefaultClock::default() }
    }

    fn check_rate(&self, client: IpAddr) -> Result<(), NonZeroU32> {
        let client = match client_key(client) {
            IpAddr::V4(it) => u128::from(it.to_ipv6_mapped()),
            IpAddr::V6(it) => u128::from(it),
        };
        // The lower bits choose the bucket within the shard.
        let index = (self.hashing.hash_one(client) >> 32) % SHARDS as u64;
        let RateShard { clients: part, since_check } =
            &self.shards[usize::try_from(index).unwrap_or_default()];
        let mut clients = part.load();
        if since_check.fetch_add(1, Relaxed) >= CHECK_EVERY {
            since_check.store(0, Relaxed);
            if clients.len() >= ADDRESSES_MAX {
                clients.retain_recent();
            }
            if clients.len() >= ADDRESSES_MAX {
                part.store(Arc::new(KeyedLimiter::hashmap_with_hasher(self.quota, self.hashing)));
                clients = part.load();
            }
        }
        clients.check_key(&client).map_err(|too_soon| {
            let wait = too_soon.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            u32::try_from(seconds).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
        })
    }
}

impl Default for SeededHasher {
    /// A hasher with a random seed.
    fn default() -> Self {
        Self(fastrand::u64(..))
    }
}

impl BuildHasher for SeededHasher {
    type Hasher = FoldingHasher;

    fn build_hasher(&self) -> FoldingHasher {
        FoldingHasher(self.0)
    }
}

impl Hasher for FoldingHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    fn write_u128(&mut self, number: u128) {
        let halves = [number as u64, (number >> 64) as u64];
        for half in halves {
            // Folded multiplication: each input bit changes half of the output bits.
            let wide = u128::from(self.0 ^ half).wrapping_mul(u128::from(GOLDEN));
            self.0 = ((wide >> 64) as u64 ^ wide as u64).wrapping_add(GOLDEN);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl std::fmt::Debug for ClientRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientRates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_limit() {
        let limit = ConcurrencyLimit::new(2);
        let inside = [limit.try_acquire(), limit.try_acquire()];
        assert!(inside.iter().all(Option::is_some));
        assert!(
            limit.try_acquire().is_none() && limit.in_use() == 2,
            "a refused one is not counted"
        );
        drop(inside);
        assert!(limit.try_acquire().is_some() && limit.in_use() == 0);
    }

    #[test]
    fn some_permits_stay_free_however_many_a_few_clients_want() {
        let take_all = |count: usize, times| {
            let limit = ConcurrencyLimit::new(1000);
            let mut held: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
            loop {
                let before = limit.in_use();
                for own in &mut held {
                    if limit.is_within_share(own.len(), times) {
                        own.extend(limit.try_acquire());
                    }
                }
                if limit.in_use() == before {
                    let others = limit.is_within_share(0, times) && limit.try_acquire().is_some();
                    return (held.iter().map(Vec::len).collect::<Vec<_>>(), others);
                }
            }
        };
        assert_eq!(take_all(1, CLIENT_SHARE_FACTOR), (vec![501], true));
        assert_eq!(take_all(2, CLIENT_SHARE_FACTOR), (vec![334, 334], true));
        assert_eq!(take_all(1, SERVICE_SHARE_FACTOR), (vec![801], true));
        let (held, others) = take_all(100, CLIENT_SHARE_FACTOR);
        assert!(held.iter().all(|it| *it >= 9), "{held:?} {others}");
        let (held, others) = take_all(20, CLIENT_SHARE_FACTOR);
        assert!(others && held.iter().all(|it| (47..=48).contains(it)), "{held:?}");
    }

    #[test]
    fn each_client_has_its_own_rate_and_a_retry_after() {
        let rate =
            RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN.saturating_add(1) };
        let admission =
            Admission::new(&ServiceLimits { client_rate: Some(rate), ..ServiceLimits::default() });
        let count = |it: &str| admission.check_rate(Some(it.parse().expect("an address")));
        assert_eq!([count("192.0.2.1"), count("192.0.2.1")], [Ok(()), Ok(())]);
        assert_eq!(count("192.0.2.1"), Err(NonZeroU32::MIN));
        assert_eq!(count("192.0.2.2"), Ok(()));
        assert_eq!([count("2001:db8::1"), count("2001:db8::2")], [Ok(()), Ok(())]);
        assert!(count("2001:db8::3").is_err(), "an IPv6 network is one client");
        assert_eq!(admission.check_rate(None), Ok(()), "an unknown client is not counted");
    }

    #[test]
    fn the_number_of_remembered_clients_is_bounded() {
        let rate = RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
        let rates = ClientRates::new(rate);
        for number in 0..u32::try_from(SHARDS * ADDRESSES_MAX * 2).expect("it is small") {
            assert_eq!(rates.check_rate(IpAddr::from(number.to_be_bytes())), Ok(()));
        }
        let known: usize = rates.shards.iter().map(|it| it.clients.load().len()).sum();
        assert!((1..=SHARDS * (ADDRESSES_MAX + CHECK_EVERY)).contains(&known), "{known}");
    }
}
