//! The gates of a service: conditions that must hold before a promotion.
//!
//! Expressions and regular expressions are kept as text here. The configuration checks them, and the gate that uses them
//! compiles them.

use std::{fmt, path::PathBuf, time::Duration};

use super::{Endpoint, PathPrefix, StatusSet};

/// The gates of a service. A gate that is not configured does not run, except for `healthy`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GateSettings {
    /// The time for all gates of one promotion.
    pub deadline: Duration,
    /// Endpoints are healthy.
    pub healthy: HealthyGate,
    /// A person has approved the version.
    pub approval: Option<ApprovalGate>,
    /// Both versions can run at the same time.
    pub compatible: Option<CompatibleGate>,
    /// Requests to every endpoint get the expected responses.
    pub smoke: Vec<SmokeStep>,
    /// Every endpoint has served requests.
    pub warm_up: Option<WarmUpGate>,
    /// Copies of requests get the same responses from both versions.
    pub shadow: Option<ShadowGate>,
    /// Another program allows the promotion.
    pub hook: Option<HookGate>,
    /// Idle connections that each worker opens to each endpoint before the promotion, 0 to 16.
    pub preconnect: usize,
}

/// How many endpoints of the candidate must be healthy, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthyGate {
    /// How many.
    pub needed: EndpointShare,
    /// For how long each of them has been healthy.
    pub up_for: Duration,
}

/// A part of the endpoints of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointShare {
    /// This many, at least 1.
    Count(usize),
    /// This many percent, rounded up, 1 to 100.
    Percent(u8),
}

/// An approval of the candidate's version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApprovalGate {
    /// How long an approval is valid.
    pub expires: Duration,
    /// Whether two identities must agree: the one that set the pool and the one that approves.
    pub four_eyes: bool,
}

/// Rules that both versions must meet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompatibleGate {
    /// The path of the manifest, a JSON document of the application.
    pub manifest: Box<str>,
    /// JSON pointers (RFC 6901) of the values that may differ between the endpoints of one pool.
    pub ignore: Vec<Box<str>>,
    /// The rules.
    pub rules: Vec<CompatibilityRule>,
    /// Manifests that `flipgate check` runs the rules with. The gate does not use them.
    pub samples: Vec<ManifestSample>,
}

/// Two manifests, and what the rules must say to them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestSample {
    /// The file with the manifest of the old version.
    pub old: PathBuf,
    /// The file with the manifest of the new version.
    pub new: PathBuf,
    /// Whether the rules allow the promotion of the new version.
    pub promote: bool,
    /// Whether the rules allow the rollback from the new version to the old one.
    pub rollback: bool,
}

/// A rule about two manifests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompatibilityRule {
    /// Its name in messages.
    pub name: Box<str>,
    /// A CEL expression over `old`, `new`, `active` and `candidate` that must be true.
    pub require: Box<str>,
    /// What to do if it is not.
    pub help: Option<Box<str>>,
    /// Whether it applies to promotions.
    pub on_promote: bool,
    /// Whether it applies to rollbacks.
    pub on_rollback: bool,
}

/// A request to every endpoint of the candidate, and the expected response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SmokeStep {
    /// Its name in messages.
    pub name: Box<str>,
    /// The method.
    pub method: Box<str>,
    /// The path with its query. `{name}` stands for a saved value, here and in headers and body.
    pub path: Box<str>,
    /// Headers, which replace those that Flipgate would send.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The body.
    pub body: Option<Box<str>>,
    /// The expected response.
    pub expect: Expectation,
    /// Values that later steps use: each name with the CEL expression of its value.
    pub save: Vec<(Box<str>, Box<str>)>,
}

/// An expected response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expectation {
    /// The statuses.
    pub statuses: StatusSet,
    /// Regular expressions for headers.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// A regular expression that the body matches.
    pub body: Option<Box<str>>,
    /// A text that the body contains.
    pub text: Option<Box<str>>,
    /// A CEL expression over `body`, `status` and `headers` that is true.
    pub json: Option<Box<str>>,
    /// The time for the connection and the whole response.
    pub within: Duration,
}

