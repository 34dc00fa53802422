//! What goes over the wire, in both directions. Serialization is done here and nowhere further in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    control::{DrainPicture, EndpointPicture, Picture, PoolPicture, ServicePicture},
    model::{Color, Endpoint, Weighted},
    upstream::Condition,
};

/// The whole picture.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Status {
    /// How many changes of the table came before; also the `ETag`.
    pub generation: u64,
    /// All services, by name.
    pub services: BTreeMap<String, ServiceStatus>,
}

/// One service.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct EjectedStatus {
    /// Since when: RFC 3339.
    pub since: String,
    /// Until when.
    pub until: String,
    /// What requests got of it.
    pub reason: String,
}

/// Which colors to make active, all in one step.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedRequest {
    /// An address, like `127.0.0.1:9002`.
    pub address: String,
    /// Its share, 1 to 100; without it 1.
    #[serde(default = "one")]
    pub weight: u16,
}

/// What still holds a color.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
pub struct DrainKinds {
    /// Requests with their responses.
    pub request: u64,
    /// Upgraded connections.
    pub tunnel: u64,
}

/// Whether clients should be sent here.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Ready {
    /// Whether they should.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

/// An error: RFC 9457.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
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

// === impl From ===

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl From<Picture> for Status {
    fn from(picture: Picture) -> Self {
        let Picture { generation, revision: _, services } = picture;
        let services = services.into_iter().map(|(name, it)| (name.to_string(), it.into()));
        Self { generation: generation.0, services: services.collect() }
    }
}

impl From<ServicePicture> for ServiceStatus {
    fn from(picture: ServicePicture) -> Self {
        let ServicePicture { active, previous, is_damaged, blue, green } = picture;
        let pools = [(Color::Blue, blue), (Color::Green, green)];
        Self {
            active: active.to_string(),
            previous: previous.map(|it| it.to_string()),
            damaged: is_damaged,
            pools: pools.into_iter().map(|(it, pool)| (it.to_string(), pool.into())).collect(),
        }
    }
}

impl From<PoolPicture> for PoolStatus {
    fn from(picture: PoolPicture) -> Self {
        let PoolPicture {
            role,
            version,
            source,
            in_flight,
            queued,
            retries_left,
            is_panicking,
            endpoints,
        } = picture;
        Self {
            role: role.to_string(),
            version: version.map(|it| it.to_string()),
            source: match source {
                crate::model::Source::File => "file".to_owned(),
                crate::model::Source::Runtime => "runtime".to_owned(),
            },
            in_flight: number(in_flight),
            queued: number(queued),
            retry_budget: retries_left,
            panicking: is_panicking,
            endpoints: endpoints.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<EndpointPicture> for EndpointStatus {
    fn from(picture: EndpointPicture) -> Self {
        let EndpointPicture { address, resolved, weight, condition, in_flight, connections } =
            picture;
        let Condition { health, since, trouble, ejected } = condition;
        Self {
            address: address.to_string(),
            resolved: resolved.map(|it| it.to_string()),
            weight,
            health: health.to_string(),
            since: since.to_string(),
            reason: trouble.map(|it| it.what.to_string()),
            ejected: ejected.map(|it| EjectedStatus {
                since: it.since.to_string(),
                until: it.until.to_string(),
                reason: it.what.to_string(),
            }),
            in_flight: number(in_flight),
            connections: number(connections),
        }
    }
}

impl TryFrom<&EndpointRequest> for Weighted {
    type Error = String;

    fn try_from(request: &EndpointRequest) -> Result<Self, String> {
        let (address, weight) = match request {
            EndpointRequest::Plain(address) => (address, 1),
            EndpointRequest::Weighted(it) => (&it.address, it.weight),
        };
        let endpoint = address.parse::<Endpoint>().map_err(|error| error.to_string())?;
        Self::new(endpoint, weight.into())
            .ok_or_else(|| format!("`{address}`: a weight is 1 to {}", Self::MAX))
    }
}

impl From<DrainPicture> for DrainStatus {
    fn from(picture: DrainPicture) -> Self {
        let DrainPicture {
            service,
            color,
            is_active: _,
            in_flight,
            kinds,
            oldest,
            previews,
            is_drained,
        } = picture;
        let oldest_ms = oldest.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        Self {
            service: service.to_string(),
            color: color.to_string(),
            in_flight: number(in_flight),
            oldest_ms,
            kinds: DrainKinds { request: number(kinds.request), tunnel: number(kinds.tunnel) },
            previews: number(previews),
            drained: is_drained,
        }
    }
}
