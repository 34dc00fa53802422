//! Follows what the proxy reports: `drained` events and requests in flight.

use std::{cell::Cell, time::Duration};

use flipgate_api::wire::Status;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        options::Control,
        record::{DrainedEvent, Flip, FlipOutcome, InFlightSample},
    },
    DELAY_INTERVAL, DELAY_MIN, LAST_DRAINS_TIMEOUT, SAMPLE_INTERVAL, SAMPLES_MAX, ScenarioRunner,
    nanos,
};
use crate::{color::Color, sample::now_ns};

impl ScenarioRunner {
    /// The number of flips.
    pub(crate) fn flip_count(&self) -> usize {
        self.log.borrow().flips.len()
    }

    /// Whether the proxy reports drains.
    pub(crate) fn reports_drains(&self) -> bool {
        matches!(self.control, Control::Admin(_))
    }

    /// Receives `drained` events until `stop` is cancelled.
    pub(crate) async fn follow_events(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        // Since when no events can be received. None while connected.
        let since = Cell::new(Some(0));
        let following = async {
            let (mut last, mut received) = (None, 0);
            loop {
                match caller.events(last).await {
                    Err(error) => {
                        let mut events_error = self.events_error.borrow_mut();
                        if events_error.is_some() {
                            *events_error = Some(error.to_string());
                        }
                    }
                    Ok(mut events) => {
                        self.events_error.replace(None);
                        self.record_event_gap(since.take(), now_ns());
                        while let Ok(Some(event)) = events.next().await {
                            let before = std::mem::replace(&mut received, now_ns());
                            let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
                            last = event["seq"].as_u64().or(last);
                            if event["event"] == "missed" {
                                self.record_event_gap(Some(before), received);
                            }
                            self.log
                                .borrow_mut()
                                .drained
                                .extend(self.drained_event(&event, received));
                        }
                        since.set(Some(now_ns()));
                    }
                }
                // The proxy was killed, or is not running yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = following => {}, () = stop.cancelled() => {} }
        self.record_event_gap(Some(since.get().unwrap_or_else(now_ns)), u64::MAX);
    }

    fn record_event_gap(&self, from: Option<u64>, until: u64) {
        self.log.borrow_mut().event_gaps.missed.extend(from.map(|it| (it, until)));
    }

    /// Records delays of the drill's own timer until `stop` is cancelled.
    pub(crate) async fn measure_delays(&self, stop: &CancellationToken) {
        let measuring = async {
            loop {
                let due = now_ns() + nanos(DELAY_INTERVAL);
                tokio::time::sleep(DELAY_INTERVAL).await;
                let now = now_ns();
                if now.saturating_sub(due) >= nanos(DELAY_MIN) {
                    self.log.borrow_mut().event_gaps.delays.push((now, now - due));
                }
            }
        };
        tokio::select! { () = measuring => {}, () = stop.cancelled() => {} }
    }

    fn drained_event(&self, event: &Value, received: u64) -> Option<DrainedEvent> {
        if event["event"] != "drained" {
            return None;
        }
        let name = event["service"].as_str()?;
        let service = self.target.indices().find(|it| self.target.name(*it) == name)?;
        let color = event["color"].as_str()?.parse().ok()?;
        Some(DrainedEvent { service, color, generation: event["generation"].as_u64()?, received })
    }

    /// Records a failure if the proxy has ended and the drill did not stop it.
    pub(crate) async fn check_proxy_exit(&self) {
        // The lock is held while a process is started or stopped.
        if let Ok(mut processes) = self.processes.try_lock()
            && let Some(ended) = processes.take_proxy_exit()
        {
            self.record_failure(now_ns(), ended);
        }
    }

    /// Whether all `drained` events of a flip have come.
    pub(super) fn is_flip_drained(&self, index: usize) -> bool {
        let log = self.log.borrow();
        let flip = &log.flips[index];
        flip.changes
            .iter()
            .all(|(service, color)| is_drain_reported(&log.drained, flip, *service, *color))
    }

    /// Waits for the `drained` events of the last flips, up to a timeout.
    pub(crate) async fn wait_for_last_drains(&self) {
        let is_drained = || {
            let log = self.log.borrow();
            self.target.indices().all(|service| {
                let of =
                    |flip: &Flip| flip.changes.iter().find(|it| it.0 == service).map(|it| it.1);
                let mut flips =
                    log.flips.iter().rev().filter(|it| it.outcome == FlipOutcome::Acknowledged);
                let last = flips.find_map(|it| Some((it, of(it)?)));
                last.is_none_or(|(flip, color)| {
                    is_drain_reported(&log.drained, flip, service, color)
                })
            })
        };
        let waiting = async {
            while self.reports_drains() && !is_drained() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // The checks find events that are still missing.
        let pins = Duration::from_nanos(self.target.pin_age().unwrap_or_default());
        let _ = timeout(LAST_DRAINS_TIMEOUT + pins, waiting).await;
        let why = self.events_error.borrow().clone().filter(|_| self.reports_drains());
        if let Some(why) = why {
            self.record_failure(now_ns(), format!("cannot receive events: {why}"));
        }
    }

    /// Samples the requests in flight until `stop` is cancelled.
    pub(crate) async fn sample_in_flight(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        let waiting = async {
            let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                interval.tick().await;
                let Ok(status) = caller.status().await else {
                    continue;
                };
                let at = now_ns();
                let mut log = self.log.borrow_mut();
                if log.in_flight.len() < SAMPLES_MAX {
                    log.in_flight.extend(self.in_flight_samples(&status, at));
                }
            }
        };
        tokio::select! { () = waiting => {}, () = stop.cancelled() => {} }
    }

    fn in_flight_samples(&self, status: &Status, at: u64) -> Vec<InFlightSample> {
        let mut all = Vec::new();
        for index in self.target.indices() {
            let Some(service) = status.services.get(self.target.name(index)) else { continue };
            for (color, pool) in &service.pools {
                let is_inactive = *color != service.active;
                let Ok(color) = color.parse() else { continue };
                all.push(InFlightSample {
                    at,
                    service: index,
                    color,
                    count: pool.in_flight,
                    is_inactive,
                });
            }
        }
        all
    }
}

/// Whether a `drained` event has come since a flip for the color that was active before `color`.
fn is_drain_reported(drained: &[DrainedEvent], flip: &Flip, service: u8, color: Color) -> bool {
    let since = drained.iter().rev().take_while(|it| it.received >= flip.called);
    // The event may have the generation of an earlier flip.
    let is_before = |it: &DrainedEvent| flip.generation.is_none_or(|own| it.generation <= own);
    let mut own = since.filter(|it| (it.service, it.color) == (service, color.other()));
    own.any(is_before)
}
