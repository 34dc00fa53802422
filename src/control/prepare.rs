//! What a change would do to the applied state, if its conditions hold. Nothing is written here.

use std::{sync::Arc, time::Duration};

use super::{
    catalog::Catalog,
    change::{Change, ChangeError, ChangeOutcome, ChangeRequest, Idempotency},
    pin_terms::random_secret,
    pins::need_key,
    plan::plan,
    reasons::{ReasonKind, RefusalReason},
    rollouts::RolloutChange,
    shared::{Applied, ControlShared, unix_millis, unix_seconds},
};
use crate::{
    model::{Color, ServiceName},
    store::{AcceptedCall, State},
};

/// How long an idempotency key is kept.
const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A change that may be made.
pub(super) enum Prepared {
    /// There is nothing to commit.
    Known(ChangeOutcome),
    /// The state to commit, and the configuration to apply with it.
    Commit {
        /// The state.
        next: Box<State>,
        /// The configuration, if it changes.
        catalog: Option<Arc<Catalog>>,
    },
}

// === impl ControlShared ===

impl ControlShared {
    /// What a call with this idempotency key has come to before, or why it is refused because of the key.
    pub(super) fn repeated(
        &self,
        applied: &Arc<Applied>,
        key: &Idempotency,
    ) -> Option<Result<ChangeOutcome, ChangeError>> {
        let state = &applied.state;
        let before = state.accepted.get(&key.key)?;
        if self.is_old(before, unix_seconds()) {
            return None;
        }
        Some(match key.matches(&before.fingerprint) {
            true => Ok(ChangeOutcome {
                generation: before.generation,
                revision: state.revision,
                is_replayed: true,
                applied: Arc::clone(applied),
            }),
            false => Err(ChangeError::KeyReused(key.key.clone())),
        })
    }

    fn is_old(&self, call: &AcceptedCall, now: u64) -> bool {
        now.saturating_sub(call.at.unwrap_or(self.began)) >= KEY_AGE_MAX.as_secs()
    }

    /// What to commit for a change of an applied state, if its conditions hold.
    pub(super) fn prepare_on(
        &self,
        applied: &Arc<Applied>,
        call: &ChangeRequest,
    ) -> Result<Prepared, ChangeError> {
        let ChangeRequest { change, if_generation, idempotency, .. } = call;
        let state = &applied.state;
        let unchanged = || {
            let (generation, revision) = (state.generation, state.revision);
            let applied = Arc::clone(applied);
            Prepared::Known(ChangeOutcome { generation, revision, is_replayed: false, applied })
        };
        let now_ms = unix_millis();
        let now = now_ms / 1000;
        if let Some(key) = idempotency
            && let Some(repeated) = self.repeated(applied, key)
        {
            return repeated.map(Prepared::Known);
        }
        if let Some(decided_on) = if_generation
            && !decided_on.contains(&state.generation)
        {
            let (decided_on, current) = (decided_on.clone(), state.generation);
            return Err(ChangeError::Stale { decided_on, current });
        }
        if let Change::Reconfigure(new) = change
            && **new == *applied.catalog
        {
            return Ok(unchanged());
        }
        let planned = plan(state, &applied.catalog, &self.parts.own, call, now_ms);
        let mut next = planned.map_err(ChangeError::Refused)?;
        if let Change::Intake { .. } = change
            && next == *state
        {
            // There was no hold or maintenance to end.
            return Ok(unchanged());
        }
        let pinned = self.pinned_pools(change);
        if !pinned.is_empty() {
            return Err(ChangeError::Refused(pinned));
        }
        next.accepted.forget(|it| self.is_old(it, now));
        if let Some(Idempotency { key, fingerprint, .. }) = idempotency {
            let (key, fingerprint) = (key.clone(), fingerprint.clone());
            let (generation, at) = (next.generation, Some(now));
            next.accepted.put(AcceptedCall { key, fingerprint, generation, at });
        }
        let catalog = match change {
            Change::Reconfigure(new) => Some(Arc::clone(new)),
            Change::Promote(_)
            | Change::Rollback { .. }
            | Change::SetPool { .. }
            | Change::Approve { .. }
            | Change::Confirm(_)
            | Change::EndWatch { .. }
            | Change::GiveUpConfirmation { .. }
            | Change::RaiseShare { .. }
            | Change::TakeBackShare { .. }
            | Change::RotatePinKeys { .. }
            | Change::Intake { .. }
            | Change::Rollout(_) => None,
        };
        need_key(&mut next, catalog.as_ref().unwrap_or(&applied.catalog), random_secret);
        Ok(Prepared::Commit { next: Box::new(next), catalog })
    }

    /// The reasons against setting pools that transactions are pinned to.
    fn pinned_pools(&self, change: &Change) -> Vec<RefusalReason> {
        let reason = |service: &ServiceName, color: Color| {
            let problem = ReasonKind::PinsHold(color);
            let is_pinned = self.has_pins(service, color);
            is_pinned.then(|| RefusalReason { service: Some(service.clone()), problem })
        };
        match change {
            Change::SetPool { service, color, force: false, .. } => {
                reason(service, *color).into_iter().collect()
            }
            Change::Rollout(RolloutChange::SetPools(pools)) => {
                pools.iter().filter_map(|(service, (color, _))| reason(service, *color)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether transactions may be pinned to this color, which is not active.
    fn has_pins(&self, service: &ServiceName, color: Color) -> bool {
        self.switch.read(|table| {
            let terms = table.service(service).and_then(|it| it.terms().as_ref());
            terms.and_then(|it| it.window()).is_some_and(|it| it.color == color)
        })
    }
}
