//! Why a change is refused.

use std::fmt;

use crate::model::{Color, OwnAddress, RolloutId, ServiceName, Version};

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
    /// A rollout of the service is in progress.
    #[error(
        "is in the rollout {id} of {owner}; wait for its end (`flipgate rollout {id}`), cancel it, or use force"
    )]
    InRollout {
        /// The rollout.
        id: RolloutId,
        /// The caller that began it.
        owner: String,
    },
    /// The rollout has gone on, or is over.
    #[error("rollout {0} has gone on or is over; look at it again (`flipgate rollout {0}`)")]
    RolloutMoved(RolloutId),
    /// The pool of a rollout is not what the rollout has set.
    #[error(
        "has another version or other endpoints in {0} than the rollout has set; they were changed since"
    )]
    OtherPool(Color),
    /// Its entry in the state file is damaged.
    #[error("has a damaged entry in the state file; promote a color first")]
    Damaged,
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
            Self::InRollout { .. } => "in_rollout",
            Self::RolloutMoved(_) => "rollout_moved",
            Self::OtherPool(_) => "other_pool",
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

/// The reasons in one line.
pub(super) fn sentences(reasons: &[RefusalReason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
