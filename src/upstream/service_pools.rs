//! The two pools of each service, for health checks and status.

use std::sync::Arc;

use super::pool::Pool;
use crate::{
    continuity::Continuity,
    model::{Color, Rules, ServiceName, VersionedMap},
    switch::{Service, ServiceEntry, Switch, Table},
};

/// The pools of one service, and the active color.
#[derive(Clone, Debug)]
pub struct ServicePools {
    /// The active color.
    pub active: Color,
    /// The blue pool.
    pub blue: Arc<Pool>,
    /// The green pool.
    pub green: Arc<Pool>,
}

/// The pools of all services, by name. Holding them keeps no side of the switch alive.
pub type Pools = VersionedMap<ServiceName, ServicePools>;

/// The terms of a service in the table; `None` if only its active color decides.
pub type Terms = Option<Arc<Continuity>>;

/// The switch of the services.
pub type ServiceSwitch = Switch<Arc<Rules>, Pool, Terms>;

/// The table of the services.
pub type ServiceTable = Table<Arc<Rules>, Pool, Terms>;

/// A service in the table.
pub type TableService = Service<Pool, Terms>;

/// A service for the next table.
pub type TableEntry = ServiceEntry<Pool, Terms>;

// === impl ServicePools ===

impl ServicePools {
    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &Arc<Pool> {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// Both pools.
    #[must_use]
    pub fn both(&self) -> [&Arc<Pool>; 2] {
        [&self.blue, &self.green]
    }
}

/// Whether both have the same pool objects and the same active color.
impl PartialEq for ServicePools {
    fn eq(&self, other: &Self) -> bool {
        self.active == other.active
            && Arc::ptr_eq(&self.blue, &other.blue)
            && Arc::ptr_eq(&self.green, &other.green)
    }
}
