//! The names of endpoints and what they stand for, asked again whenever that may have changed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::events::EventKind;
use crate::{
    model::Place,
    upstream::{Found, LookUpError, Names, Pool},
};

/// What names stand for. What is asked ends with this.
pub(super) struct NameBook {
    names: Names,
    known: HashMap<Arc<str>, Known>,
    asking: JoinSet<(Arc<str>, Result<Found, LookUpError>)>,
}

struct Known {
    /// The last that were heard of: when nobody can tell, they are still the best guess.
    addresses: Vec<IpAddr>,
    ask_at: Instant,
    is_asking: bool,
    /// Questions in a row that were not answered.
    failures: u32,
}

/// The time to the next question after one that was not answered, times how many in a row.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(5);

// === impl NameBook ===

impl NameBook {
    pub(super) fn new(names: Names) -> Self {
        Self { names, known: HashMap::new(), asking: JoinSet::new() }
    }

    /// Waits for an answer and writes it down. Never ends if nothing was asked. Nothing is lost when the
    /// future is dropped.
    pub(super) async fn hear(&mut self) {
        let Some(heard) = self.asking.join_next().await else {
            return std::future::pending().await;
        };
        let Ok((host, answer)) = heard else { return };
        let Some(known) = self.known.get_mut(&host) else { return };
        known.is_asking = false;
        match answer {
            Ok(Found { addresses, until }) => {
                if known.failures > 0 {
                    info!(%host, "resolved again");
                }
                (known.addresses, known.ask_at, known.failures) = (addresses, until, 0);
            }
            Err(error) => {
                known.failures = known.failures.saturating_add(1);
                known.ask_at = Instant::now() + (AGAIN * known.failures.min(60)).min(AGAIN_MAX);
                if known.failures == 1 {
                    let last = known.addresses.len();
                    warn!(%error, addresses_kept = last, "cannot be resolved; asking again");
                }
            }
        }
    }

    /// Asks what is to be asked, and gives pools the addresses of their names. Returns what has changed.
    pub(super) fn follow(&mut self, pools: &[Arc<Pool>], now: Instant) -> Vec<EventKind> {
        let mut hosts: BTreeMap<Arc<str>, Vec<&Arc<Pool>>> = BTreeMap::new();
        for pool in pools {
            for endpoint in &pool.spec().endpoints {
                if let Place::Name { host, .. } = &endpoint.endpoint.place {
                    let pools = hosts.entry(Arc::clone(host)).or_default();
                    if !pools.last().is_some_and(|it| Arc::ptr_eq(it, pool)) {
                        pools.push(pool);
                    }
                }
            }
        }
        self.known.retain(|host, _| hosts.contains_key(host));
        let mut events = Vec::new();
        for (host, pools) in hosts {
            let known = self.known.entry(Arc::clone(&host)).or_insert_with(|| Known {
                addresses: Vec::new(),
                ask_at: now,
                is_asking: false,
                failures: 0,
            });
            if !known.is_asking && known.ask_at <= now {
                known.is_asking = true;
                let (names, host) = (self.names.clone(), Arc::clone(&host));
                self.asking.spawn(async move {
                    let answer = names.look_up(&host).await;
                    (host, answer)
                });
            }
            if known.addresses.is_empty() {
                continue;
            }
            for pool in pools {
                if pool.resolve(&host, &known.addresses) {
                    let (service, color) = (pool.service().clone(), pool.color());
                    let (host, addresses) = (host.to_string(), known.addresses.clone());
                    info!(%service, %color, host, ?addresses, "addresses changed");
                    events.push(EventKind::AddressesChanged { service, color, host, addresses });
                }
            }
        }
        events
    }
}
