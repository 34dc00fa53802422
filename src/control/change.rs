//! Changes of the state, and their outcomes.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use super::{catalog::Catalog, intake::IntakeChange, share_steps::ShareSteps, shared::Applied};
use crate::{
    audit::{self, AuditVerdict},
    model::{Color, Generation, OwnAddress, PoolSpec, ServiceName, UpstreamTls, Version},
    store::{CommitError, ManifestKey, Revision},
};

/// A change of the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Promote these colors, all in one step.
    Promote(BTreeMap<ServiceName, Color>),
    /// Promote the colors from before the last promotion, all in one step. No names: the services of the last
    /// promotion.
    Rollback {
        /// The services.
        services: Vec<ServiceName>,
        /// Also to a pool that was changed since it was active.
        force: bool,
    },
    /// Set the version and the endpoints of a pool.
    SetPool {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// Its new content.
        spec: PoolSpec,
        /// Also if its color is active.
        force: bool,
    },
    /// Approve a pool, at the version that it has.
    Approve {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// The approval is refused if the pool has another version; `None` for any.
        version: Option<Version>,
    },
    /// Confirm the promotions of these services. No names: all that wait for it.
    Confirm(Vec<ServiceName>),
    /// End the watch of a service. With a generation: only that of this promotion.
    EndWatch {
        /// The service.
        service: ServiceName,
        /// The generation of the promotion.
        generation: Option<Generation>,
    },
    /// Give up the confirmation of a promotion that could not be taken back. The promotion stays.
    GiveUpConfirmation {
        /// The service.
        service: ServiceName,
        /// The generation of the promotion.
        generation: Generation,
    },
    /// The next step of the gradual promotions of these services, but the last one.
    RaiseShare {
        /// The services.
        services: Vec<ServiceName>,
        /// The generation that began them.
        generation: Generation,
    },
    /// End the gradual promotions of these services: every client is back on the active color.
    TakeBackShare {
        /// The services.
        services: Vec<ServiceName>,
        /// The generation that began them.
        generation: Generation,
    },
    /// Sign pins with a new key from now on.
    RotatePinKeys {
        /// Its secret, which must be random.
        secret: [u8; 16],
    },
    /// Change whether a service takes new requests.
    Intake {
        /// The service.
        service: ServiceName,
        /// How.
        change: IntakeChange,
    },
    /// Apply a changed configuration.
    Reconfigure(Arc<Catalog>),
}

/// A change, and its conditions.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// The change.
    pub change: Change,
    /// The generations that it was decided on: the change is refused if none is current. `None` for any.
    pub if_generation: Option<Vec<Generation>>,
    /// Its idempotency key. A second call with an accepted key changes nothing and succeeds.
    pub idempotency: Option<Idempotency>,
    /// The reason, for the log and the events.
    pub reason: Option<String>,
    /// The caller, for the log and the events. `None` for Flipgate itself.
    pub actor: Option<Actor>,
    /// What is stored with a promotion.
    pub terms: PromotionTerms,
}

/// What is stored with a promotion, and what an automatic rollback depends on.
#[derive(Clone, Debug, Default)]
pub struct PromotionTerms {
    /// The manifests that the gates have read.
    pub manifests: Vec<(ManifestKey, Arc<str>)>,
    /// The promotion is taken back unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
    /// Failures and requests of the replaced color, for the limit of a watch.
    pub before: BTreeMap<ServiceName, (u64, u64)>,
    /// Whether the caller has skipped the gates.
    pub skips_gates: bool,
    /// The verdicts of the gates, for the audit log.
    pub verdicts: Vec<AuditVerdict>,
    /// A rollback is refused unless every service still has a watch or a confirmation of this promotion.
    pub takes_back: Option<Generation>,
    /// The promotion is made in these steps.
    pub steps: Option<ShareSteps>,
    /// A promotion is refused unless every service still is at the gradual promotion of this generation.
    pub completes: Option<Generation>,
}

/// The caller that asks for a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// The name of its token, or `local` without a token.
    pub name: String,
    /// Its address, or `unix` for the unix socket.
    pub address: String,
    /// The user that opened the unix socket.
    pub uid: Option<u32>,
    /// Whether it had a token.
    pub is_authenticated: bool,
}

/// An idempotency key, and the fingerprint of its call.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The key, 1 to 255 characters.
    pub key: String,
    /// The call's fingerprint, which is stored with the key.
    pub fingerprint: String,
    /// The fingerprint of the same call as versions before 0.2.0 wrote it.
    pub old_fingerprint: String,
}

