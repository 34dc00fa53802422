//! The choice of an endpoint for a request.

use std::{sync::Arc, time::Instant};

use super::{EndpointSet, Pool};
use crate::{
    model::Algorithm,
    upstream::{
        balance::Candidates,
        endpoint_health::Tier,
        endpoint_state::{EndpointState, RequestPermit},
    },
};

/// A request that needs an endpoint.
pub struct PickRequest<'a> {
    /// Endpoints that the request has already tried.
    pub tried: &'a [Arc<EndpointState>],
    /// The hash key, if the pool uses one.
    pub key: Option<u64>,
    /// Whether an endpoint can be used without opening a connection.
    pub has_connection: &'a dyn Fn(&Arc<EndpointState>) -> bool,
    /// Whether the request has waited in the queue and is at its front.
    pub has_waited: bool,
    /// The current time.
    pub now: Instant,
}

/// The result of a choice.
#[derive(Debug)]
pub enum PickResult {
    /// A permit at the chosen endpoint.
    Picked(RequestPermit),
    /// All usable endpoints are at their limits.
    Full,
    /// There is no endpoint, or none that was not tried.
    NoEndpoint,
}

impl Pool {
    /// Chooses an endpoint and takes a permit. Healthy endpoints come first, then unhealthy ones, then those that
    /// refuse connections.
    #[must_use]
    pub fn pick(&self, request: &PickRequest<'_>, random: &mut fastrand::Rng) -> PickResult {
        let endpoint_set = self.endpoint_set.load();
        let endpoints = &*endpoint_set.endpoints;
        let limits = &self.policy.limits;
        let is_limited = self.policy.limits_endpoints();
        let has_capacity = |it: &Arc<EndpointState>| {
            it.has_capacity(limits.endpoint_requests)
                && (it.has_connection_capacity(limits.endpoint_connections)
                    || (request.has_connection)(it))
        };
        if !is_limited && request.tried.is_empty() {
            if let [only] = endpoints {
                return PickResult::Picked(only.acquire());
            }
            if let Some(endpoint) = self.pick_fast(&endpoint_set, random) {
                return PickResult::Picked(endpoint.acquire());
            }
        } else if request.tried.is_empty()
            && self.shared.queue.is_empty()
            && let Some(endpoint) = self.pick_fast(&endpoint_set, random)
            && has_capacity(endpoint)
            && let Some(permit) = endpoint.try_acquire(limits.endpoint_requests)
        {
            return PickResult::Picked(permit);
        }
        let balance = &self.policy.balance;
        // A retry goes to healthy endpoints.
        let panic_tier = self.panic_tier().filter(|_| request.tried.is_empty());
        let candidates =
            Candidates::new(endpoints, request.tried, panic_tier, balance.slow_start, request.now);
        let Some(candidates) = candidates else { return PickResult::NoEndpoint };
        if is_limited && !request.has_waited && !self.shared.queue.is_empty() {
            return PickResult::Full;
        }
        loop {
            let round_robin = &self.shared.round_robin;
            let chosen = candidates.choose(
                &balance.algorithm,
                request.key,
                round_robin,
                &has_capacity,
                random,
            );
            let Some(endpoint) = chosen else { return PickResult::Full };
            // Another request may have taken the last permit.
            if let Some(permit) = endpoint.try_acquire(limits.endpoint_requests) {
                return PickResult::Picked(permit);
            }
        }
    }

    /// The usual choice: among endpoints of equal weight, of which two drawn ones are healthy.
    fn pick_fast<'a>(
        &self,
        endpoint_set: &'a EndpointSet,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        let count = endpoint_set.endpoints.len();
        let is_plain = self.policy.balance.algorithm == Algorithm::LeastRequest;
        if !endpoint_set.is_even || !is_plain || count < 2 || self.is_panicking() {
            return None;
        }
        let (first, second) = (random.usize(0..count), random.usize(0..count - 1));
        let second = if second >= first { second + 1 } else { second };
        let (one, two) = (&endpoint_set.endpoints[first], &endpoint_set.endpoints[second]);
        if one.tier() != Tier::Healthy || two.tier() != Tier::Healthy {
            return None;
        }
        let has_slow_start = self.policy.balance.slow_start.is_some();
        if has_slow_start && (one.is_in_slow_start() || two.is_in_slow_start()) {
            return None;
        }
        Some(if two.in_flight() < one.in_flight() { two } else { one })
    }
}
