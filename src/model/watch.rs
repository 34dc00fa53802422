//! The watch of a service: how a color is judged after its promotion.

use std::time::Duration;

/// How a color is judged after its promotion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchSettings {
    /// For how long.
    pub time: Duration,
    /// The limit of failures in percent of the answers, 0 to 100.
    pub errors: u8,
    /// The limit of slow responses, if there is one.
    pub latency: Option<LatencyLimit>,
    /// When slow responses begin to count: a cold application is slower.
    pub latency_after: Duration,
    /// The fewest requests before a verdict on a share below 50 %.
    pub requests: u64,
    /// From so many client addresses failures must come.
    pub clients: usize,
    /// What happens if the color is bad.
    pub action: WatchAction,
    /// Whether the color before serves requests that cannot be connected to the new one.
    pub rescue: bool,
}

/// The most responses that may be slower than a bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LatencyLimit {
    /// The percentile in thousandths: 990 for p99.
    pub percentile: u16,
    /// The bound, from the request head to the response head.
    pub bound: Duration,
}

/// What happens if a color is bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchAction {
    /// The promotion is rolled back.
    Rollback,
    /// An event and a log line say so.
    Alert,
}

/// How a watch has ended, if the color that it watched stayed active.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchResult {
    /// The color was good.
    Passed,
    /// There were too few requests for a verdict.
    Inconclusive,
    /// The color was bad, and was not rolled back.
    Failed,
    /// A caller has ended it.
    Stopped,
}

// === impl LatencyLimit ===

impl LatencyLimit {
    /// The share of responses that may be slower, from 0 to 1.
    #[must_use]
    pub fn slow_share(self) -> f64 {
        f64::from(1000_u16.saturating_sub(self.percentile)) / 1000.0
    }
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(300),
            errors: 5,
            latency: None,
            latency_after: Duration::from_secs(30),
            requests: 50,
            clients: 3,
            action: WatchAction::Rollback,
            rescue: false,
        }
    }
}