/// A change that was made.
#[derive(Clone, Debug)]
pub struct ChangeOutcome {
    /// The generation that it led to: what the next change is decided on.
    pub generation: Generation,
    /// The revision that it led to, or that had it already.
    pub revision: Revision,
    /// Whether an earlier call with the same key made it.
    pub is_replayed: bool,
    /// The state that is applied since then.
    pub applied: Arc<Applied>,
}

/// A change that was not acknowledged. Nothing has changed, in the store or in the table, unless
/// [`CommitError::Unknown`] says that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another change was applied first.
    #[error(
        "decided on generation {}, but {current} is current; read the status and decide again",
        list(decided_on)
    )]
    Stale {
        /// The generations of the call.
        decided_on: Vec<Generation>,
        /// The current generation.
        current: Generation,
    },
    /// It is refused, for these reasons.
    #[error("{}", sentences(.0))]
    Refused(Vec<RefusalReason>),
    /// The idempotency key belongs to another call.
    #[error("the idempotency key `{0}` was used for another call; use a new key for each change")]
    KeyReused(String),
    /// It could not be written, or the outcome is unknown.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// The process is stopping.
    #[error("flipgate is stopping")]
    Stopping,
}

/// A reason why a change was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusalReason {
    /// The service; none for the change as a whole.
    pub service: Option<ServiceName>,
    /// The kind of the reason.
    pub problem: ReasonKind,
}

/// The kinds of reasons.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReasonKind {
    /// The configuration has no such service.
    #[error("is not configured; `flipgate status` lists the services")]
    UnknownService,
    /// The color is active already.
    #[error("has {0} active already")]
    AlreadyActive(Color),
    /// The color has no endpoints.
    #[error(
        "has no endpoints in {0}; set them first, with `flipgate set`, PUT /v1/services/…/pools/{0}, or in the configuration"
    )]
    NoEndpoints(Color),
    /// There is no previous color.
    #[error("has no promotion to roll back; promote the color that you want")]
    NeverPromoted,
    /// The previous pool was changed since it was active.
    #[error(
        "had {0} active before, but {0} was changed since; promote {0}, or roll back with force"
    )]
    ChangedSince(Color),
    /// No promotion was ever made.
    #[error("nothing was promoted yet; there is nothing to roll back")]
    NothingPromoted,
    /// The call names no service.
    #[error("no service is named")]
    NothingNamed,
    /// The pool is active.
    #[error("has {0} active; set the other color and promote it, or use force")]
    PoolIsActive(Color),
    /// The active pool would have no endpoints.
    #[error("has {0} active and would have no endpoints; promote the other color first")]
    ActiveEmptied(Color),
    /// An endpoint is an address of this process.
    #[error("would have {0} as an endpoint; use the address of the application")]
    OwnAddress(OwnAddress),
    /// The service has no approval gate, so that an approval would have no effect.
    #[error(
        "has no approval gate; configure service.{0}.gate.approval, or promote without an approval"
    )]
    NoApprovalGate(ServiceName),
    /// The pool has another version than the one to approve.
    #[error("has version {found} in {color}, not {wanted}; nothing was approved")]
    OtherVersion {
        /// The pool.
        color: Color,
        /// The version of the call.
        wanted: Version,
        /// The version of the pool, or `none`.
        found: String,
    },
    /// The service has no promotion that waits for a confirmation.
    #[error("has no promotion that waits for a confirmation")]
    NothingToConfirm,
    /// No service has one.
    #[error("no promotion waits for a confirmation")]
    NoConfirmations,
    /// The service has no watch.
    #[error("has no watch in progress")]
    NoWatch,
    /// Transactions are pinned to the color.
    #[error(
        "has transactions pinned to {0}; wait until they have ended (`flipgate drain`), or use force"
    )]
    PinsHold(Color),
    /// The color is promoted gradually.
    #[error(
        "has {0} promoted gradually; take that back first (`flipgate rollback`), or use force, which does so"
    )]
    ShareInProgress(Color),
    /// The service has no gradual promotion in progress.
    #[error("has no gradual promotion in progress")]
    NoShare,
    /// Another caller holds the service.
    #[error("is held by {owner} until {until}; release it first, or use force")]
    HeldByOther {
        /// The caller.
        owner: String,
        /// When the hold ends.
        until: String,
    },
    /// No service has pins.
    #[error("no service has pins; configure [service.NAME.pin]")]
    NoPins,
    /// Another promotion or rollback came after the one to take back.
    #[error("was promoted or rolled back again since")]
    Superseded,
    /// Its entry in the state file is damaged.
    #[error("has a damaged entry in the state file; promote a color first")]
    Damaged,
}

