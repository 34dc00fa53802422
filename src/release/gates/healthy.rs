//! `healthy`: enough endpoints of the candidate are up, for long enough.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;

use crate::{
    model::{EndpointAddress, EndpointShare, Health, HealthyGate},
    release::{
        candidate::Candidate,
        duration_text::written,
        gate::{Findings, Gate, GateName},
        requests::{address_of, for_each},
    },
    upstream::{EndpointHealth, EndpointState},
};

/// The most endpoints that a message lists.
const LISTED_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Healthy;

impl Gate for Healthy {
    fn name(&self) -> GateName {
        GateName::Healthy
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(candidate).boxed()
    }
}

/// Needs no I/O if every endpoint has been checked before, unless they are to be checked again.
async fn check(candidate: &Candidate) -> Findings {
    let Candidate { pool, color, settings, .. } = candidate;
    let HealthyGate { needed, up_for } = &settings.healthy;
    if pool.endpoints().iter().any(|it| is_unresolved(it)) {
        pool.resolve_unknown_names().await;
    }
    let mut unchecked = pool.endpoints();
    unchecked.retain(|it| candidate.checks_again || it.health() == Health::Unknown);
    let check = async |endpoint: Arc<EndpointState>| {
        let found = endpoint.check(&pool.policy().health).await?;
        pool.record_check(&endpoint, found.clone());
        // One failed check need not make an endpoint unhealthy. Here it is what was asked for.
        found.err().map(|it| (Arc::as_ptr(&endpoint).addr(), it))
    };
    let failed: HashMap<_, _> = for_each(&unchecked, check).await.into_iter().flatten().collect();
    let endpoints = pool.endpoints();
    let (count, all) = (needed.of(endpoints.len()), endpoints.len());
    let now = Timestamp::now();
    let unmet = |it: &Arc<EndpointState>| match failed.get(&Arc::as_ptr(it).addr()) {
        Some(failure) => Some(format!("{} is down: {}", address_of(it), failure.detail)),
        None => unmet(it, *up_for, now),
    };
    let unmet: Vec<_> = endpoints.iter().filter_map(unmet).collect();
    let up = all - unmet.len();
    let summary = match up_for.is_zero() {
        true => format!("{up} of {all} endpoints of {color} are up"),
        false => {
            format!("{up} of {all} endpoints of {color} have been up for {}", written(*up_for))
        }
    };
    if up >= count {
        return Findings::passed(summary);
    }
    let needed = match needed {
        EndpointShare::Count(_) => format!("{count} needed"),
        EndpointShare::Percent(percent) => format!("{count} needed ({percent} %)"),
    };
    let mut listed = unmet[..unmet.len().min(LISTED_MAX)].join("; ");
    if unmet.len() > LISTED_MAX {
        listed += &format!("; and {} more", unmet.len() - LISTED_MAX);
    }
    Findings::refused(format!("{summary}, {needed}: {listed}"))
}

fn is_unresolved(endpoint: &EndpointState) -> bool {
    let is_name = matches!(endpoint.configured().address, EndpointAddress::Name { .. });
    is_name && endpoint.resolved().is_none()
}

/// Why an endpoint does not count; `None` if it does.
fn unmet(endpoint: &EndpointState, up_for: Duration, now: Timestamp) -> Option<String> {
    let address = address_of(endpoint);
    let EndpointHealth { health, since, failure, ejected: _ } = endpoint.health_details();
    match health {
        Health::Up => {
            let up = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            let left = up_for.checked_sub(up).filter(|it| !it.is_zero())?;
            // Rounded up, so that a call after that time is not too early.
            let left = Duration::from_secs(left.as_secs() + 1);
            Some(format!(
                "{address} is up, but not for {} yet; try again in {}",
                written(up_for),
                written(left)
            ))
        }
        Health::Down => {
            let why =
                failure.map_or_else(|| "the check failed".to_owned(), |it| it.detail.to_string());
            Some(format!("{address} is down: {why}"))
        }
        Health::Unknown => Some(format!(
            "{address} could not be checked: Flipgate has no free file descriptor or port"
        )),
    }
}