/// Requests that warm up every endpoint of the candidate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WarmUpGate {
    /// The paths, in turn.
    pub paths: Vec<Box<str>>,
    /// When an endpoint is warm.
    pub until: WarmUpTarget,
    /// The time for it.
    pub within: Duration,
}

/// When an endpoint is warm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WarmUpTarget {
    /// After this many responses.
    Requests(usize),
    /// When the 95th percentile of the last responses is not above this time.
    P95(Duration),
}

/// Copies of live requests, to compare the responses of both versions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShadowGate {
    /// Percent of the GET and HEAD requests that are copied, 1 to 100.
    pub share: u8,
    /// How long.
    pub time: Duration,
    /// The fewest requests that must be compared, at least 1.
    pub requests: u64,
    /// Percent of the compared requests that may differ, 0 to 100.
    pub different: u8,
    /// The time for each response.
    pub timeout: Duration,
    /// Whether requests with credentials are copied, with their credentials.
    pub credentials: bool,
    /// Paths that are not copied.
    pub exclude: Vec<PathPrefix>,
    /// JSON pointers (RFC 6901) of values that are not compared.
    pub ignore: Vec<Box<str>>,
    /// Regular expressions of texts that are not compared.
    pub ignore_text: Vec<Box<str>>,
    /// The names of the response headers that are compared, in lower case.
    pub headers: Vec<Box<str>>,
    /// How much later than the active color the candidate may respond, if that is compared.
    pub latency: Option<Duration>,
}

/// A program that allows or refuses a promotion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HookGate {
    /// The URL as configured, without credentials.
    pub url: Box<str>,
    /// The host of the URL.
    pub endpoint: Endpoint,
    /// The `Host` of the request.
    pub host: Box<str>,
    /// The path of the URL with its query.
    pub path: Box<str>,
    /// The keys that sign the request, one signature for each.
    pub secrets: Vec<HookSecret>,
    /// The time for the response.
    pub timeout: Duration,
}

/// A key that signs calls of a hook. Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct HookSecret(Box<[u8]>);

// === impl GateSettings ===

impl GateSettings {
    /// The default deadline.
    pub const DEADLINE: Duration = Duration::from_secs(120);
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            deadline: Self::DEADLINE,
            healthy: HealthyGate::default(),
            approval: None,
            compatible: None,
            smoke: Vec::new(),
            warm_up: None,
            shadow: None,
            hook: None,
            preconnect: 1,
        }
    }
}

impl Default for ShadowGate {
    fn default() -> Self {
        Self {
            share: 10,
            time: Duration::from_secs(60),
            requests: 200,
            different: 1,
            timeout: Duration::from_secs(5),
            credentials: false,
            exclude: Vec::new(),
            ignore: Vec::new(),
            ignore_text: Vec::new(),
            headers: vec!["content-type".into(), "location".into()],
            latency: None,
        }
    }
}

impl Default for HealthyGate {
    fn default() -> Self {
        Self { needed: EndpointShare::Count(1), up_for: Duration::ZERO }
    }
}

// === impl EndpointShare ===

impl EndpointShare {
    /// How many of `all` endpoints these are, at least 1.
    #[must_use]
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => (all * usize::from(percent)).div_ceil(100).max(1),
        }
    }
}

// === impl HookSecret ===

impl HookSecret {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_zero() {
        let of = |percent, all| EndpointShare::Percent(percent).of(all);
        assert_eq!([of(50, 2), of(50, 3), of(1, 3), of(100, 3), of(50, 0)], [1, 2, 1, 3, 1]);
        assert_eq!([EndpointShare::Count(2).of(5), EndpointShare::Count(2).of(1)], [2, 2]);
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", HookSecret::new(b"sesame")).contains("sesame"));
    }
}
