//! How messages of all services are forwarded.

use std::sync::Arc;

use crate::model::NamePattern;

/// How messages of all services are forwarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarding {
    /// The messages that get `Via`.
    pub via: Via,
    /// Additional names of trailer fields.
    pub trailers: Arc<[NamePattern]>,
}

/// The messages that get `Via`: RFC 9110, section 7.6.3.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Via {
    /// Requests, as a gateway must add it, and responses, as it may.
    #[default]
    Both,
    /// Requests only.
    Requests,
    /// None. Requests get `CDN-Loop` instead, so that loops are still detected.
    None,
}

impl Default for Forwarding {
    fn default() -> Self {
        // Names that no standard defines belong to the application.
        let own = "x*".parse().expect("a prefix");
        Self { via: Via::default(), trailers: Arc::new([own]) }
    }
}
