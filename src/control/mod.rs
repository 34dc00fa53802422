//! Changes of the state: planned here (pure), committed to the store, and applied to the switch when they come back
//! through the store's watch, as the changes of other processes do.
//!
//! One task makes and applies all changes, one after the other, and completes them even if the caller has gone.
//! Everything else here only reads: snapshots, drains, events.

mod audited;
mod catalog;
mod change;
mod drains;
mod endings;
mod event_kinds;
mod events;
mod handle;
mod holds;
mod intake;
mod intake_events;
mod intake_plan;
mod intake_terms;
mod pin_terms;
mod pin_windows;
mod pins;
mod plan;
mod planned;
mod prepare;
mod publish;
mod reasons;
mod reconcile;
mod refusals;
mod removed;
mod rollout_events;
mod rollouts;
mod share_events;
mod share_steps;
mod shared;
mod shares;
mod snapshot;
mod table_entries;
mod watches;
mod worker;

pub use self::{
    audited::RefusedCall,
    catalog::{Catalog, CatalogError, ServiceSpec},
    change::{
        Actor, Change, ChangeError, ChangeOutcome, ChangeRequest, Idempotency, PromotionTerms,
    },
    drains::{ClaimCounts, DrainGoal, DrainSnapshot},
    endings::{ColorIsActive, EndingSnapshot},
    event_kinds::{EndedStreams, Event, EventKind, GateSummary},
    events::{Events, Subscription},
    handle::Control,
    holds::{Holds, PinsSnapshot, SideRequests, timestamp},
    intake::IntakeChange,
    pin_terms::random_secret,
    planned::PlannedPromotion,
    reasons::{ReasonKind, RefusalReason},
    rollout_events::RolloutEvent,
    rollouts::{RolloutChange, RolloutStep, is_as_set, still_promoted},
    share_events::ShareEvent,
    share_steps::ShareSteps,
    shared::Applied,
    snapshot::{
        ApprovalSnapshot, EndpointSnapshot, PoolSnapshot, ServiceSnapshot, ShareSnapshot,
        StatusSnapshot,
    },
    worker::{ControlTask, StoreClosed},
};
