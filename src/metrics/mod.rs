//! The time series of the process, as typed handles on a registry.
//!
//! A handle has resolved its labels once, when its pool was made: the path of a request has no look-up by label. Values
//! that the switch has at any moment (in flight, generation, active) are not counted a second time: [`Metrics::show`]
//! reads them at a scrape.

mod exposition;
mod gauge_guard;
mod gauges;
mod outcomes;
mod pool;
mod promotion;
mod tasks;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
};

use self::pool::MetricFamilies;
pub use self::{
    gauge_guard::GaugeGuard,
    gauges::{EndpointGauges, LimitHit, PoolGauges, ServiceGauges},
    outcomes::{Outcome, Outcomes},
    pool::{AssetResult, PoolMetrics},
    promotion::{PromotionKind, PromotionResult},
    tasks::TaskGuard,
};
use crate::model::{Color, Generation, ServiceName};

/// All series of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// The series of the pools.
    of_pools: Arc<MetricFamilies>,
    preview_refused: IntCounterVec,
    hold_requests: IntCounterVec,
    maintenance_refused: IntCounterVec,
    turned_away: IntCounterVec,
    evicted: IntCounterVec,
    /// When the first certificate expires, in seconds since 1970; 0 without any.
    pub certificate_expiry: IntGauge,
    limits: IntGaugeVec,
    reload_success: IntGauge,
    reload_timestamp: IntGauge,
    promotions: IntCounterVec,
    rollouts: IntCounterVec,
    rollouts_running: IntGaugeVec,
    task_deaths: IntCounterVec,
    state_writable: IntGauge,
    drain_duration: HistogramVec,
    generation: IntGauge,
    /// Open client connections.
    pub downstream_connections: IntGauge,
    /// Dropped log lines.
    pub log_dropped: IntCounter,
}

/// Seconds: from a cache hit to a long report.
const DURATION_BUCKETS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
    300.0,
];

const CERTIFICATE_EXPIRY: &str = "flipgate_certificate_expiry_timestamp_seconds";

/// Seconds: drains last as long as the longest request.
const DRAIN_BUCKETS: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

// === impl Metrics ===

