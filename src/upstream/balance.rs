//! Load balancing: the choice among the endpoints of a pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{endpoint_health::Tier, endpoint_state::EndpointState};
use crate::model::Algorithm;

/// The endpoints of a pool that a request can go to.
pub(super) struct Candidates<'a> {
    endpoints: &'a [Arc<EndpointState>],
    tried: &'a [Arc<EndpointState>],
    /// Endpoints of a worse tier are left out.
    worst: Tier,
    slow_start: Option<Duration>,
    now: Instant,
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    /// The untried endpoints of the best tier, and in panic mode those up to `panic_tier`. `None` if there are none.
    pub(super) fn new(
        endpoints: &'a [Arc<EndpointState>],
        tried: &'a [Arc<EndpointState>],
        panic_tier: Option<Tier>,
        slow_start: Option<Duration>,
        now: Instant,
    ) -> Option<Self> {
        let all = Self { endpoints, tried, worst: Tier::Unresponsive, slow_start, now };
        let best = all.endpoints().map(|it| it.tier()).min()?;
        let worst = panic_tier.map_or(best, |it| best.max(it));
        Some(Self { worst, ..all })
    }

    fn endpoints(&self) -> impl Iterator<Item = &'a Arc<EndpointState>> {
        let (worst, tried) = (self.worst, self.tried);
        self.endpoints.iter().filter(move |endpoint| {
            endpoint.tier() <= worst && !tried.iter().any(|it| Arc::ptr_eq(it, endpoint))
        })
    }

    fn share(&self, endpoint: &EndpointState) -> u64 {
        endpoint.effective_weight(self.slow_start, self.now)
    }

    /// One of the candidates with capacity, chosen by the algorithm. `None` if none has capacity.
    pub(super) fn choose(
        &self,
        algorithm: &Algorithm,
        key: Option<u64>,
        counter: &AtomicUsize,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        match (algorithm, key) {
            (Algorithm::RoundRobin, _) => self.round_robin(counter, has_capacity),
            (Algorithm::Hash(_), Some(key)) => self.by_key(key, has_capacity),
            // A request without a hash key goes to the less loaded endpoint.
            (Algorithm::LeastRequest | Algorithm::Hash(_), _) => {
                self.less_loaded(has_capacity, random)
            }
        }
    }

    /// The less loaded of two endpoints that are drawn by weight (power of two choices).
    fn less_loaded(
        &self,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        let one = self.draw(None, has_capacity, random)?;
        let Some(two) = self.draw(Some(one), has_capacity, random) else { return Some(one) };
        // Compares requests per weight without a division. If equal, the first one, which was drawn by its weight.
        let load =
            |it: &EndpointState, other: &EndpointState| it.in_flight() as u64 * self.share(other);
        Some(if load(two, one) < load(one, two) { two } else { one })
    }

    fn draw(
        &self,
        except: Option<&Arc<EndpointState>>,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        let is_other =
            |it: &&Arc<EndpointState>| !except.is_some_and(|other| Arc::ptr_eq(other, it));
        let candidates = || self.endpoints().filter(is_other).filter(|it| has_capacity(it));
        let whole: u64 = candidates().map(|it| self.share(it)).sum();
        let mut left = random.u64(0..whole.max(1));
        let drawn = candidates().find(|it| {
            let share = self.share(it);
            let is_drawn = left < share;
            left = left.saturating_sub(share);
            is_drawn
        });
        // Weights may have changed since the sum.
        drawn.or_else(|| candidates().next())
    }

    /// Weighted round robin. Each round visits every endpoint once. An endpoint with less than the largest weight is
    /// skipped in part of the rounds, spread evenly.
    fn round_robin(
        &self,
        counter: &AtomicUsize,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
    ) -> Option<&'a Arc<EndpointState>> {
        let candidates = || self.endpoints().filter(|it| has_capacity(it));
        // Other requests take capacity meanwhile.
        let count = candidates().count().max(1);
        let largest = candidates().map(|it| self.share(it)).max()?.max(1);
        let mut last = None;
        // Within as many rounds as the smallest weight needs, some endpoint is not skipped.
        for _ in 0..count.saturating_mul(2).max(64) {
            let counter = counter.fetch_add(1, Relaxed);
            let (round, index) = (counter / count, counter % count);
            let Some(endpoint) = candidates().nth(index) else { continue };
            let share = self.share(endpoint);
            // Half a step apart per index, so that endpoints of equal weight do not skip the same round.
            let passed =
                (round as u64).wrapping_mul(share).wrapping_add(index as u64 * largest / 2);
            if share >= largest || passed % largest >= largest - share {
                return Some(endpoint);
            }
            last = Some(endpoint);
        }
        last.or_else(|| candidates().next())
    }

    /// Rendezvous hashing: the endpoint with the highest score for the key. When an endpoint leaves, only its own keys
    /// move. A larger weight gets more keys.
    fn by_key(
        &self,
        key: u64,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
    ) -> Option<&'a Arc<EndpointState>> {
        // Uses the configured weight: keys must not move during a slow start.
        let score = |it: &Arc<EndpointState>| {
            let point = mixed(key ^ it.hash_seed) >> 11;
            // In (0, 1): 53 bits, which a float holds exactly, and never 0.
            #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
            let point = (point as f64 + 0.5) / (1_u64 << 53) as f64;
            f64::from(it.weight()) / -point.ln()
        };
        let candidates = self.endpoints().filter(|it| has_capacity(it));
        candidates
            .map(|it| (score(it), it))
            .max_by(|one, two| one.0.total_cmp(&two.0))
            .map(|it| it.1)
    }
}

/// The finalizer of `SplitMix64`: each input bit changes half of the output bits.
fn mixed(key: u64) -> u64 {
    let mut key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}
