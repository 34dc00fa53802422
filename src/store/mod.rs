//! The truth at rest: which color of each service is active, and which endpoints were set at run
//! time. Written before it is applied, so that a killed process comes back to it.
//!
//! Knows the words of the model and a folder; not who decides, and not what the data plane does.

mod file;
mod lines;
mod truth;

pub use self::{
    file::{FileStore, StoreError},
    truth::{Accepted, PoolTruth, ServiceTruth, Truth},
};
