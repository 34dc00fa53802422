//! Events about endpoints.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{Color, Endpoint, Health, ServiceName};

/// An event about an endpoint or a pool.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EndpointEvent {
    /// An endpoint went up or down.
    HealthChanged {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// For a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// The new health.
        health: Health,
        /// Why, if it is down.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The last healthy endpoint of a pool went down.
    PoolDown {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
    },
    /// A pool that was down has a healthy endpoint again, or has no endpoints any more.
    PoolUp {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
    },
    /// An endpoint was ejected because of failed requests.
    EndpointEjected {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// For a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// When the ejection ends.
        until: Timestamp,
        /// The failures.
        reason: String,
    },
    /// The ejection of an endpoint ended.
    EndpointReturned {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The endpoint.
        endpoint: Endpoint,
        /// For a name, which of its addresses.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
    },
    /// A pool entered or left panic mode: too few endpoints are healthy, so unhealthy ones are used too.
    PanicChanged {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// Whether it is in panic mode.
        panicking: bool,
    },
    /// The name of an endpoint resolves to other addresses.
    AddressesChanged {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The name.
        host: String,
        /// All addresses.
        addresses: Vec<IpAddr>,
    },
    /// Requests reached a limit. Reported at once, and then at most every ten seconds.
    LimitHit {
        /// The service.
        service: ServiceName,
        /// The color of the requests.
        color: Color,
        /// The limit, as in `flipgate_limited_total`.
        limit: &'static str,
        /// Requests since the last report.
        requests: u64,
    },
}

// === impl EndpointEvent ===

impl EndpointEvent {
    /// The `event` value in the JSON form.
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
