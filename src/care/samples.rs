//! Pools for the tests of this room.

use std::sync::Arc;

use prometheus::Registry;

use crate::{
    metrics::Metrics,
    model::{Color, Policy, PoolSpec, WeightedEndpoint},
    upstream::{Admission, Pool, PoolContext, Pools, Resolver, ResolverSettings, ServicePools},
};

pub(super) fn metrics() -> Metrics {
    Metrics::new(&Registry::new()).expect("a fresh registry")
}

pub(super) fn names() -> Resolver {
    Resolver::new(&ResolverSettings::default())
}

/// A service `web` with these endpoints in its blue pool.
pub(super) fn pools(endpoints: &[&str]) -> (Arc<Pool>, Pools) {
    let make = |color, endpoints: &[&str]| {
        let endpoints = endpoints
            .iter()
            .map(|it| WeightedEndpoint { endpoint: it.parse().expect("an endpoint"), weight: 1 });
        let spec = PoolSpec::new(None, endpoints).expect("no two alike");
        let policy = Arc::new(Policy::default());
        let admission = Admission::new(&policy.limits);
        let parts = PoolContext::new(names());
        let service = "web".parse().expect("a name");
        let counted = Arc::new(metrics().pool(&service, color));
        Arc::new(Pool::new(service, color, spec, policy, admission, parts, counted))
    };
    let blue = make(Color::Blue, endpoints);
    let green = make(Color::Green, &[]);
    let all = ServicePools { active: Color::Blue, blue: Arc::clone(&blue), green };
    let pools = [("web".parse().expect("a name"), all)].into_iter().collect();
    (blue, pools)
}

/// How many tasks of this kind have died.
pub(super) fn deaths(metrics: &Metrics, task: &str) -> usize {
    let text = metrics.show(crate::model::Generation(1), true, &[]);
    let series = format!("flipgate_task_panics_total{{task=\"{task}\"}} ");
    let count = text.lines().find_map(|it| it.strip_prefix(&series));
    count.map_or(0, |it| it.parse().expect("a number"))
}
