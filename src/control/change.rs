//! What can be asked for, and how it ends.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use super::{catalog::Catalog, shared::Applied};
use crate::{
    model::{Color, Generation, OwnAddress, PoolSpec, ServiceName, UpstreamTls},
    store::{CommitError, Revision},
};

/// A change of the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Make these colors active, all in one step.
    Promote(BTreeMap<ServiceName, Color>),
    /// Make active what was so before the last promotion, all in one step. None named: the services
    /// of the last promotion.
    Rollback {
        /// The services.
        services: Vec<ServiceName>,
        /// Also to a pool that was changed since it was active.
        force: bool,
    },
    /// Set what a pool is made of.
    SetPool {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// What it shall be.
        spec: PoolSpec,
        /// Also if it is the active one.
        force: bool,
    },
    /// Take a changed configuration.
    Follow(Arc<Catalog>),
}

/// A change with the conditions under which it is wanted.
#[derive(Clone, Debug)]
pub struct ChangeRequest {
    /// What is wanted.
    pub change: Change,
    /// Only if the current generation is one of these; `None` for any.
    pub if_generation: Option<Vec<Generation>>,
    /// A key and what the call is. A call under a key that was accepted before changes nothing and
    /// succeeds.
    pub idempotency: Option<Idempotency>,
    /// Why, in the caller's words; it goes to the log and the events.
    pub reason: Option<String>,
    /// Who asks for the change, for the log and the events. `None` for Flipgate itself.
    pub actor: Option<Actor>,
}

/// The caller that asks for a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// The name of its token, or `local` without a token.
    pub name: String,
    /// Its address, or `unix` for the unix socket.
    pub address: String,
}

/// A key for a call, and what tells that call from others.
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
    /// The generation that has it: what the next change is decided on.
    pub generation: Generation,
    /// The revision of the state that has it, or that was found to have it already.
    pub revision: Revision,
    /// Whether it was made by an earlier call under the same key.
    pub is_repeated: bool,
    /// What was applied with it.
    pub applied: Arc<Applied>,
}

/// A change that was not acknowledged. Nothing has changed then, in the store or in the table, unless
/// [`CommitError::Unknown`] says that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Somebody else's change came first.
    #[error(
        "decided on generation {}, but {current} is current: look at the status and decide again",
        list(decided_on)
    )]
    Stale {
        /// What the caller had seen.
        decided_on: Vec<Generation>,
        /// What is.
        current: Generation,
    },
    /// It cannot be done, for these reasons.
    #[error("{}", sentences(.0))]
    Refused(Vec<RefusalReason>),
    /// The idempotency key belongs to another call.
    #[error(
        "the idempotency key `{0}` was used for a different call: use a new key for each change"
    )]
    KeyReused(String),
    /// It could not be written, or nobody knows whether it was.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// The process is about to end.
    #[error("flipgate is stopping")]
    Stopping,
}

/// One reason against a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RefusalReason {
    /// The service that it concerns; none for the change as a whole.
    pub service: Option<ServiceName>,
    /// What is wrong.
    pub problem: ReasonKind,
}

/// What is wrong with a change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReasonKind {
    /// The configuration has no such service.
    #[error("is not configured: see `flipgate status` for the services there are")]
    UnknownService,
    /// It is what is asked for already.
    #[error("has {0} active already")]
    AlreadyActive(Color),
    /// Nobody would answer.
    #[error(
        "has no endpoints in {0}: set them first, with PUT /v1/services/…/pools/{0} or in the configuration"
    )]
    NoEndpoints(Color),
    /// There is no color to go back to.
    #[error(
        "was not promoted since it was last rolled back, or never: there is nothing to roll back to; promote the color that you want"
    )]
    NeverPromoted,
    /// What answered before is not there any more.
    #[error(
        "had {0} active before, but its endpoints were changed since: promote {0} if you mean it, or roll back by force"
    )]
    ChangedSince(Color),
    /// No promotion was ever made.
    #[error("nothing was promoted yet, so there is nothing to roll back")]
    NothingPromoted,
    /// The call names no service.
    #[error("no service is named")]
    NothingNamed,
    /// The pool is answering.
    #[error("has {0} active: change the other color and promote it, or say \"force\": true")]
    PoolIsActive(Color),
    /// The active pool would have nobody left.
    #[error(
        "has {0} active, and would answer nobody without endpoints: promote the other color first"
    )]
    ActiveEmptied(Color),
    /// An endpoint is the process itself.
    #[error("would have {0} as an endpoint: use the address of the application")]
    OwnAddress(OwnAddress),
    /// Its entry in the state file is damaged.
    #[error("has a damaged entry in the state file: promote the color that shall be active first")]
    Damaged,
}

// === impl Idempotency ===

impl Idempotency {
    /// Whether a stored fingerprint is that of this call, as well as it can tell.
    #[must_use]
    pub fn is_of(&self, stored: &str) -> bool {
        stored == self.fingerprint || stored == self.old_fingerprint
    }
}

// === impl Change ===

impl Change {
    /// The settings of TLS that the pools of this change use.
    pub(super) fn tls_settings(&self, catalog: &Catalog) -> HashSet<UpstreamTls> {
        let is_secured = |spec: &PoolSpec| spec.endpoints.iter().any(|it| it.endpoint.is_tls);
        match self {
            Self::Promote(_) | Self::Rollback { .. } => HashSet::new(),
            Self::SetPool { service, color, spec, .. } => {
                // How a pool is spoken to is the file's to say.
                let written = catalog.services().get(service).filter(|_| is_secured(spec));
                written.map(|it| it.pool(*color).link.tls.clone()).into_iter().collect()
            }
            Self::Follow(new) => {
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
    /// A word for programs.
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
            Self::Damaged => "damaged",
        }
    }

    /// Whether the call itself is wrong, whatever the state of the services.
    #[must_use]
    pub fn is_callers(&self) -> bool {
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
