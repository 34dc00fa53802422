//! How messages are passed on, whichever service they are for.

use std::sync::Arc;

use crate::model::NamePattern;

/// How messages are passed on, whichever service they are for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarding {
    /// Which messages say in `Via` that they came through here.
    pub via: Via,
    /// Names that may be trailers, besides those that are known.
    pub trailers: Arc<[NamePattern]>,
}

/// Which messages say in `Via` that they came through here: RFC 9110, section 7.6.3.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Via {
    /// Requests, as a gateway must, and responses, as it may.
    #[default]
    Both,
    /// Requests alone.
    Requests,
    /// None. Requests say it in `CDN-Loop`, so that a loop is found all the same.
    None,
}

impl Default for Forwarding {
    fn default() -> Self {
        // Names that no standard has: what an application calls so is its own.
        let own = "x*".parse().expect("a prefix");
        Self { via: Via::default(), trailers: Arc::new([own]) }
    }
}
