//! Flipgate.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod downstream;
pub mod metrics;
pub mod model;
pub mod proxy;
pub mod store;
pub mod switch;
pub mod upstream;
