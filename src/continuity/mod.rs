//! What keeps a client on a version: pins, the transactions that they belong to, and the share of a candidate. And what
//! keeps new requests from a service while its version changes: holds and maintenance.
//!
//! Machines without I/O and without a clock. The terms of a service are part of the routing table, so that a flip changes
//! the active color and the pins that are valid in one step; the proxy reads requests and decides with them.

mod activity;
mod hold;
mod intake;
mod keys;
mod members;
mod settings;
mod share;
mod terms;

pub use self::{
    activity::PinActivity,
    hold::{Entry, Hold, HoldLimits, HoldSnapshot, HoldTerm, HoldTicket, Turn},
    intake::{HoldSettings, Intake, IntakeDecision, Maintenance, PassPath, PassPathError},
    keys::{LastPin, Pin, PinKey},
    members::{Begin, MemberKey, Members},
    settings::{PinCarrier, PinSettings, PinStart, ValuePattern},
    share::{FirstToken, Share, ShareCarrier, ShareSecret, ShareSettings},
    terms::{Carried, Continuity, PinWindow, ServicePins, Span},
};
