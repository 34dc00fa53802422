//! The state as the program uses it. `entries` is its serialized form.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    accepted::AcceptedCalls, audit_log::AuditLog, pool_state::PoolState, rollouts::RolloutState,
};
use crate::continuity::{HoldTerm, Maintenance, PinKey, ShareSecret, Span};
use crate::model::{
    Color, Generation, PoolSpec, RolloutId, ServiceName, VersionedMap, WatchResult,
};

/// The number of earlier changes of the state. Every commit counts, also one that leaves the routing
/// table as it is; [`Generation`] counts only changes of the table.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision(pub u64);

/// Everything that must survive the process. Cheap to clone: versions share what they have in common,
/// so a change of one of ten thousand services costs the same as a change of one of ten.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// The number of the commit that made this state; 0 for an empty store.
    pub revision: Revision,
    /// The generation of the routing table that this state describes.
    pub generation: Generation,
    /// The state of each service, also of those that are not configured now.
    pub services: VersionedMap<ServiceName, Arc<ServiceState>>,
    /// The last promotion or rollback.
    pub promotion: Arc<Promotion>,
    /// Calls with an idempotency key that were accepted, oldest first.
    pub accepted: AcceptedCalls,
    /// The manifest of each pool at its last promotion, or at the promotion that replaced it.
    pub manifests: VersionedMap<ManifestKey, Arc<str>>,
    /// The keys that sign pins, the oldest first.
    pub pin_keys: Vec<PinKeyState>,
    /// The services that are held.
    pub holds: VersionedMap<ServiceName, Arc<HoldTerm>>,
    /// The services in maintenance.
    pub maintenance: VersionedMap<ServiceName, Arc<Maintenance>>,
    /// The rollouts: those that are not over, and the last ones.
    pub rollouts: VersionedMap<RolloutId, Arc<RolloutState>>,
    /// The audit lines that are not known to be in a file, and the end of their chain.
    pub audit: AuditLog,
    /// Service entries that could not be read, as they stand in the file. They are kept until an operator
    /// says which color is active; until then the service gets no requests.
    pub damaged: VersionedMap<ServiceName, Arc<str>>,
    /// Entries of kinds that this version does not know, written by a later one. They are kept.
    pub unknown: VersionedMap<EntryId, Arc<str>>,
}

/// Names the pool of a manifest.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ManifestKey {
    /// The service.
    pub service: ServiceName,
    /// The color.
    pub color: Color,
}

/// Names an entry of the state: its kind, and which one of that kind.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// Such as `service`.
    pub kind: Arc<str>,
    /// Such as `web`.
    pub key: Arc<str>,
}

/// The state of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceState {
    /// The active color.
    pub active: Color,
    /// The color that a rollback makes active: the one before the last promotion, until that is rolled
    /// back.
    pub previous: Option<Color>,
    /// The pool named blue.
    pub blue: PoolState,
    /// The pool named green.
    pub green: PoolState,
    /// The approvals of its pools. A change of a pool removes those of the pool.
    pub approvals: Vec<Approval>,
    /// The watch of the active color. The next promotion or rollback removes it.
    pub watch: Option<WatchState>,
    /// The confirmation that the last promotion waits for. The next promotion or rollback removes it.
    pub confirmation: Option<Confirmation>,
    /// How the last watch has ended.
    pub last_watch: Option<WatchEnd>,
    /// The gradual promotion in progress. A promotion removes it.
    pub share: Option<ShareState>,
    /// How the last gradual promotion was taken back, while nothing has replaced it.
    pub share_end: Option<ShareEnd>,
    /// The latest active colors, the earliest first. Empty in a state of an older version.
    pub history: Vec<Span>,
    /// Fields of the entry that this version does not know, as a JSON object. They are kept.
    pub unknown: Option<Arc<str>>,
}

/// A key that signs pins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PinKeyState {
    /// The key.
    pub key: PinKey,
    /// When a newer key replaced it, in milliseconds of Unix time.
    pub retired_at: Option<u64>,
}

/// A watch in progress.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchState {
    /// The generation of the promotion.
    pub generation: Generation,
    /// When it ends, in milliseconds of Unix time.
    pub until: u64,
    /// The services that were promoted together, which are rolled back together.
    pub services: Vec<ServiceName>,
    /// Failures and requests of the color before.
    pub before: (u64, u64),
}

/// The end of a watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WatchEnd {
    /// The generation of the promotion.
    pub generation: Generation,
    /// How it has ended.
    pub result: WatchResult,
}

/// A gradual promotion in progress.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShareState {
    /// The generation that began it.
    pub generation: Generation,
    /// The candidate, which is not active.
    pub color: Color,
    /// The shares of clients in percent, each larger than the one before. The last one is 100.
    pub steps: Vec<u8>,
    /// The place of the current step, which is not the last one.
    pub step: usize,
    /// How long a step lasts at least.
    pub step_for: Duration,
    /// When the current step is over, if enough is known of the candidate, in milliseconds of Unix time.
    pub until: u64,
    /// The services that are promoted together.
    pub services: Vec<ServiceName>,
    /// Whether internal clients and holders of the token go to the candidate, whatever the share.
    pub has_first: bool,
    /// What decides which clients move first.
    pub secret: ShareSecret,
}

/// The end of a gradual promotion that was taken back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShareEnd {
    /// The color that was the candidate.
    pub color: Color,
    /// When, in milliseconds of Unix time.
    pub at: u64,
    /// The caller, or the part of Flipgate.
    pub by: Arc<str>,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// A promotion that is taken back unless it is confirmed in time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confirmation {
    /// The generation of the promotion.
    pub generation: Generation,
    /// When it is taken back, in milliseconds of Unix time.
    pub until: u64,
    /// The services that were promoted together, which are rolled back together.
    pub services: Vec<ServiceName>,
}

