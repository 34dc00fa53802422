//! The series of one pool. Each is made when it first counts something: most pools of ten thousand services see few
//! codes and meet no limit.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{LimitHit, outcomes::Outcomes};
use crate::model::{StreamEnd, StreamKind};

/// The metric families with series of pools.
#[derive(Debug)]
pub(super) struct MetricFamilies {
    pub(super) requests: IntCounterVec,
    pub(super) previews: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) head: HistogramVec,
    pub(super) errors: IntCounterVec,
    pub(super) connect_errors: IntCounterVec,
    pub(super) connections: IntGaugeVec,
    pub(super) rescued: IntCounterVec,
    pub(super) assets: IntCounterVec,
    pub(super) pinned: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) ejections: IntCounterVec,
    pub(super) limited: IntCounterVec,
    pub(super) streams_ended: IntCounterVec,
}

/// The series of one pool, or of requests without a pool.
#[derive(Debug)]
pub struct PoolMetrics {
    families: Arc<MetricFamilies>,
    service: Box<str>,
    color: &'static str,
    /// By the hundreds of the status code.
    codes: [OnceLock<Box<CodeCounters>>; CLASSES],
    duration: OnceLock<Histogram>,
    head: OnceLock<Histogram>,
    connections: OnceLock<IntGauge>,
    ejections: OnceLock<IntCounter>,
    pinned: OnceLock<IntCounter>,
    /// By limit.
    limited: [OnceLock<IntCounter>; LimitHit::ALL.len()],
    outcomes: Outcomes,
}

/// What came of asking the other color for a missing asset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AssetResult {
    /// It has the asset.
    Found,
    /// It does not have it either.
    Missing,
    /// There was no response.
    Failed,
}

/// The counters of one class of codes, each made when it is first needed.
type CodeCounters = [OnceLock<IntCounter>; 100];

/// Codes of 100 to 999.
const CLASSES: usize = 9;

/// The reason of the series that every used pool has.
const FIRST_REASON: &str = "connection_refused";

// === impl AssetResult ===

impl AssetResult {
    /// The result as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

// === impl PoolMetrics ===

impl PoolMetrics {
    pub(super) fn new(families: &Arc<MetricFamilies>, service: &str, color: &'static str) -> Self {
        Self {
            families: Arc::clone(families),
            service: service.into(),
            color,
            codes: [const { OnceLock::new() }; CLASSES],
            duration: OnceLock::new(),
            head: OnceLock::new(),
            connections: OnceLock::new(),
            ejections: OnceLock::new(),
            pinned: OnceLock::new(),
            limited: [const { OnceLock::new() }; LimitHit::ALL.len()],
            outcomes: Outcomes::new(),
        }
    }

    /// The outcomes of the public requests.
    #[must_use]
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Public requests that were counted.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.duration.get().map_or(0, Histogram::get_sample_count)
    }

    /// Response heads that were counted.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.head.get().map_or(0, Histogram::get_sample_count)
    }

    /// Counts a request by the status code of its response, 100 to 999.
    pub fn count(&self, code: u16) {
        let (class, place) = (usize::from(code) / 100, usize::from(code) % 100);
        let Some(codes) = class.checked_sub(1).and_then(|it| self.codes.get(it)) else { return };
        let codes = codes.get_or_init(|| {
            self.begin_error_series();
            Box::new([const { OnceLock::new() }; 100])
        });
        let counter = || {
            let labels = [&*self.service, self.color, &code.to_string()];
            self.families.requests.with_label_values(&labels)
        };
        codes[place].get_or_init(counter).inc();
    }

    /// Makes the series of a ratio of errors, so that the ratio is 0, and not absent, for a pool without errors.
    fn begin_error_series(&self) {
        if !self.service.is_empty() {
            for code in ["500", "502"] {
                self.families.requests.with_label_values(&[&*self.service, self.color, code]);
            }
            self.families.errors.with_label_values(&[&*self.service, self.color, FIRST_REASON]);
        }
    }

    /// Counts a preview by the status code of its response.
    pub fn count_preview(&self, code: u16) {
        let labels = [&*self.service, self.color, &code.to_string()];
        self.families.previews.with_label_values(&labels).inc();
    }

    /// Counts an error that Flipgate made, by its error type of RFC 9209.
    pub fn proxy_error(&self, reason: &'static str) {
        self.families.errors.with_label_values(&[&*self.service, self.color, reason]).inc();
    }

    /// Notes the time from a request's head to the response's head.
    pub fn observe_head(&self, seconds: f64) {
        let head = || self.families.head.with_label_values(&self.labels());
        self.head.get_or_init(head).observe(seconds);
    }

    /// Notes the time from the request head to the last byte of the response.
    pub fn observe(&self, seconds: f64) {
        let duration = || self.families.duration.with_label_values(&self.labels());
        self.duration.get_or_init(duration).observe(seconds);
    }

    /// Open connections to endpoints of this pool.
    pub fn connections(&self) -> &IntGauge {
        self.connections.get_or_init(|| self.families.connections.with_label_values(&self.labels()))
    }

    /// Whether a request was ever counted, or a connection opened.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.duration.get().is_some() || self.connections.get().is_some()
    }

    /// Counts a request that could not be connected to this pool, and that another one serves.
    #[cold]
    pub fn count_rescued(&self, client: Option<IpAddr>) {
        self.families.rescued.with_label_values(&self.labels()).inc();
        self.outcomes.count_rescued(client);
    }

    /// Counts a request of a transaction that is pinned to this pool, which is not active any more.
    pub fn count_pinned(&self) {
        let pinned = || self.families.pinned.with_label_values(&self.labels());
        self.pinned.get_or_init(pinned).inc();
    }

    /// Counts an asset that this pool was asked for because the other color does not have it.
    #[cold]
    pub fn count_asset(&self, result: AssetResult) {
        let labels = [&*self.service, self.color, result.as_str()];
        self.families.assets.with_label_values(&labels).inc();
    }

    /// Counts a retry. `reason` is a word of a fixed list.
    pub fn retried(&self, reason: &'static str) {
        self.families.retries.with_label_values(&[&*self.service, self.color, reason]).inc();
    }

    /// Counts an ejection.
    pub fn ejected(&self) {
        let ejections = || self.families.ejections.with_label_values(&self.labels());
        self.ejections.get_or_init(ejections).inc();
    }

    /// Counts a limit hit.
    pub fn limited(&self, limit: LimitHit) {
        let counter = || {
            let labels = [&*self.service, self.color, limit.as_str()];
            self.families.limited.with_label_values(&labels)
        };
        self.limited[limit as usize].get_or_init(counter).inc();
    }

    /// Counts a stream that was ended after a flip.
    #[cold]
    pub fn stream_ended(&self, kind: StreamKind, how: StreamEnd) {
        let labels = [&*self.service, self.color, kind.as_str(), how.as_str()];
        self.families.streams_ended.with_label_values(&labels).inc();
    }

    /// The number of hits of a limit.
    #[must_use]
    pub fn limit_hits(&self, limit: LimitHit) -> u64 {
        self.limited[limit as usize].get().map_or(0, IntCounter::get)
    }

    /// Counts a failed connect. `reason` is a word of a fixed list.
    pub fn connect_error(&self, reason: &'static str) {
        self.families.connect_errors.with_label_values(&[&*self.service, self.color, reason]).inc();
    }

    fn labels(&self) -> [&str; 2] {
        [&self.service, self.color]
    }
}
