//! Flipgate.

pub mod metrics;
pub mod model;
pub mod proxy;
pub mod store;
pub mod control;
pub mod downstream;
pub mod switch;
pub mod upstream;
