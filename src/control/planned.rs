//! What a promotion would do, for callers that have conditions of their own.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    change::{ChangeError, ChangeOutcome, ChangeRequest},
    handle::Control,
    prepare::Prepared,
    shared::Applied,
};
use crate::model::{Color, ServiceName};

/// What a promotion or rollback would do now.
#[derive(Clone, Debug)]
pub enum PlannedPromotion {
    /// Nothing: an earlier call with the same idempotency key made it.
    Known(ChangeOutcome),
    /// These colors become active.
    Colors {
        /// Each service with its candidate.
        colors: BTreeMap<ServiceName, Color>,
        /// What it was decided on.
        applied: Arc<Applied>,
    },
}

impl Control {
    /// What a promotion or rollback would do to the applied state. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if it would be refused now.
    pub fn plan_promotion(&self, call: &ChangeRequest) -> Result<PlannedPromotion, ChangeError> {
        let applied = self.applied();
        Ok(match self.shared().prepare_on(&applied, call)? {
            Prepared::Known(done) => PlannedPromotion::Known(done),
            Prepared::Commit { next, catalog: _ } => {
                let candidate = |name: &ServiceName| {
                    let before = applied.state.services.get(name).map(|it| it.active);
                    let service = next.services.get(name)?;
                    let color = service.share.as_ref().map_or(service.active, |it| it.color);
                    // A gradual promotion that is taken back has no candidate.
                    (before != Some(color)).then(|| (name.clone(), color))
                };
                let colors = next.promotion.services.iter().filter_map(candidate).collect();
                PlannedPromotion::Colors { colors, applied }
            }
        })
    }
}
