//! Resolves the names of endpoints, and again when their TTL is over.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{Id, JoinSet};
use tracing::{info, warn};

use super::PoolKey;
use crate::{
    metrics::Metrics,
    model::EndpointAddress,
    upstream::{EndpointEvent, LookupError, Pool, ResolvedAddresses, Resolver},
};

/// The resolved names. Dropping it ends running queries.
pub(super) struct ResolvedNames {
    names: Resolver,
    known: HashMap<Arc<str>, NameEntry>,
    /// The names of each pool that has any.
    of_pool: HashMap<PoolKey, HashSet<Arc<str>>>,
    asking: JoinSet<Result<ResolvedAddresses, LookupError>>,
    /// The name of each running query, also of one that panics.
    of_task: HashMap<Id, Arc<str>>,
    metrics: Metrics,
}

struct NameEntry {
    /// The pools with endpoints of this name.
    pools: HashSet<PoolKey>,
    /// The last known addresses. They stay in use while no name server responds.
    addresses: Vec<IpAddr>,
    ask_at: Instant,
    is_asking: bool,
    /// Consecutive failed queries.
    failures: u32,
}

/// The time to the next query after a failed one, times the number of consecutive failures.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(5);

// === impl ResolvedNames ===

impl ResolvedNames {
    pub(super) fn new(names: Resolver, metrics: Metrics) -> Self {
        Self {
            names,
            known: HashMap::new(),
            of_pool: HashMap::new(),
            asking: JoinSet::new(),
            of_task: HashMap::new(),
            metrics,
        }
    }

    /// Resolves the names of this pool from now on, instead of those before.
    pub(super) fn follow(&mut self, which: &PoolKey, pool: &Pool, now: Instant) {
        let hosts: HashSet<Arc<str>> = pool
            .spec()
            .endpoints
            .iter()
            .filter_map(|it| match &it.endpoint.address {
                EndpointAddress::Name { host, .. } => Some(Arc::clone(host)),
                EndpointAddress::Address(_) | EndpointAddress::Unix(_) => None,
            })
            .collect();
        let before = self.of_pool.remove(which).unwrap_or_default();
        for gone in before.difference(&hosts) {
            self.cancel(which, gone);
        }
        for host in &hosts {
            let known = self.known.entry(Arc::clone(host)).or_insert_with(|| NameEntry {
                pools: HashSet::new(),
                addresses: Vec::new(),
                ask_at: now,
                is_asking: false,
                failures: 0,
            });
            known.pools.insert(which.clone());
        }
        if !hosts.is_empty() {
            self.of_pool.insert(which.clone(), hosts);
            self.ask(now);
        }
    }

    /// Stops resolving the names of this pool.
    pub(super) fn forget(&mut self, which: &PoolKey) {
        for host in self.of_pool.remove(which).unwrap_or_default() {
            self.cancel(which, &host);
        }
    }

    fn cancel(&mut self, which: &PoolKey, host: &Arc<str>) {
        if let Some(known) = self.known.get_mut(host) {
            known.pools.remove(which);
            if known.pools.is_empty() {
                self.known.remove(host);
            }
        }
    }

    /// Starts due queries.
    pub(super) fn ask(&mut self, now: Instant) {
        for (host, known) in &mut self.known {
            if !known.is_asking && known.ask_at <= now {
                known.is_asking = true;
                let (names, asked) = (self.names.clone(), Arc::clone(host));
                let task = self.asking.spawn(async move { names.look_up(&asked).await }).id();
                self.of_task.insert(task, Arc::clone(host));
            }
        }
    }

    /// Waits for the result of a query, and returns the pools that it is for. Never ready without queries. Dropping the
    /// future loses nothing.
    pub(super) async fn receive(&mut self) -> Vec<PoolKey> {
        let Some(heard) = self.asking.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (task, answer) = match heard {
            Ok((task, answer)) => (task, answer.map_err(|error| error.to_string())),
            Err(error) => {
                self.metrics.task_died("look-up");
                (error.id(), Err(error.to_string()))
            }
        };
        let Some(host) = self.of_task.remove(&task) else { return Vec::new() };
        let Some(known) = self.known.get_mut(&host) else { return Vec::new() };
        known.is_asking = false;
        match answer {
            Ok(ResolvedAddresses { addresses, until }) => {
                if known.failures > 0 {
                    info!(%host, "name resolved again");
                }
                (known.addresses, known.ask_at, known.failures) = (addresses, until, 0);
                known.pools.iter().cloned().collect()
            }
            Err(error) => {
                known.failures = known.failures.saturating_add(1);
                known.ask_at = Instant::now() + (AGAIN * known.failures.min(60)).min(AGAIN_MAX);
                if known.failures == 1 {
                    let last = known.addresses.len();
                    warn!(%host, error, addresses_kept = last, "cannot resolve the name; trying again");
                }
                Vec::new()
            }
        }
    }

    /// Gives a pool the known addresses of its names. Returns what has changed.
    pub(super) fn resolve(&self, which: &PoolKey, pool: &Pool) -> Vec<EndpointEvent> {
        let mut events = Vec::new();
        for host in self.of_pool.get(which).into_iter().flatten() {
            let Some(known) = self.known.get(host).filter(|it| !it.addresses.is_empty()) else {
                continue;
            };
            if pool.resolve(host, &known.addresses) {
                let (service, color) = which.clone();
                let (host, addresses) = (host.to_string(), known.addresses.clone());
                info!(%service, %color, host, ?addresses, "addresses changed");
                events.push(EndpointEvent::AddressesChanged { service, color, host, addresses });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{deaths, metrics, names, pools},
        *,
    };
    use crate::model::Color;

    #[tokio::test]
    async fn a_look_up_that_panics_is_counted_and_asked_again_in_its_time() {
        let (pool, _pools) = pools(&["one.test:80", "two.test:80"]);
        let which = ("web".parse().expect("a name"), Color::Blue);
        let metrics = metrics();
        let mut book = ResolvedNames::new(names(), metrics.clone());
        let now = Instant::now();
        book.follow(&which, &pool, now);
        // Instead of real queries, which would use the network.
        book.asking.abort_all();
        while book.asking.join_next().await.is_some() {}
        book.of_task.clear();
        let task = book.asking.spawn(async { panic!("planted") }).id();
        book.of_task.insert(task, "one.test".into());
        for times in 1..=2 {
            assert_eq!(book.receive().await, []);
            assert_eq!(deaths(&metrics, "look-up"), times);
            let known = &book.known["one.test"];
            assert!(!known.is_asking && known.ask_at >= now + AGAIN, "not at once");
            assert!(book.known["two.test"].is_asking, "the other question goes on");
            let task = book.asking.spawn(async { panic!("planted") }).id();
            book.of_task.insert(task, "one.test".into());
        }
        assert_eq!(book.known["one.test"].failures, 2);
    }
}
