//! Flipgate.

pub mod model;
pub mod switch;
