//! What keeps a client on the version that it began with: pins, and the transactions that they belong to.
//!
//! Machines without I/O and without a clock. The terms of a service are part of the routing table, so that a flip changes
//! the active color and the pins that are valid in one step; the proxy reads requests and decides with them.

mod activity;
mod keys;
mod members;
mod settings;
mod terms;

pub use self::{
    activity::PinActivity,
    keys::{Pin, PinKey},
    members::{Begin, MemberKey, Members},
    settings::{PinCarrier, PinSettings, PinStart, ValuePattern},
    terms::{Carried, Continuity, PinWindow, ServicePins, Span},
};
