//! What all pools are made with.

use std::sync::{Arc, atomic::AtomicUsize};

use super::{alerts::Alerts, names::Names};
use crate::{model::OwnAddresses, tls::Connectors};

/// What all pools of a process are made with. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The addresses of names.
    pub names: Names,
    /// Where pools say that there is something to tell.
    pub alerts: Arc<Alerts>,
    /// What connections are secured with.
    pub connectors: Connectors,
    /// How many services there are.
    pub services: Arc<AtomicUsize>,
    /// Where the process itself can be reached, which is no upstream.
    pub own: OwnAddresses,
}

impl Parts {
    /// Parts for pools of a process that is not reached by any address yet.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self {
            names,
            alerts: Arc::default(),
            connectors: Connectors::default(),
            services: Arc::default(),
            own: OwnAddresses::default(),
        }
    }
}
