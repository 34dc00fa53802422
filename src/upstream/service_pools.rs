//! The two pools of each service, for health checks and status.

use std::sync::Arc;

use super::pool::Pool;
use crate::model::{Color, ServiceName, VersionedMap};

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
