//! A group of endpoints of one version, and the choice among them.

use std::{collections::HashMap, sync::Arc};

use super::member::{Connecting, Member, Seat};
use crate::{
    metrics::PoolMetrics,
    model::{Color, Endpoint, Health, PoolSpec, ServiceName},
    tls::FileError,
};

/// One color of one service: its endpoints, shared by all workers.
#[derive(Debug)]
pub struct Pool {
    service: ServiceName,
    color: Color,
    spec: PoolSpec,
    members: Box<[Arc<Member>]>,
    metrics: Arc<PoolMetrics>,
}

// === impl Pool ===

impl Pool {
    /// A pool with no connections yet.
    #[must_use]
    pub fn new(
        service: ServiceName,
        color: Color,
        spec: PoolSpec,
        metrics: Arc<PoolMetrics>,
    ) -> Self {
        let link = Arc::new(Connecting::new(&spec.link, &spec.endpoints));
        let member = |it: &Endpoint| Arc::new(Member::new(it.clone(), Arc::clone(&link)));
        let members = spec.endpoints.iter().map(member).collect();
        Self { service, color, spec, members, metrics }
    }

    /// This pool made of something else. An endpoint that is in both stays the same member, with
    /// its connections and what is known of it.
    #[must_use]
    pub fn changed(&self, spec: PoolSpec) -> Self {
        let is_linked_alike = self.spec.link == spec.link;
        let known: HashMap<&Endpoint, &Arc<Member>> =
            self.members.iter().map(|it| (it.endpoint(), it)).filter(|_| is_linked_alike).collect();
        let link = Arc::new(Connecting::new(&spec.link, &spec.endpoints));
        let members = spec
            .endpoints
            .iter()
            .map(|it| match known.get(it) {
                Some(member) => Arc::clone(member),
                None => Arc::new(Member::new(it.clone(), Arc::clone(&link))),
            })
            .collect();
        let metrics = Arc::clone(&self.metrics);
        Self { service: self.service.clone(), color: self.color, spec, members, metrics }
    }

    /// The service that this is a pool of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The pool's name.
    #[must_use]
    pub fn color(&self) -> Color {
        self.color
    }

    /// What it is made of.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Its endpoints.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Reads the files that its TLS needs again, if they have changed. Returns whether they had.
    ///
    /// # Errors
    ///
    /// The first that cannot be used; what was in force stays.
    pub fn refresh_tls(&self) -> Result<bool, FileError> {
        let mut changed = false;
        let connectors = self.members.iter().filter_map(|it| it.link().tls.as_ref());
        // Members that joined at different times may have different ones.
        for connector in connectors {
            changed |= connector.refresh()?;
        }
        Ok(changed)
    }

    /// Its series.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PoolMetrics> {
        &self.metrics
    }

    /// Takes a seat at the less busy of two members drawn at random, leaving out those `tried`
    /// before. Members that were down when last seen are drawn only if there are no others. `None`
    /// if there is nobody left.
    #[must_use]
    pub fn pick(&self, tried: &[Arc<Member>], random: &mut fastrand::Rng) -> Option<Seat> {
        if let ([only], []) = (&*self.members, tried) {
            return Some(only.sit());
        }
        let is_left = |it: &&Arc<Member>| !tried.iter().any(|other| Arc::ptr_eq(other, it));
        let is_good = |it: &&Arc<Member>| it.health() != Health::Down;
        let left = || self.members.iter().filter(is_left);
        let good = left().filter(is_good).count();
        let draw = |random: &mut fastrand::Rng| {
            let drawn = match good {
                0 => left().nth(random.usize(0..left().count().max(1))),
                _ => left().filter(is_good).nth(random.usize(0..good)),
            };
            // Health may have changed since it was counted.
            drawn.or_else(|| left().next())
        };
        let (one, two) = (draw(random)?, draw(random)?);
        Some(if two.in_flight() < one.in_flight() { two.sit() } else { one.sit() })
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::metrics::Metrics;

    fn pool(endpoints: &[&str]) -> Pool {
        let service: ServiceName = "web".parse().expect("a name");
        let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
        let metrics = Arc::new(metrics.pool(&service, Color::Blue));
        let endpoints = endpoints.iter().map(|it| it.parse().expect("an endpoint")).collect();
        let spec = PoolSpec::new(None, endpoints).expect("no two alike");
        Pool::new(service, Color::Blue, spec, metrics)
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let pool = pool(&["a:1", "b:1", "c:1"]);
        let mut random = fastrand::Rng::with_seed(7);
        let seats: Vec<_> = (0..300).map(|_| pool.pick(&[], &mut random)).collect();
        assert!(seats.iter().all(Option::is_some));
        // Two choices keep the loads within a few of each other.
        for member in pool.members() {
            assert!((90..=110).contains(&member.in_flight()), "{:?}", pool.members());
        }
        drop(seats);
        assert!(pool.members().iter().all(|it| it.in_flight() == 0));
    }

    #[test]
    fn nobody_is_tried_twice_and_the_ones_that_are_down_come_last() {
        let pool = pool(&["a:1", "b:1", "c:1"]);
        pool.members()[0].set_health(Health::Down);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let mut tried = Vec::new();
            while let Some(seat) = pool.pick(&tried, &mut random) {
                tried.push(Arc::clone(seat.member()));
            }
            assert_eq!(tried.len(), 3);
            assert!(Arc::ptr_eq(&tried[2], &pool.members()[0]));
        }
        assert!(pool.pick(pool.members(), &mut random).is_none());
    }

    #[test]
    fn an_empty_pool_has_no_seat() {
        assert!(pool(&[]).pick(&[], &mut fastrand::Rng::with_seed(7)).is_none());
    }

    #[test]
    fn an_endpoint_that_stays_is_the_same_member() {
        let old = pool(&["a:1", "b:1"]);
        let new = old.changed(pool(&["b:1", "c:1"]).spec().clone());
        assert!(Arc::ptr_eq(&old.members()[1], &new.members()[0]));
        assert_eq!(new.members()[1].endpoint().to_string(), "c:1");
    }
}
