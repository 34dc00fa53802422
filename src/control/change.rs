//! Changes of the state, and their outcomes.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    catalog::Catalog,
    intake::IntakeChange,
    reasons::{RefusalReason, sentences},
    rollouts::{RolloutChange, RolloutStep},
    share_steps::ShareSteps,
    shared::Applied,
};
use crate::{
    audit::{self, AuditVerdict},
    model::{Color, Generation, PoolSpec, ServiceName, UpstreamTls, Version, WatchResult},
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
        /// How it has ended.
        result: WatchResult,
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
    /// A step of a rollout.
    Rollout(RolloutChange),
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
    /// The rollout that makes the change, with its next position.
    pub rollout: Option<RolloutStep>,
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
            rollout: None,
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

    /// The caller for people: its token, else its user, else its address. The port is another one for each connection.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.uid {
            _ if self.address == Self::INTERNAL => Self::INTERNAL.to_owned(),
            _ if self.is_authenticated => self.name.clone(),
            Some(uid) => format!("uid {uid}"),
            None => {
                let address = self.address.parse::<SocketAddr>();
                address.map_or_else(|_| self.address.clone(), |it| it.ip().to_string())
            }
        }
    }

    /// Whether it is a part of Flipgate.
    pub(super) fn is_internal(&self) -> bool {
        self.address == Self::INTERNAL
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
            Self::Rollout(RolloutChange::SetPools(pools)) => {
                let written = |(name, (color, spec)): (&ServiceName, &(Color, PoolSpec))| {
                    let service = catalog.services().get(name).filter(|_| is_secured(spec))?;
                    Some(service.pool(*color).link.tls.clone())
                };
                pools.iter().filter_map(written).collect()
            }
            Self::Rollout(_) => HashSet::new(),
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

fn list(generations: &[Generation]) -> String {
    generations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
