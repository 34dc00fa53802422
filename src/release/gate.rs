//! What a gate is, and what it finds.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::candidate::Candidate;
use crate::{
    model::{Color, ServiceName},
    store::ManifestKey,
};

/// A condition for a promotion. `gates` has one implementation per file.
pub(super) trait Gate: Send + Sync {
    /// Its name.
    fn name(&self) -> GateName;

    /// Gathers the evidence and judges it. Cancel-safe: dropping the future closes its connections, and nothing has
    /// changed. Has no deadline of its own.
    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings>;
}

/// The gates, in the order in which they run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GateName {
    /// Endpoints are healthy.
    Healthy,
    /// A person has approved the version.
    Approval,
    /// Both versions can run at the same time.
    Compatible,
    /// Requests get the expected responses.
    Smoke,
    /// Every endpoint has served requests.
    WarmUp,
    /// Copies of requests get the same responses from both versions.
    Shadow,
    /// Another program allows the promotion.
    Hook,
}

/// What a gate has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Why the gate refuses; empty if it allows.
    pub(super) reasons: Vec<String>,
    /// What the verdict rests on, in short sentences.
    pub(super) evidence: Vec<String>,
    /// Manifests to store with the promotion.
    pub(super) manifests: Vec<(ManifestKey, Arc<str>)>,
}

/// The verdict of one gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The gate.
    pub gate: GateName,
    /// Its result.
    pub result: GateResult,
    /// The time that it took.
    pub took: Duration,
    /// Why it refuses or did not run.
    pub reasons: Vec<String>,
    /// What the verdict rests on.
    pub evidence: Vec<String>,
}

/// The result of one gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GateResult {
    /// The condition holds.
    Passed,
    /// It does not hold, or could not be checked.
    Refused,
    /// An earlier gate refused.
    NotRun,
}

/// The verdicts of all gates of one service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GateReport {
    /// The service.
    pub service: ServiceName,
    /// The candidate.
    pub color: Color,
    /// The verdicts, in the order of the gates.
    pub verdicts: Vec<Verdict>,
    /// Manifests to store with the promotion.
    pub manifests: Vec<(ManifestKey, Arc<str>)>,
}

// === impl GateName ===

impl GateName {
    /// The name in the API and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Approval => "approval",
            Self::Compatible => "compatible",
            Self::Smoke => "smoke",
            Self::WarmUp => "warm_up",
            Self::Shadow => "shadow",
            Self::Hook => "hook",
        }
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl GateReport ===

impl GateReport {
    /// Whether every gate has allowed the promotion.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.verdicts.iter().all(|it| it.result == GateResult::Passed)
    }

    /// The verdicts of the gates that refuse.
    pub fn refusals(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|it| it.result == GateResult::Refused)
    }
}

// === impl Findings ===

impl Findings {
    /// The condition holds.
    pub(super) fn passed(evidence: impl Into<String>) -> Self {
        Self { evidence: vec![evidence.into()], ..Self::default() }
    }

    /// The condition does not hold, or could not be checked.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], ..Self::default() }
    }

    /// Adds those of another part.
    pub(super) fn add(&mut self, other: Self) {
        let Self { reasons, evidence, manifests } = other;
        self.reasons.extend(reasons);
        self.evidence.extend(evidence);
        self.manifests.extend(manifests);
    }
}