/// The approval of a pool, at the version that it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Approval {
    /// The pool.
    pub color: Color,
    /// The caller: the name of its token, or `local` without a token.
    pub by: Arc<str>,
    /// Whether the caller had a token.
    pub is_authenticated: bool,
    /// The time, in Unix seconds.
    pub at: u64,
}

/// A promotion or rollback.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Promotion {
    /// The services that it changed; a rollback without names is for these.
    pub services: Vec<ServiceName>,
    /// The generation that it made; 0 if unknown.
    pub generation: Generation,
    /// Whether it was a rollback.
    pub is_rollback: bool,
    /// Why, in the caller's words.
    pub reason: Option<String>,
}

/// The most active colors that are remembered.
const HISTORY_MAX: usize = 64;

// === impl State ===

impl State {
    /// The revision without the commits that recorded refused calls, which have changed nothing.
    #[must_use]
    pub fn changes(&self) -> Revision {
        Revision(self.revision.0.saturating_sub(self.audit.refusal_commits))
    }
}

// === impl Revision ===

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl ServiceState ===

impl ServiceState {
    /// A service that was never changed.
    #[must_use]
    pub fn fresh(active: Color, blue: PoolSpec, green: PoolSpec) -> Self {
        let pool = |file, color| PoolState { served: color == active, ..PoolState::new(file) };
        let (blue, green) = (pool(blue, Color::Blue), pool(green, Color::Green));
        Self {
            active,
            previous: None,
            blue,
            green,
            approvals: Vec::new(),
            watch: None,
            confirmation: None,
            last_watch: None,
            share: None,
            share_end: None,
            history: Vec::new(),
            unknown: None,
        }
    }

    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &PoolState {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    /// The pool of a color, to be changed.
    pub fn pool_mut(&mut self, color: Color) -> &mut PoolState {
        match color {
            Color::Blue => &mut self.blue,
            Color::Green => &mut self.green,
        }
    }

    /// The latest active colors, the earliest first; the last one is active.
    #[must_use]
    pub fn history(&self) -> Vec<Span> {
        match self.history.is_empty() {
            true => vec![Span { from: Generation(0), color: self.active }],
            false => self.history.clone(),
        }
    }

    /// Notes that the active color, which is another one than before, is active from this generation on.
    pub fn note_flip(&mut self, generation: Generation, before: Color, now_ms: u64) {
        if self.history.is_empty() {
            self.history.push(Span { from: Generation(0), color: before });
        }
        self.history.push(Span { from: generation, color: self.active });
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
        self.pool_mut(before).retired_at = Some(now_ms);
        self.pool_mut(self.active).retired_at = None;
    }

    /// Makes `color` active.
    pub fn promote(&mut self, color: Color) {
        self.previous = Some(self.active);
        self.active = color;
        (self.watch, self.confirmation, self.share) = (None, None, None);
        self.pool_mut(color).served = true;
    }

    /// Notes that the candidate has its share of the clients.
    pub fn note_share(&mut self) {
        if let Some(color) = self.share.as_ref().filter(|it| it.percent() > 0).map(|it| it.color) {
            self.pool_mut(color).shared = true;
        }
    }

    /// Whether the file's entry for a pool differs from what it was when this was written.
    #[must_use]
    pub fn differs_from_file(&self, color: Color, file: &PoolSpec) -> bool {
        self.pool(color).file != *file
    }

    /// Sets the pool of the configuration file. Endpoints that were set at run time stay, unless the file's
    /// entry for the pool has changed.
    pub fn follow_file(&mut self, color: Color, file: &PoolSpec) {
        if self.differs_from_file(color, file) {
            let served = self.active == color;
            let PoolState { pins_since, retired_at, .. } = *self.pool(color);
            *self.pool_mut(color) =
                PoolState { served, pins_since, retired_at, ..PoolState::new(file.clone()) };
            self.revoke_approvals(color);
            // What clients would move to is another version now.
            self.share = self.share.take().filter(|it| it.color != color);
        }
    }

    /// Adds an approval. It replaces an earlier one of the same caller, and the oldest if there are too many.
    pub fn approve(&mut self, approval: Approval) {
        let is_same = |it: &Approval| {
            (it.color, it.is_authenticated) == (approval.color, approval.is_authenticated)
                && it.by == approval.by
        };
        self.approvals.retain(|it| !is_same(it));
        if self.approvals.len() >= Approval::MAX {
            self.approvals.remove(0);
        }
        self.approvals.push(approval);
    }

    /// Removes the approvals of a pool.
    pub fn revoke_approvals(&mut self, color: Color) {
        self.approvals.retain(|it| it.color != color);
    }
}

// === impl ShareState ===

impl ShareState {
    /// The current share of clients, in percent.
    #[must_use]
    pub fn percent(&self) -> u8 {
        self.steps.get(self.step).copied().unwrap_or_default()
    }

    /// The share of the next step; `None` if that is the promotion of the candidate.
    #[must_use]
    pub fn next_percent(&self) -> Option<u8> {
        self.steps.get(self.step + 1).copied().filter(|it| *it < 100)
    }
}

// === impl Approval ===

impl Approval {
    /// The most approvals of one service that are kept.
    pub const MAX: usize = 32;
}

// === impl ManifestKey ===

impl fmt::Display for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.color)
    }
}
