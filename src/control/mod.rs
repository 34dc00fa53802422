//! Changes of the truth: decided here, written by the store, then applied to the switch.
//!
//! One task makes all changes, one after the other, and finishes what it began whether or not
//! whoever asked is still there. Everything else here only looks: the picture, drains, events.

mod actor;
mod catalog;
mod change;
mod checks;
mod drains;
mod events;
mod names;
mod picture;
mod plan;
mod watch;

pub use self::{
    actor::{Control, StartError},
    catalog::{Catalog, CatalogError, ServiceSpec},
    change::{Call, Change, ChangeError, Done, Problem, Reason},
    drains::{DrainPicture, Kinds},
    events::{Event, EventKind, Events, Subscription},
    picture::{EndpointPicture, Picture, PoolPicture, ServicePicture},
};
