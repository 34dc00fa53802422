//! What all pools are made with.

use std::sync::{Arc, atomic::AtomicUsize};

use super::{alerts::AlertQueue, resolver::Resolver};
use crate::{model::OwnAddresses, tls::Connectors};

/// What all pools of a process are made with. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct PoolContext {
    /// The addresses of names.
    pub resolver: Resolver,
    /// Where pools say that there is something to tell.
    pub alerts: Arc<AlertQueue>,
    /// What connections are secured with.
    pub connectors: Connectors,
    /// How many services there are.
    pub services: Arc<AtomicUsize>,
    /// Where the process itself can be reached, which is no upstream.
    pub own: OwnAddresses,
}

impl PoolContext {
    /// Parts for pools of a process that is not reached by any address yet.
    #[must_use]
    pub fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            alerts: Arc::default(),
            connectors: Connectors::default(),
            services: Arc::default(),
            own: OwnAddresses::default(),
        }
    }
}
