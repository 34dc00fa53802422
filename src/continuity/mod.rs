//! What keeps a client on a version: pins, the transactions that they belong to, and the share of a candidate.
//!
//! Machines without I/O and without a clock. The terms of a service are part of the routing table, so that a flip changes
//! the active color and the pins that are valid in one step; the proxy reads requests and decides with them.

mod activity;
mod keys;
mod members;
mod settings;
mod share;
mod terms;

pub use self::{
    activity::PinActivity,
    keys::{Pin, PinKey},
    members::{Begin, MemberKey, Members},
    settings::{PinCarrier, PinSettings, PinStart, ValuePattern},
    share::{FirstToken, Share, ShareCarrier, ShareSecret, ShareSettings},
    terms::{Carried, Continuity, PinWindow, ServicePins, Span},
};
