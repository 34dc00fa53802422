//! What all pools share.

use std::sync::{Arc, atomic::AtomicUsize};

use super::{alerts::AlertQueue, resolver::Resolver};
use crate::{model::OwnAddresses, tls::Connectors};

/// What all pools of a process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PoolContext {
    /// Resolves names.
    pub resolver: Resolver,
    /// Collects the pools with changes.
    pub alerts: Arc<AlertQueue>,
    /// Makes TLS connectors.
    pub connectors: Connectors,
    /// The number of services.
    pub services: Arc<AtomicUsize>,
    /// Flipgate's own addresses, which no endpoint may have.
    pub own: OwnAddresses,
}

impl PoolContext {
    /// A context without own addresses.
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
