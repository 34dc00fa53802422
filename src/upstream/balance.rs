//! The choice among the members of a pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{endpoint_health::Tier, endpoint_state::EndpointState};
use crate::model::Algorithm;

/// Those of a pool's members that come into question.
pub(super) struct Candidates<'a> {
    endpoints: &'a [Arc<EndpointState>],
    tried: &'a [Arc<EndpointState>],
    /// Whoever stands worse is left out.
    worst: Tier,
    slow_start: Option<Duration>,
    now: Instant,
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    /// Those who stand best of the ones that were not tried, and whoever is to help them. `None` if there is
    /// nobody.
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

    /// One of those in the field that `has_capacity`, as the algorithm says. `None` if nobody has.
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
            // Whoever has nothing to be known by goes where there is least to do.
            (Algorithm::LeastRequest | Algorithm::Hash(_), _) => {
                self.less_loaded(has_capacity, random)
            }
        }
    }

    /// The less busy of two that are drawn by their shares.
    fn less_loaded(
        &self,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        let one = self.draw(None, has_capacity, random)?;
        let Some(two) = self.draw(Some(one), has_capacity, random) else { return Some(one) };
        // Requests for each share, compared without a division. Of equals the first: it was drawn by its
        // share.
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
            let is_here = left < share;
            left = left.saturating_sub(share);
            is_here
        });
        // What is known may have changed since it was added up.
        drawn.or_else(|| candidates().next())
    }

    /// The next one in turn. Each turn goes round everybody once, and in each round whoever has a smaller
    /// share than the largest is left out as often as it takes; spread evenly over the rounds.
    fn round_robin(
        &self,
        counter: &AtomicUsize,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
    ) -> Option<&'a Arc<EndpointState>> {
        let candidates = || self.endpoints().filter(|it| has_capacity(it));
        // Others come and go meanwhile.
        let count = candidates().count().max(1);
        let largest = candidates().map(|it| self.share(it)).max()?.max(1);
        let mut last = None;
        // Within as many rounds as the smallest share needs, somebody is not left out.
        for _ in 0..count.saturating_mul(2).max(64) {
            let counter = counter.fetch_add(1, Relaxed);
            let (round, index) = (counter / count, counter % count);
            let Some(endpoint) = candidates().nth(index) else { continue };
            let share = self.share(endpoint);
            // Half a step apart for each place, so that equals do not leave out the same round.
            let passed =
                (round as u64).wrapping_mul(share).wrapping_add(index as u64 * largest / 2);
            if share >= largest || passed % largest >= largest - share {
                return Some(endpoint);
            }
            last = Some(endpoint);
        }
        last.or_else(|| candidates().next())
    }

    /// The one that a key belongs to: rendezvous hashing. Whoever leaves gives up its own keys and no
    /// others; a larger share gets more of them.
    fn by_key(
        &self,
        key: u64,
        has_capacity: &dyn Fn(&Arc<EndpointState>) -> bool,
    ) -> Option<&'a Arc<EndpointState>> {
        // By weight alone: a key must not move about while an endpoint warms up.
        let score = |it: &Arc<EndpointState>| {
            let point = mixed(key ^ it.hash_seed) >> 11;
            // In (0, 1): 53 bits, which is what a float holds, and never 0.
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

/// The finish of `SplitMix64`: each bit of what comes in changes half of what comes out.
fn mixed(key: u64) -> u64 {
    let mut key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}
