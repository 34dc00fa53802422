//! What a request finds in a pool.

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

/// What a request is looking for.
pub struct PickRequest<'a> {
    /// Members that it was at.
    pub tried: &'a [Arc<EndpointState>],
    /// What it shall be known by, if the pool goes by that.
    pub key: Option<u64>,
    /// Whether a member can be spoken with without one more connection.
    pub is_open: &'a dyn Fn(&Arc<EndpointState>) -> bool,
    /// Whether it has waited for its turn.
    pub is_called: bool,
    /// The time.
    pub now: Instant,
}

/// What a request has found.
#[derive(Debug)]
pub enum PickResult {
    /// A place.
    Seat(RequestPermit),
    /// Whoever could answer has as many requests or connections as may be.
    Full,
    /// There is nobody, or nobody who was not tried.
    Nobody,
}

impl Pool {
    /// Chooses a member and takes a seat there. Who stands well is chosen before those who do not, and
    /// those before the ones that nobody can speak with.
    #[must_use]
    pub fn pick(&self, choice: &PickRequest<'_>, random: &mut fastrand::Rng) -> PickResult {
        let roster = self.roster.load();
        let members = &*roster.members;
        let limits = &self.policy.limits;
        let is_limited = self.policy.limits_endpoints();
        let has_room = |it: &Arc<EndpointState>| {
            it.has_capacity(limits.endpoint_requests)
                && (it.has_connection_capacity(limits.endpoint_connections) || (choice.is_open)(it))
        };
        if !is_limited && choice.tried.is_empty() {
            if let [only] = members {
                return PickResult::Seat(only.acquire());
            }
            if let Some(member) = self.pick_quickly(&roster, random) {
                return PickResult::Seat(member.acquire());
            }
        } else if choice.tried.is_empty()
            && self.common.queue.is_empty()
            && let Some(member) = self.pick_quickly(&roster, random)
            && has_room(member)
            && let Some(permit) = member.try_acquire(limits.endpoint_requests)
        {
            return PickResult::Seat(permit);
        }
        let balance = &self.policy.balance;
        // Whoever was turned down goes to those who are known to be good.
        let helpers = self.helpers().filter(|_| choice.tried.is_empty());
        let field = Candidates::new(members, choice.tried, helpers, balance.slow_start, choice.now);
        let Some(field) = field else { return PickResult::Nobody };
        if is_limited && !choice.is_called && !self.common.queue.is_empty() {
            return PickResult::Full;
        }
        loop {
            let turn = &self.common.turn;
            let chosen = field.choose(&balance.algorithm, choice.key, turn, &has_room, random);
            let Some(member) = chosen else { return PickResult::Full };
            // Somebody else may have been quicker.
            if let Some(permit) = member.try_acquire(limits.endpoint_requests) {
                return PickResult::Seat(permit);
            }
        }
    }

    /// The choice as it is most often: of members that are all alike, two that stand well.
    fn pick_quickly<'a>(
        &self,
        roster: &'a EndpointSet,
        random: &mut fastrand::Rng,
    ) -> Option<&'a Arc<EndpointState>> {
        let count = roster.members.len();
        let is_plain = self.policy.balance.algorithm == Algorithm::LeastRequest;
        if !roster.is_even || !is_plain || count < 2 || self.is_panicking() {
            return None;
        }
        let (first, second) = (random.usize(0..count), random.usize(0..count - 1));
        let second = if second >= first { second + 1 } else { second };
        let (one, two) = (&roster.members[first], &roster.members[second]);
        if one.standing() != Tier::Good || two.standing() != Tier::Good {
            return None;
        }
        let has_slow_start = self.policy.balance.slow_start.is_some();
        if has_slow_start && (one.is_warming() || two.is_warming()) {
            return None;
        }
        Some(if two.in_flight() < one.in_flight() { two } else { one })
    }
}