// === impl ChangeRequest ===

impl ChangeRequest {
    /// A change without conditions that Flipgate itself makes.
    #[must_use]
    pub fn unconditional(change: Change) -> Self {
        Self {
            change,
            if_generation: None,
            idempotency: None,
            reason: None,
            actor: None,
            terms: PromotionTerms::default(),
        }
    }
}

// === impl Actor ===

impl Actor {
    /// The address of a part of Flipgate.
    pub const INTERNAL: &str = audit::FLIPGATE;

    /// A part of Flipgate that makes a change, such as the watch.
    #[must_use]
    pub fn internal(part: &str) -> Self {
        let (name, address) = (part.to_owned(), Self::INTERNAL.to_owned());
        Self { name, address, uid: None, is_authenticated: false }
    }
}

// === impl Idempotency ===

impl Idempotency {
    /// Whether a stored fingerprint belongs to this call.
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        stored == self.fingerprint || stored == self.old_fingerprint
    }
}

// === impl Change ===

impl Change {
    /// The TLS settings of the pools of this change.
    pub(super) fn tls_settings(&self, catalog: &Catalog) -> HashSet<UpstreamTls> {
        let is_secured = |spec: &PoolSpec| spec.endpoints.iter().any(|it| it.endpoint.is_tls);
        match self {
            Self::Promote(_)
            | Self::Rollback { .. }
            | Self::Approve { .. }
            | Self::Confirm(_)
            | Self::EndWatch { .. }
            | Self::GiveUpConfirmation { .. }
            | Self::RaiseShare { .. }
            | Self::TakeBackShare { .. }
            | Self::RotatePinKeys { .. }
            | Self::Intake { .. } => HashSet::new(),
            Self::SetPool { service, color, spec, .. } => {
                // The file decides protocol and TLS of a pool.
                let written = catalog.services().get(service).filter(|_| is_secured(spec));
                written.map(|it| it.pool(*color).link.tls.clone()).into_iter().collect()
            }
            Self::Reconfigure(new) => {
                let pools = new.services().values().flat_map(|it| [&it.blue, &it.green]);
                let is_needed =
                    |it: &&PoolSpec| is_secured(it) || it.link.tls != UpstreamTls::default();
                pools.filter(is_needed).map(|it| it.link.tls.clone()).collect()
            }
        }
    }
}

// === impl ReasonKind ===

impl ReasonKind {
    /// The code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownService => "unknown_service",
            Self::AlreadyActive(_) => "already_active",
            Self::NoEndpoints(_) => "no_endpoints",
            Self::NeverPromoted => "never_promoted",
            Self::ChangedSince(_) => "changed_since",
            Self::NothingPromoted => "nothing_promoted",
            Self::NothingNamed => "nothing_named",
            Self::PoolIsActive(_) => "pool_is_active",
            Self::ActiveEmptied(_) => "active_emptied",
            Self::OwnAddress(_) => "own_address",
            Self::NoApprovalGate(_) => "no_approval_gate",
            Self::OtherVersion { .. } => "other_version",
            Self::NothingToConfirm => "nothing_to_confirm",
            Self::NoConfirmations => "nothing_to_confirm",
            Self::NoWatch => "no_watch",
            Self::PinsHold(_) => "pins_hold",
            Self::ShareInProgress(_) => "share_in_progress",
            Self::NoShare => "no_share",
            Self::HeldByOther { .. } => "held_by_other",
            Self::NoPins => "no_pins",
            Self::Superseded => "superseded",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the call is wrong in any state.
    #[must_use]
    pub fn is_caller_error(&self) -> bool {
        matches!(
            self,
            Self::UnknownService
                | Self::AlreadyActive(_)
                | Self::NothingNamed
                | Self::OwnAddress(_)
        )
    }
}

// === impl RefusalReason ===

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "service `{service}` {}", self.problem),
            None => self.problem.fmt(f),
        }
    }
}

fn sentences(reasons: &[RefusalReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn list(generations: &[Generation]) -> String {
    generations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
