//! The JSON of requests and responses, as types.
//!
//! Colors, roles and times are strings, as on the wire: a client that is older than the server still reads
//! a response that has new fields or new values.

mod rollouts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::rollouts::{
    DeploymentRequest, RolloutActionRequest, RolloutList, RolloutRequest, RolloutService,
    RolloutStage, RolloutStatus, RolloutUndo,
};

/// The state of all services.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The version of the routing table: every change of it adds 1. Also the `ETag` of the response. In the
    /// response to a change, the generation that this change led to: send it as `If-Match` with the next one.
    pub generation: u64,
    /// The version of the stored state: every change adds 1, also one that leaves the routing table as it is.
    #[serde(default)]
    pub revision: u64,
    /// Why the state is read-only until a restart: a change had an unknown outcome, such as after a failed
    /// disk sync. Traffic goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<String>,
    /// Why the last change could not be written, until one is: the disk is full, for example. Each change tries
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_refused: Option<String>,
    /// Why audit lines wait in the state instead of being in the audit file. Changes go on, up to a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_refused: Option<String>,
    /// Whether `services` has only the services that the change named: so it is in the response to a change if
    /// more than 100 services are configured. `GET /v1/status` always has all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether the change was made before, by a call under the same `Idempotency-Key`. The generation is that
    /// of then; the services are shown as they are now, which may be otherwise since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// The services, by name.
    pub services: BTreeMap<String, ServiceStatus>,
}

/// One service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceStatus {
    /// The color that serves public requests: `blue` or `green`.
    pub active: String,
    /// The color that a rollback would make active. `null` if there is none.
    pub previous: Option<String>,
    /// Whether the service's entry in the state file could not be read. The service refuses all requests until
    /// a color is promoted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
    /// The watch of the active color, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchStatus>,
    /// When the last promotion is taken back unless it is confirmed, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<String>,
    /// The gradual promotion in progress, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<ShareStatus>,
    /// How the last gradual promotion was taken back, until another promotion or other endpoints of its color.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_ended: Option<ShareEndStatus>,
    /// The id of the rollout that the service is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// The hold of the service, while requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// The maintenance of the service, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
    /// The two pools, by color.
    pub pools: BTreeMap<String, PoolStatus>,
}

/// The hold of a service: new requests wait, without a claim on any color.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldStatus {
    /// Names the hold: a release can name it.
    pub id: u64,
    /// The caller that began it, as the audit log names it.
    pub owner: String,
    /// When it began, as RFC 3339.
    pub since: String,
    /// When it ends by itself, as RFC 3339.
    pub until: String,
    /// The time until it ends by itself, in milliseconds. 0 if it was released.
    pub remaining_ms: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// How many requests may wait.
    pub requests: u64,
    /// Whether the hold is over, and its requests go one after the other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
}

/// The maintenance of a service: new requests get 503.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceStatus {
    /// The caller that began it, as the audit log names it.
    pub owner: String,
    /// When it began, as RFC 3339.
    pub since: String,
    /// When clients should come again, in seconds.
    pub retry_after_s: u32,
    /// Whether internal clients are let through.
    pub except_internal: bool,
    /// The length of the page, in bytes. 0 if there is none.
    pub page_bytes: u64,
}

/// A request to hold new requests of a service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// For how long, such as `10s`; at most 5 minutes. The default is `hold.for` of the service.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<String>,
    /// How many requests may wait, 1 to 10000. The default is `hold.requests` of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Also if another caller holds the service: replaces that hold. Needs the scope `admin` and a reason.
    #[serde(default)]
    pub force: bool,
    /// The reason, for the log. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A request to let held requests go.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Only this hold: if there is another one by now, nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The reason, for the log. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A request to answer new requests of a service with 503.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// The page, in HTML, of at most 256 KiB. Without one, clients get the text of other errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// When clients should come again, such as `60s`, the default; at most 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// Let internal clients through.
    #[serde(default)]
    pub except_internal: bool,
    /// The reason, for the log. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// `active`, `draining`, `standby`, `preview` or `empty`.
    pub role: String,
    /// The version that runs there, if it was set.
    pub version: Option<String>,
    /// Where version and endpoints were set: in the configuration `file`, or at `runtime` by the admin API.
    pub source: String,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests of these that wait in the queue, since every endpoint is at its limit.
    #[serde(default)]
    pub queued: u64,
    /// Retries that the budget of the service's `retry` allows now.
    #[serde(default)]
    pub retry_budget: u32,
    /// Whether panic mode is on: too few endpoints are usable, so unhealthy ones get requests too.
    #[serde(default)]
    pub panicking: bool,
    /// Whether its endpoints may be stopped: it is drained, and nothing else may need it. Absent for the active color, and for
    /// one that was never active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_to_stop: Option<bool>,
    /// What may still need it: `watch`, `confirm`, `share`, `pins`, and `previews`, `rescue` and `assets` in flight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// When the last of these ends, as RFC 3339. Absent if that is not known, as for requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The transactions that are pinned to it, while it is not active and any may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<PinsStatus>,
    /// The approvals of this pool that are valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalStatus>,
    /// The endpoints. A name that was resolved has one for each of its addresses.
    pub endpoints: Vec<EndpointStatus>,
}

