//! What happens to endpoints, for those who listen.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{Color, Endpoint, Health, ServiceName};

/// Something that happened to an endpoint or to a pool's endpoints together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EndpointEvent {
    /// An endpoint went up or down.
    HealthChanged {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// If that is a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// How it is now.
        health: Health,
        /// What is wrong, if it is down.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The last endpoint of a pool went down.
    PoolDown {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
    },
    /// A pool that was down has an endpoint again that is up, or was emptied.
    PoolUp {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
    },
    /// An endpoint is left out for a while, for what requests got of it.
    EndpointEjected {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// If that is a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// Until when.
        until: Timestamp,
        /// What they got.
        reason: String,
    },
    /// The time is over for which an endpoint was left out.
    EndpointReturned {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// If that is a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
    },
    /// So few endpoints are well that those are used too that answer badly; or no longer.
    PanicChanged {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// Whether it is so now.
        panicking: bool,
    },
    /// The name of an endpoint has other addresses.
    AddressesChanged {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// The name.
        host: String,
        /// All that it has now.
        addresses: Vec<IpAddr>,
    },
    /// Requests met a limit. Told at once, and then at most every ten seconds.
    LimitHit {
        /// The service.
        service: ServiceName,
        /// The color that they came to.
        color: Color,
        /// Which limit, in the word of `flipgate_limited_total`.
        limit: &'static str,
        /// How many since it was last told.
        requests: u64,
    },
}

// === impl EndpointEvent ===

impl EndpointEvent {
    /// The word that its serialized form has as `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::HealthChanged { .. } => "health_changed",
            Self::PoolDown { .. } => "pool_down",
            Self::PoolUp { .. } => "pool_up",
            Self::EndpointEjected { .. } => "endpoint_ejected",
            Self::EndpointReturned { .. } => "endpoint_returned",
            Self::PanicChanged { .. } => "panic_changed",
            Self::AddressesChanged { .. } => "addresses_changed",
            Self::LimitHit { .. } => "limit_hit",
        }
    }
}
