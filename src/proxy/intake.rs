//! Whether a request is admitted now: the hold and the maintenance of its service.

use std::{net::IpAddr, sync::Arc};

use super::error::ProxyError;
use crate::{
    continuity::{Hold, Intake, IntakeDecision, Maintenance},
    model::ServiceName,
};

/// Why a request is not admitted.
pub(super) enum NotAdmitted {
    /// It gets this error.
    Error(ProxyError),
    /// Its service takes no requests now.
    Kept(Box<KeptBack>),
}

/// What keeps a request back.
pub(super) struct KeptBack {
    pub(super) service: ServiceName,
    pub(super) by: Keeper,
    /// The client, unless it may take every place of a hold.
    pub(super) client: Option<IpAddr>,
}

/// What keeps requests of a service back.
pub(super) enum Keeper {
    Hold(Arc<Hold>),
    Maintenance(Arc<Maintenance>),
}

/// Keeps a request back, if it has to be. `released` is the hold that has let it go. `client` is `None` for internal ones.
#[cold]
pub(super) fn check_intake(
    intake: &Intake,
    service: &ServiceName,
    path: &str,
    client: Option<IpAddr>,
    released: Option<&Arc<Hold>>,
) -> Result<(), NotAdmitted> {
    let by = match intake.decide(path, client.is_none(), released) {
        IntakeDecision::Admit => return Ok(()),
        IntakeDecision::Hold(hold) => Keeper::Hold(Arc::clone(hold)),
        IntakeDecision::Refuse(maintenance) => Keeper::Maintenance(Arc::clone(maintenance)),
    };
    Err(NotAdmitted::Kept(Box::new(KeptBack { service: service.clone(), by, client })))
}

impl From<ProxyError> for NotAdmitted {
    fn from(error: ProxyError) -> Self {
        Self::Error(error)
    }
}
