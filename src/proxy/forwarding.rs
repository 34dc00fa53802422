//! How messages are passed on, whoever asks.

use std::sync::Arc;

use crate::model::NamePattern;

/// How messages are passed on, whoever asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarding {
    /// Names that may be trailers, besides those that are known.
    pub trailers: Arc<[NamePattern]>,
}

impl Default for Forwarding {
    fn default() -> Self {
        // Names that no standard has: what an application calls so is its own.
        let own = "x*".parse().expect("a prefix");
        Self { trailers: Arc::new([own]) }
    }
}
