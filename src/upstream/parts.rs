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
