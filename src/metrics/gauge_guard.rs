//! A gauge that counts existing values.

use prometheus::IntGauge;

/// Counts one in a gauge until it is dropped.
// Not `Clone`: it would be counted once and uncounted twice.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Counts one until it is dropped.
    #[must_use]
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
