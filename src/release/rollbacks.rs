//! Rollbacks that Flipgate makes by itself, and the pool that a rollback would make active.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    candidate::Direction,
    gates::compatible,
    handle::{Refusals, Release, ReleaseError},
    run::run,
};
use crate::{
    audit::AuditResult,
    control::{
        Actor, Change, ChangeError, ChangeRequest, PlannedPromotion, PromotionTerms, RefusedCall,
    },
    metrics::PromotionKind,
    model::{Color, Generation, ServiceName},
    store::CommitError,
    upstream::Pool,
};

/// Between two attempts to take a promotion back, if the state cannot be written.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The time, in milliseconds of Unix time.
pub(super) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Release {
    /// Takes a promotion back, by a rollback that is refused if any of the services was promoted or rolled back since.
    /// `by` names the cause, and `reason` is what was found.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`]; also if a gate of the rollback refuses: the color before is down, or not compatible any more.
    pub(super) async fn take_back(
        &self,
        services: Vec<ServiceName>,
        generation: Generation,
        by: &str,
        reason: &str,
    ) -> Result<(), ReleaseError> {
        let reason = Some(reason.to_owned());
        let change = Change::Rollback { services, force: false };
        let actor = Actor::internal(by);
        let takes_back = Some(generation);
        let call = ChangeRequest {
            actor: Some(actor.clone()),
            reason: reason.clone(),
            terms: PromotionTerms { takes_back, ..PromotionTerms::default() },
            ..ChangeRequest::unconditional(change)
        };
        let action = call.change.action();
        let made = loop {
            match self.decide(call.clone(), false).await {
                // Another change was applied meanwhile, of any service. That this promotion is still the last one of its
                // services is checked anyway.
                Err(ReleaseError::Change(ChangeError::Stale { .. })) => {}
                made => break made,
            }
        };
        self.count(PromotionKind::Automatic, &made);
        if let Err(error) = &made {
            let (result, verdicts) = (error.audit_result(), error.audit_verdicts());
            let refused = RefusedCall { actor: Some(actor), action, reason, result, verdicts };
            self.control().record_refusal(refused, true);
        }
        made.map(drop)
    }

    /// The pool that may serve requests which cannot be connected to the active color of a service: the one before the
    /// promotion of this generation, if a rollback to it is possible and the versions are compatible.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) async fn rescuer(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Arc<Pool>, String> {
        let change = Change::Rollback { services: vec![service.clone()], force: false };
        let terms = PromotionTerms { takes_back: Some(generation), ..PromotionTerms::default() };
        let call = ChangeRequest { terms, ..ChangeRequest::unconditional(change) };
        let planned = self.control().plan_promotion(&call).map_err(|it| it.to_string())?;
        let PlannedPromotion::Colors { colors, applied } = planned else {
            return Err("the rollback was made already".to_owned());
        };
        let candidate = self.candidates(&colors, &applied, &call, Direction::Rollback).pop();
        let candidate = candidate.ok_or("the service is not configured")?;
        let is_unproved = |it: &Color| candidate.stored_manifest(*it).is_none();
        if candidate.settings.compatible.is_some() && Color::BOTH.iter().any(is_unproved) {
            return Err("the promotion was made without the gate `compatible`".to_owned());
        }
        let report = run(&compatible(&candidate.settings), &candidate).await;
        match report.has_passed() {
            true => Ok(candidate.pool),
            false => Err(Refusals(&[report]).to_string()),
        }
    }
}

impl ReleaseError {
    /// The outcome of a change that Flipgate wanted to make by itself.
    fn audit_result(&self) -> AuditResult {
        let code = match self {
            Self::Gates(_) => "refused-by-gate",
            Self::Change(ChangeError::Store(CommitError::Unknown(_))) => {
                return AuditResult::Unknown;
            }
            Self::Change(ChangeError::Store(_)) => "not-written",
            Self::Change(ChangeError::Stale { .. }) => "stale-generation",
            Self::Change(ChangeError::Refused(_) | ChangeError::KeyReused(_)) => "refused",
            Self::Change(ChangeError::Stopping) => "stopping",
        };
        AuditResult::Refused { status: None, code: code.to_owned() }
    }
}
