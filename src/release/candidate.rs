//! What the gates of one service know: the pools and the stored state that the promotion was decided on.

use std::sync::Arc;

use tokio::sync::watch;

use super::rules::Evaluator;
use crate::{
    control::{Actor, Applied},
    model::{Color, GateSettings, Generation, HostPattern, ServiceName},
    store::{ManifestKey, ServiceState},
    upstream::{Pool, PoolContext},
};

/// Whether a version is released or taken back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    /// The candidate is the newer version.
    Promote,
    /// The candidate is the version from before the last promotion.
    Rollback,
}

/// A color that would become active.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) service: ServiceName,
    pub(super) color: Color,
    pub(super) direction: Direction,
    /// The pool of the candidate.
    pub(super) pool: Arc<Pool>,
    /// The pool that it replaces.
    pub(super) active: Arc<Pool>,
    /// The stored state of the service.
    pub(super) state: Arc<ServiceState>,
    pub(super) settings: Arc<GateSettings>,
    /// The `Host` of requests: the first host of the service that is a name.
    pub(super) host: Option<String>,
    /// The generation that the promotion was decided on.
    pub(super) generation: Generation,
    pub(super) reason: Option<String>,
    pub(super) actor: Option<Actor>,
    /// Whether the gates run without a promotion.
    pub(super) is_dry_run: bool,
    /// Whether endpoints are checked again, although they have been checked before.
    pub(super) checks_again: bool,
    pub(super) context: PoolContext,
    pub(super) evaluator: Evaluator,
    applied: Arc<Applied>,
    /// The applied state, each time that it changes.
    changes: watch::Receiver<Arc<Applied>>,
}

/// The call that a candidate is from.
#[derive(Clone, Debug)]
pub(super) struct CallContext {
    pub(super) direction: Direction,
    pub(super) reason: Option<String>,
    pub(super) actor: Option<Actor>,
    pub(super) is_dry_run: bool,
    pub(super) checks_again: bool,
    pub(super) pools: PoolContext,
    pub(super) evaluator: Evaluator,
    pub(super) changes: watch::Receiver<Arc<Applied>>,
}

// === impl Candidate ===

impl Candidate {
    /// The same candidate, with endpoints that are checked again.
    pub(super) fn checking_again(self) -> Self {
        Self { checks_again: true, ..self }
    }

    /// The candidate of a service; `None` if its state is damaged or it is not configured.
    pub(super) fn new(
        service: &ServiceName,
        color: Color,
        applied: &Arc<Applied>,
        call: &CallContext,
    ) -> Option<Self> {
        let spec = applied.catalog.services().get(service)?;
        let pools = applied.pools.get(service)?;
        let state = Arc::clone(applied.state.services.get(service)?);
        let host = spec.hosts.iter().find_map(|it| match it {
            HostPattern::Exact(name) => Some(name.to_string()),
            _ => None,
        });
        let CallContext {
            direction,
            reason,
            actor,
            is_dry_run,
            checks_again,
            pools: context,
            evaluator,
            changes,
        } = call.clone();
        Some(Self {
            service: service.clone(),
            color,
            direction,
            pool: Arc::clone(pools.pool(color)),
            active: Arc::clone(pools.pool(color.other())),
            state,
            settings: Arc::clone(&spec.gate),
            host,
            generation: applied.state.generation,
            reason,
            actor,
            is_dry_run,
            checks_again,
            context,
            evaluator,
            applied: Arc::clone(applied),
            changes,
        })
    }

    /// Waits until the pools or the active color of the service are others than the promotion was decided on, or
    /// Flipgate stops. Cancel-safe.
    pub(super) async fn superseded(&self) {
        // It fails when Flipgate stops.
        let _ = self.changes.clone().wait_for(|it| self.differs_from(it)).await;
    }

    /// Whether the pools or the active color of the service are others than the promotion was decided on.
    pub(super) fn is_superseded(&self) -> bool {
        self.differs_from(&self.changes.borrow())
    }

    fn differs_from(&self, current: &Applied) -> bool {
        current.pools.get(&self.service) != self.applied.pools.get(&self.service)
    }

    /// The stored manifest of a pool.
    pub(super) fn stored_manifest(&self, color: Color) -> Option<Arc<str>> {
        self.applied.state.manifests.get(&self.manifest_key(color)).cloned()
    }

    /// The key of the manifest of a pool.
    pub(super) fn manifest_key(&self, color: Color) -> ManifestKey {
        ManifestKey { service: self.service.clone(), color }
    }

    /// The pool of a color.
    pub(super) fn pool_of(&self, color: Color) -> &Arc<Pool> {
        if color == self.color { &self.pool } else { &self.active }
    }

    /// The version of a pool, if it was set.
    pub(super) fn version(&self, color: Color) -> Option<String> {
        self.state.pool(color).spec().version.as_ref().map(ToString::to_string)
    }
}