impl Metrics {
    /// Registers every series of the process in `registry`.
    ///
    /// # Errors
    ///
    /// If the registry has series of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let named = |name: &str, help: &str| Opts::new(format!("flipgate_{name}"), help);
        let counters = |name, help, labels: &[&str]| {
            let it = IntCounterVec::new(named(name, help), labels)?;
            registry.register(Box::new(it.clone()))?;
            Ok::<_, prometheus::Error>(it)
        };
        let gauges = |name, help, labels: &[&str]| {
            let it = IntGaugeVec::new(named(name, help), labels)?;
            registry.register(Box::new(it.clone()))?;
            Ok::<_, prometheus::Error>(it)
        };
        let counter = |name, help| {
            let it = IntCounter::with_opts(named(name, help))?;
            registry.register(Box::new(it.clone()))?;
            Ok::<_, prometheus::Error>(it)
        };
        let gauge = |name, help| {
            let it = IntGauge::with_opts(named(name, help))?;
            registry.register(Box::new(it.clone()))?;
            Ok::<_, prometheus::Error>(it)
        };
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            let options =
                HistogramOpts::new(format!("flipgate_{name}"), help).buckets(buckets.to_vec());
            let it = HistogramVec::new(options, &["service", "color"])?;
            registry.register(Box::new(it.clone()))?;
            Ok::<_, prometheus::Error>(it)
        };
        let of_pool = ["service", "color"];
        let of_pools = MetricFamilies {
            requests: counters(
                "requests_total",
                "Requests by the status code of the response; 499 if the client left before it. Without previews",
                &["service", "color", "code"],
            )?,
            previews: counters(
                "preview_requests_total",
                "Previews by the status code of the response",
                &["service", "color", "code"],
            )?,
            errors: counters(
                "proxy_errors_total",
                "Errors that Flipgate made, not the application, by the error type in Proxy-Status. \
                 http_response_incomplete: a response that was cut",
                &["service", "color", "reason"],
            )?,
            head: histograms(
                "response_head_seconds",
                "Time to first byte: from the request's head to the response's head. Without previews",
                &DURATION_BUCKETS,
            )?,
            duration: histograms(
                "request_duration_seconds",
                "From the request's head to the response's last byte. Without previews",
                &DURATION_BUCKETS,
            )?,
            connect_errors: counters(
                "upstream_connect_errors_total",
                "Connections to endpoints that could not be opened",
                &["service", "color", "reason"],
            )?,
            connections: gauges("upstream_connections", "Open connections to endpoints", &of_pool)?,
            rescued: counters(
                "rescued_requests_total",
                "Requests that could not be connected to the active color, and went to the one before",
                &of_pool,
            )?,
            assets: counters(
                "asset_fallbacks_total",
                "Missing assets of the other color that this color was asked for, by result",
                &["service", "color", "result"],
            )?,
            pinned: counters(
                "pinned_requests_total",
                "Requests of transactions that are pinned to a color which is not active any more",
                &of_pool,
            )?,
            retries: counters(
                "retries_total",
                "Requests that were sent once more, by what had become of them before",
                &["service", "color", "reason"],
            )?,
            ejections: counters(
                "ejections_total",
                "Endpoints that were ejected after failed requests",
                &of_pool,
            )?,
            streams_ended: counters(
                "streams_ended_total",
                "Streams on a replaced color that Flipgate has ended after a flip, by kind. closed: with a Close frame; \
                 ended: between two events or messages; cut: in the middle",
                &["service", "color", "kind", "how"],
            )?,
            limited: counters(
                "limited_total",
                "Requests that met a limit, and were answered with 429 or 503",
                &["service", "color", "limit"],
            )?,
        };
        let metrics = Self {
            of_pools: Arc::new(of_pools),
            preview_refused: counters(
                "preview_refused_total",
                "Public clients who asked for a color and were not given it for that",
                &of_pool,
            )?,
            hold_requests: counters(
                "hold_requests_total",
                "Requests that came while their service was held, by what became of them",
                &["service", "result"],
            )?,
            maintenance_refused: counters(
                "maintenance_refused_total",
                "Requests that got 503 because their service was in maintenance",
                &["service"],
            )?,
            turned_away: counters(
                "downstream_turned_away_total",
                "Connections that came to no request, for want of a handshake, of the header of a \
                 listed proxy, or of a place for their address; and connections of HTTP/2 that were \
                 closed for what their client did",
                &["reason"],
            )?,
            evicted: counters(
                "downstream_evicted_total",
                "Idle connections of clients that were closed because a new one needed their place, by the limit \
                 that was reached",
                &["limit"],
            )?,
            certificate_expiry: gauge(
                "certificate_expiry_timestamp_seconds",
                "When the first of the listeners' certificates expires, in seconds since 1970; absent without any",
            )?,
            limits: gauges(
                "limit",
                "The limits of the process, as configured or as the open files allow",
                &["limit"],
            )?,
            reload_success: gauge(
                "config_reload_success",
                "1 if the configuration is the one that was read last; 0 after a reload that was refused",
            )?,
            reload_timestamp: gauge(
                "config_reload_timestamp_seconds",
                "When the configuration in force was read, in seconds since 1970",
            )?,
            promotions: counters(
                "promotions_total",
                "Promotions and rollbacks by their result: promoted, refused, stale or failed",
                &["result", "kind"],
            )?,
            rollouts: counters(
                "rollouts_total",
                "Rollouts that are over, by plan and result: done, undone or cancelled",
                &["plan", "result"],
            )?,
            rollouts_running: gauges(
                "rollouts_running",
                "Rollouts that are not over, by state: running, undoing, waiting (for a person) or stuck",
                &["state"],
            )?,
            task_deaths: counters(
                "task_panics_total",
                "Tasks that have panicked or ended too early. `control` and `worker` end the process; a \
                 `connection` or `drain` is lost; all others are started or tried again",
                &["task"],
            )?,
            state_writable: gauge(
                "state_writable",
                "1 while changes of the state can be written; 0 while the disk refuses them, and after a change of unknown outcome until a restart",
            )?,
            drain_duration: histograms(
                "drain_duration_seconds",
                "From a promotion to the end of the last request on the replaced color",
                &DRAIN_BUCKETS,
            )?,
            generation: gauge("generation", "How many changes of the table came before")?,
            downstream_connections: gauge("downstream_connections", "Open connections of clients")?,
            log_dropped: counter(
                "log_dropped_total",
                "Log lines that were dropped because standard error was not read fast enough or has no reader",
            )?,
            registry: registry.clone(),
        };
        let build = gauges("build_info", "The running program", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // 0 from the start, so that a rate over the first one is correct.
        for result in [
            PromotionResult::Promoted,
            PromotionResult::Refused,
            PromotionResult::Stale,
            PromotionResult::Failed,
        ] {
            for kind in ["promote", "rollback", "automatic"] {
                metrics.promotions.with_label_values(&[result.as_str(), kind]).inc_by(0);
            }
        }
        metrics.reloaded(true);
        Ok(metrics)
    }

    /// The series of a pool.
    #[must_use]
    pub fn pool(&self, service: &ServiceName, color: Color) -> PoolMetrics {
        PoolMetrics::new(&self.of_pools, service.as_str(), color.as_str())
    }

    /// The series of requests without a service. Their labels are empty, which Prometheus shows as absent.
    #[must_use]
    pub fn unrouted(&self) -> PoolMetrics {
        PoolMetrics::new(&self.of_pools, "", "")
    }

    /// Counts a public client that asked for a color. `service` is empty if there is none.
    pub fn preview_refused(&self, service: &str, color: Color) {
        self.preview_refused.with_label_values(&[service, color.as_str()]).inc();
    }

    /// Counts a request that came while its service was held. `result` is a word of a fixed list.
    pub fn hold_request(&self, service: &ServiceName, result: &'static str) {
        self.hold_requests.with_label_values(&[service.as_str(), result]).inc();
    }

    /// Counts a request that was refused because its service is in maintenance.
    pub fn maintenance_refused(&self, service: &ServiceName) {
        self.maintenance_refused.with_label_values(&[service.as_str()]).inc();
    }

    /// Counts a connection without a request. `reason` is a word of a fixed list.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.with_label_values(&[reason]).inc();
    }

    /// Counts an idle connection that was closed for a new one. `limit` is a word of a fixed list.
    pub fn evicted(&self, limit: &'static str) {
        self.evicted.with_label_values(&[limit]).inc();
    }

    /// Counts a promotion or rollback.
    pub fn promotion(&self, kind: PromotionKind, result: PromotionResult) {
        self.promotions.with_label_values(&[result.as_str(), kind.as_str()]).inc();
    }

    /// Counts a rollout that is over.
    pub fn rollout_ended(&self, plan: &str, result: &'static str) {
        self.rollouts.with_label_values(&[plan, result]).inc();
    }

    /// Sets how many rollouts are in a state, which is a word of a fixed list.
    pub fn rollouts_running(&self, state: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.rollouts_running.with_label_values(&[state]).set(count);
    }

    /// Sets the gauge of a limit. `limit` is a word of a fixed list.
    pub fn limit(&self, limit: &'static str, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.limits.with_label_values(&[limit]).set(value);
    }

    /// Notes the result of a reload.
    pub fn reloaded(&self, success: bool) {
        self.reload_success.set(success.into());
        if success {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.reload_timestamp.set(i64::try_from(now).unwrap_or_default());
        }
    }

    /// Notes the duration of a drain.
    pub fn drained(&self, service: &ServiceName, color: Color, seconds: f64) {
        let labels = [service.as_str(), color.as_str()];
        self.drain_duration.with_label_values(&labels).observe(seconds);
    }

    /// Removes all series of removed services. Existing handles count on, but are not shown. Takes time in proportion
    /// to the number of all series.
    pub fn forget(&self, services: &[&ServiceName]) {
        let names: HashSet<&str> = services.iter().map(|it| it.as_str()).collect();
        let MetricFamilies {
            requests,
            previews,
            errors,
            duration,
            head,
            connect_errors,
            connections,
            rescued,
            assets,
            pinned,
            retries,
            ejections,
            limited,
            streams_ended,
        } = &*self.of_pools;
        for counters in [
            requests,
            previews,
            errors,
            connect_errors,
            rescued,
            assets,
            pinned,
            retries,
            ejections,
            limited,
            streams_ended,
            &self.preview_refused,
            &self.hold_requests,
            &self.maintenance_refused,
        ] {
            forget(counters, &names);
        }
        forget(connections, &names);
        forget(duration, &names);
        forget(head, &names);
        forget(&self.drain_duration, &names);
    }

    /// The text of a scrape, with the state of the switch in `generation` and `services`.
    #[must_use]
    pub fn show(
        &self,
        generation: Generation,
        is_writable: bool,
        services: &[ServiceGauges],
    ) -> String {
        self.generation.set(i64::try_from(generation.0).unwrap_or(i64::MAX));
        self.state_writable.set(is_writable.into());
        let mut text = Vec::new();
        let mut families = self.registry.gather();
        if self.certificate_expiry.get() == 0 {
            families.retain(|it| it.name() != CERTIFICATE_EXPIRY);
        }
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("a Vec takes every write, and names were checked when they were registered");
        let mut text = String::from_utf8_lossy(&text).into_owned();
        gauges::write(services, &mut text);
        text
    }
}

/// Removes the series of these services from a family.
fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, services: &HashSet<&str>) {
    for gathered in family.collect() {
        for series in gathered.get_metric() {
            let labels = series.get_label().iter().map(|it| (it.name(), it.value()));
            let labels: HashMap<&str, &str> = labels.collect();
            if labels.get("service").is_some_and(|it| services.contains(it)) {
                // An error means that it is removed already.
                let _ = family.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests;
