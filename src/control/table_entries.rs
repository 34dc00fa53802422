//! The pools and the table entries that follow from a state and a configuration.

use std::sync::Arc;

use super::{
    catalog::{Catalog, ServiceSpec},
    pin_terms::TermsFactory,
};
use crate::{
    continuity::Continuity,
    metrics::Metrics,
    model::{Color, PoolSpec, ServiceName},
    store::{ServiceState, State},
    upstream::{
        Admission, Pool, PoolContext, Pools, ServicePools, ServiceTable, TableEntry, TableService,
    },
};

/// The entries of all services. `before` is the table of now, if there is one.
pub(super) fn entries(
    pools: &Pools,
    catalog: &Catalog,
    terms: &TermsFactory<'_>,
    before: Option<&ServiceTable>,
) -> Vec<TableEntry> {
    let entry = |(name, pools): (&ServiceName, &ServicePools)| {
        let old = before.and_then(|it| it.service(name));
        entry(name, pools, catalog.services().get(name), terms, old)
    };
    pools.iter().map(entry).collect()
}

/// The entry of a service. `old` is the service in the table of now.
pub(super) fn entry(
    name: &ServiceName,
    pools: &ServicePools,
    spec: Option<&ServiceSpec>,
    terms: &TermsFactory<'_>,
    old: Option<&TableService>,
) -> TableEntry {
    let ServicePools { active, blue, green } = pools.clone();
    let old = old.and_then(|it| it.terms().as_deref());
    let terms = spec.and_then(|it| terms.terms(name, it, old));
    // What was admitted to a color that is not active can be waited for when no more can come.
    let admits = |it: Option<&Continuity>, color| it.is_some_and(|it| it.admits(color));
    let ended = |it: &Color| admits(old, *it) && !admits(terms.as_deref(), *it);
    let renewed = Some(active.other()).filter(ended);
    TableEntry { name: name.clone(), active, blue, green, terms, renewed }
}

/// Makes pools.
pub(super) struct PoolFactory<'a> {
    pub(super) state: &'a State,
    pub(super) metrics: &'a Metrics,
    pub(super) parts: &'a PoolContext,
}

impl PoolFactory<'_> {
    /// The pools of a service. An unchanged pool stays the same value, and an unchanged endpoint of a changed pool
    /// keeps its connections.
    pub(super) fn pools(
        &self,
        name: &ServiceName,
        spec: &ServiceSpec,
        old: Option<&ServicePools>,
    ) -> ServicePools {
        let known: Option<&Arc<ServiceState>> = self.state.services.get(name);
        // If the state is damaged, the active color is not known, so neither pool has endpoints.
        let none = PoolSpec::default();
        let policy = &spec.policy;
        let admission = old.map(|it| it.blue.admission());
        let admission = match admission.filter(|it| it.matches(&policy.limits)) {
            Some(same) => Arc::clone(same),
            None => Admission::new(&policy.limits),
        };
        let pool = |color| {
            let spec = known.map_or(&none, |it| it.pool(color).spec());
            let (policy, admission) = (Arc::clone(policy), Arc::clone(&admission));
            match old.map(|it| it.pool(color)) {
                Some(old) if old.matches(spec, &policy) => Arc::clone(old),
                Some(old) => Arc::new(old.with_spec(spec.clone(), policy, admission)),
                None => {
                    let metrics = Arc::new(self.metrics.pool(name, color));
                    let (name, spec) = (name.clone(), spec.clone());
                    let parts = self.parts.clone();
                    Arc::new(Pool::new(name, color, spec, policy, admission, parts, metrics))
                }
            }
        };
        ServicePools {
            active: known.map_or(spec.active, |it| it.active),
            blue: pool(Color::Blue),
            green: pool(Color::Green),
        }
    }
}
