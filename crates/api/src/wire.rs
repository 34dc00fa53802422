//! What goes over the wire, in both directions. Serialization is done here and nowhere further in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole picture.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// How many changes of the table came before; also the `ETag`.
    pub generation: u64,
    /// All services, by name.
    pub services: BTreeMap<String, ServiceStatus>,
}

/// One service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceStatus {
    /// The color that answers: `blue` or `green`.
    pub active: String,
    /// The color that a rollback would make active; null if there is none.
    pub previous: Option<String>,
    /// Whether the service's entry in the state file could not be read. It answers nobody until
    /// the color that shall be active is promoted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// The two pools, by color.
    pub pools: BTreeMap<String, PoolStatus>,
}

/// One pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// `active`, `draining`, `standby`, `preview` or `empty`.
    pub role: String,
    /// What runs there, if anybody said so.
    pub version: Option<String>,
    /// Where version and endpoints come from: `file` or `runtime`.
    pub source: String,
    /// Requests inside.
    pub in_flight: u64,
    /// Requests of these that wait for a place at an endpoint.
    #[serde(default)]
    pub queued: u64,
    /// Requests that may be tried again now, for what the service's `retry` lists.
    #[serde(default)]
    pub retry_budget: u32,
    /// Whether so few endpoints are well that those are used too that answer badly.
    #[serde(default)]
    pub panicking: bool,
    /// Its endpoints; of a name that was resolved, one for each address.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointStatus {
    /// Host and port, as they were written.
    pub address: String,
    /// If that is a name, which of its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// Its share beside the others'.
    #[serde(default = "one")]
    pub weight: u16,
    /// What its checks have found: `up`, `down`, or `unknown` before the first.
    pub health: String,
    /// Since when: RFC 3339.
    #[serde(default)]
    pub since: String,
    /// What is wrong, if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it is left out for a while, for what requests got of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<EjectedStatus>,
    /// Requests that are with it.
    pub in_flight: u64,
    /// Connections to it, those that wait for a request too.
    #[serde(default)]
    pub connections: u64,
}

/// Being left out for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EjectedStatus {
    /// Since when: RFC 3339.
    pub since: String,
    /// Until when.
    pub until: String,
    /// What requests got of it.
    pub reason: String,
}

/// Which colors to make active, all in one step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// The color of each service: `blue` or `green`.
    pub services: BTreeMap<String, String>,
    /// Pass gates that may be passed by force. A color without endpoints never is.
    #[serde(default)]
    pub force: bool,
    /// Why; it goes to the log and the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which services to take back, all in one step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// None named: all services of the last promotion.
    #[serde(default)]
    pub services: Vec<String>,
    /// Also to a color whose endpoints were changed since it was active.
    #[serde(default)]
    pub force: bool,
    /// Why; it goes to the log and the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a pool shall be made of.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// What runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it runs; at most 1000.
    pub endpoints: Vec<EndpointRequest>,
    /// Also if the color is active.
    #[serde(default)]
    pub force: bool,
}

/// An endpoint, with its share of the requests.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(
    untagged,
    expecting = "an endpoint is a text like \"127.0.0.1:9002\", or {\"address\": \"127.0.0.1:9002\", \"weight\": 3}"
)]
pub enum EndpointRequest {
    /// An address, like `127.0.0.1:9002`, with a share as large as the others'.
    Plain(String),
    /// The same with another share.
    Weighted(WeightedRequest),
}

/// An endpoint with a share of its own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightedRequest {
    /// An address, like `127.0.0.1:9002`.
    pub address: String,
    /// Its share, 1 to 100; without it 1.
    #[serde(default = "one")]
    pub weight: u16,
}

/// What still holds a color.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainStatus {
    /// The service.
    pub service: String,
    /// The color; unless one was asked for, the one that is not active.
    pub color: String,
    /// Requests that were admitted before the last change that concerned this color.
    pub in_flight: u64,
    /// For how long the oldest of them has been inside, in milliseconds; 0 without any.
    pub oldest_ms: u64,
    /// What they are.
    pub kinds: DrainKinds,
    /// Requests of internal clients who asked for the color since. They do not hold up the drain.
    pub previews: u64,
    /// Whether nobody is left, so that its endpoints may be stopped. Never true of an active color.
    pub drained: bool,
}

/// What holds a color, by kind.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainKinds {
    /// Requests with their responses.
    pub request: u64,
    /// Upgraded connections.
    pub tunnel: u64,
}

/// Whether clients should be sent here.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Whether they should.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

/// An error: RFC 9457.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of problem it is, as a URN.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in words.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What happened here, and what to do.
    pub detail: String,
    /// Every single reason, if there are several to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ProblemReason>,
    /// The current generation, if the call was decided on another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// One reason.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProblemReason {
    /// The service that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

fn one() -> u16 {
    1
}