/// The transactions that are pinned to a color which is not active any more.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PinsStatus {
    /// How many there are. Absent for pins in cookies, which are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// When the last of them ends at the latest, as RFC 3339.
    pub until: String,
}

/// The approval of a pool by one caller.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApprovalStatus {
    /// The name of the caller's token, or `local` without a token.
    pub by: String,
    /// When it was given, as RFC 3339.
    pub at: String,
    /// When it expires, as RFC 3339. Absent if the gate `approval` is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointStatus {
    /// Host and port, or the path of a unix socket, as configured.
    pub address: String,
    /// The address that the name was resolved to, if `address` has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// The weight for load balancing, 1 to 100.
    #[serde(default = "one")]
    pub weight: u16,
    /// The result of its health checks: `up`, `down`, or `unknown` before the first.
    pub health: String,
    /// When the health changed last, as RFC 3339.
    #[serde(default)]
    pub since: String,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its ejection, while it is ejected for failed requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<EjectedStatus>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Open connections, including idle ones.
    #[serde(default)]
    pub connections: u64,
}

/// The ejection of an endpoint.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EjectedStatus {
    /// When it began, as RFC 3339.
    pub since: String,
    /// When it ends, as RFC 3339.
    pub until: String,
    /// What failed.
    pub reason: String,
}

/// The colors to make active, all in one step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// The color of each service: `blue` or `green`.
    pub services: BTreeMap<String, String>,
    /// Skip the gates. Needs the scope `admin` and a reason. A color without endpoints is always refused.
    #[serde(default)]
    pub force: bool,
    /// The reason, for the log and the events. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Take the promotion back unless it is confirmed within this time, such as `2m`; at most 24 hours. A second promotion to
    /// the same colors with this field extends the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<String>,
    /// Promote gradually: the shares of clients that the colors get, in percent, each larger than the one before. The last one
    /// is 100. Empty: all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u8>,
    /// How long each step lasts at least, such as `2m`; 1 second to 7 days. By default 2 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_for: Option<String>,
    /// Internal clients and holders of the token of this promotion get the colors first, before the first step and through all
    /// of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
}

/// The gates to run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GateRequest {
    /// The candidate: `blue` or `green`. By default the color that is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
}

/// The verdicts of the gates of one service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GateStatus {
    /// The service.
    pub service: String,
    /// The candidate.
    pub color: String,
    /// Whether every gate allows the promotion.
    pub passed: bool,
    /// The verdicts, in the order in which the gates run.
    pub gates: Vec<GateVerdict>,
}

/// The verdict of one gate.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GateVerdict {
    /// `healthy`, `approval`, `compatible`, `smoke`, `warm_up`, `shadow` or `hook`.
    pub gate: String,
    /// Whether the gate allows the promotion.
    pub passed: bool,
    /// Whether the gate did not run, because an earlier one refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_run: bool,
    /// The time that it took, in milliseconds.
    pub took_ms: u64,
    /// Why it refuses, or why it did not run.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What the verdict rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The approval of a pool.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The pool: `blue` or `green`. By default the color that is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// Approve only this version: if the pool has another one, the call is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The reason, for the log. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The promotions to confirm.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// The services. Empty: all that wait for a confirmation.
    #[serde(default)]
    pub services: Vec<String>,
}

/// The watch of a service in progress.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WatchStatus {
    /// When it ends, as RFC 3339.
    pub until: String,
    /// The share of failures so far, in percent.
    pub errors: f64,
    /// Failures that count.
    pub failures: u64,
    /// Answers that count, with the failures.
    pub requests: u64,
    /// Whether the color before serves requests that cannot be connected to the active one.
    #[serde(default)]
    pub rescue: bool,
}

/// A gradual promotion in progress.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareStatus {
    /// The candidate, which is not active: `blue` or `green`.
    pub color: String,
    /// Its share of the clients, in percent, 0 to 99.
    pub percent: u8,
    /// The shares of all steps, in percent. The last one is 100: the candidate becomes active.
    pub steps: Vec<u8>,
    /// The current step, from 1.
    pub step: u64,
    /// When it is over, as RFC 3339, if the watch has a verdict then.
    pub until: String,
    /// Why the time is over and the step goes on: the watch has no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// The share of failures of the candidate in this step, in percent.
    pub errors: f64,
    /// Failures that count.
    pub failures: u64,
    /// Answers that count, with the failures.
    pub requests: u64,
    /// The token for those who go first, for the header `Flipgate-First` or the cookie `flipgate_first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token: Option<String>,
}

/// The end of a gradual promotion that was taken back.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareEndStatus {
    /// The color that was the candidate: `blue` or `green`.
    pub color: String,
    /// When, as RFC 3339.
    pub at: String,
    /// The caller; for Flipgate itself `watch`, `share` or `reload`.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The services to roll back, all in one step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The services. Empty: all services of the last promotion.
    #[serde(default)]
    pub services: Vec<String>,
    /// Skip the gates, and also roll back to a color with endpoints that were changed since it was active. Needs the
    /// scope `admin` and a reason.
    #[serde(default)]
    pub force: bool,
    /// The reason, for the log and the events. At most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The new content of a pool.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PoolRequest {
    /// The version that runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The endpoints, at most 1000.
    pub endpoints: Vec<EndpointRequest>,
    /// Also change the pool if its color is active. Needs the scope `admin`.
    #[serde(default)]
    pub force: bool,
}

/// An endpoint of a pool.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(
    untagged,
    expecting = "an endpoint is a text like \"127.0.0.1:9002\", or {\"address\": \"127.0.0.1:9002\", \"weight\": 3}"
)]
pub enum EndpointRequest {
    /// An address, like `127.0.0.1:9002`, with the weight 1.
    Plain(String),
    /// An address with a weight.
    Weighted(WeightedRequest),
}

/// An endpoint with a weight.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightedRequest {
    /// An address, like `127.0.0.1:9002`.
    pub address: String,
    /// The weight, 1 to 100. The default is 1.
    #[serde(default = "one")]
    pub weight: u16,
}

/// The progress of a drain.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainStatus {
    /// The service.
    pub service: String,
    /// The color. The default of the query is the color that is not active.
    pub color: String,
    /// Requests in flight that were admitted before the last change of this color.
    pub in_flight: u64,
    /// The age of the oldest of them in milliseconds. 0 if there is none.
    pub oldest_ms: u64,
    /// The same requests by kind.
    pub kinds: DrainKinds,
    /// Preview requests of internal clients that came later. They do not hold up the drain.
    pub previews: u64,
    /// Requests that could not be connected to the active color, and that this one serves. They do not hold up the drain.
    #[serde(default)]
    pub rescued: u64,
    /// Requests in flight of transactions that are pinned to the color.
    #[serde(default)]
    pub pinned: u64,
    /// Requests in flight of clients that belong to its share, while the color is promoted gradually.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared: u64,
    /// Requests in flight for assets that the active color does not have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub assets: u64,
    /// The transactions that are pinned to the color, if any may be. They hold up the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<PinsStatus>,
    /// How streams are ended since the color was replaced. Absent if none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<DrainStreams>,
    /// Whether the drain is complete: no request is in flight, and none can come. Always false for the active color.
    pub drained: bool,
    /// Whether the endpoints may be stopped: the color is drained, and nothing else may need it.
    #[serde(default)]
    pub safe_to_stop: bool,
    /// What may still need the color: `watch`, `confirm`, `share`, `pins`, and `previews`, `rescue` and `assets` in flight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// When the last of these ends, as RFC 3339. Absent if that is not known, as for requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// How the streams on a replaced color are ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainStreams {
    /// Whether streams may still be ended. False when the color has become active again.
    pub ending: bool,
    /// The time left until the last stream ends, in milliseconds. A stream may need some seconds more.
    pub left_ms: u64,
    /// How many streams were ended: by kind (`websocket`, `sse`, `grpc`, `download`, `upload`), and how (`closed`,
    /// `ended`, `cut`).
    pub ended: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A request to end the streams on a color that a flip has replaced.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EndStreamsRequest {
    /// The color. The default is the color that is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// Must be true.
    pub end_streams: bool,
}

/// Requests in flight, by kind.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainKinds {
    /// HTTP requests.
    pub request: u64,
    /// Upgraded connections, like WebSockets.
    pub tunnel: u64,
}

/// Whether a load balancer should send requests to this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Whether it should.
    pub ready: bool,
    /// Why not, if not.
    pub reasons: Vec<String>,
    /// What an operator should look at although Flipgate is ready: a full disk, for example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An error response: a problem document (RFC 9457).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The kind of problem, as a URN like `urn:flipgate:problem:refused`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A summary of the kind for people.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What happened, and what to do.
    pub detail: String,
    /// Every reason, for a change that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ProblemReason>,
    /// The current generation, if the `If-Match` of the request named another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// All verdicts of each service, for a promotion that a gate refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
}

/// One reason why a change was refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProblemReason {
    /// The service that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A word for programs, like `unknown_service`.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn one() -> u16 {
    1
}
