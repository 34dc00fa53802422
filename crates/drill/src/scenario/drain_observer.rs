//! What the proxy tells of itself: drains, and who is inside.

use std::{cell::Cell, time::Duration};

use flipgate_api::wire::Status;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        options::Control,
        record::{Drained, Flip, FlipEnd, InFlightSample},
    },
    AFTERWARDS, LATE, LOOK, LOOKS_MAX, ScenarioRunner, TICK, nanos,
};
use crate::{color::Color, sample::now_ns};

impl ScenarioRunner {
    /// How many flips there were.
    pub(crate) fn flips(&self) -> usize {
        self.notes.borrow().flips.len()
    }

    /// Whether the proxy tells when a color is drained.
    pub(crate) fn tells_of_drains(&self) -> bool {
        matches!(self.control, Control::Admin(_))
    }

    /// Follows what the proxy tells of drains until it is stopped.
    pub(crate) async fn listen(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        // From when on nothing is heard; none while it is.
        let since = Cell::new(Some(0));
        let listening = async {
            let (mut last, mut heard) = (None, 0);
            loop {
                match caller.events(last).await {
                    Err(error) => {
                        let mut deaf = self.deaf.borrow_mut();
                        if deaf.is_some() {
                            *deaf = Some(error.to_string());
                        }
                    }
                    Ok(mut events) => {
                        self.deaf.replace(None);
                        self.was_deaf(since.take(), now_ns());
                        while let Ok(Some(event)) = events.next().await {
                            let before = std::mem::replace(&mut heard, now_ns());
                            let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
                            last = event["seq"].as_u64().or(last);
                            if event["event"] == "missed" {
                                self.was_deaf(Some(before), heard);
                            }
                            self.notes.borrow_mut().drained.extend(self.drained(&event, heard));
                        }
                        since.set(Some(now_ns()));
                    }
                }
                // It was killed, or does not run yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = listening => {}, () = stop.cancelled() => {} }
        self.was_deaf(Some(since.get().unwrap_or_else(now_ns)), u64::MAX);
    }

    fn was_deaf(&self, from: Option<u64>, until: u64) {
        self.notes.borrow_mut().hearing.deaf.extend(from.map(|it| (it, until)));
    }

    /// Notes when the drill itself is late, until it is stopped.
    pub(crate) async fn tick(&self, stop: &CancellationToken) {
        let ticking = async {
            loop {
                let due = now_ns() + nanos(TICK);
                tokio::time::sleep(TICK).await;
                let now = now_ns();
                if now.saturating_sub(due) >= nanos(LATE) {
                    self.notes.borrow_mut().hearing.lags.push((now, now - due));
                }
            }
        };
        tokio::select! { () = ticking => {}, () = stop.cancelled() => {} }
    }

    fn drained(&self, event: &Value, heard: u64) -> Option<Drained> {
        if event["event"] != "drained" {
            return None;
        }
        let name = event["service"].as_str()?;
        let service = self.subject.places().find(|it| self.subject.name(*it) == name)?;
        let color = event["color"].as_str()?.parse().ok()?;
        Some(Drained { service, color, generation: event["generation"].as_u64()?, heard })
    }

    /// Notes what ends without being told to: the proxy.
    pub(crate) async fn attend(&self) {
        // Whoever holds the stage is ending or starting something.
        if let Ok(mut stage) = self.stage.try_lock()
            && let Some(ended) = stage.proxy_ended()
        {
            self.trouble(now_ns(), ended);
        }
    }

    /// Whether everything was told to be drained that the flip at this place has left behind.
    pub(super) fn is_told(&self, place: usize) -> bool {
        let notes = self.notes.borrow();
        let flip = &notes.flips[place];
        flip.changes.iter().all(|(service, color)| is_told(&notes.drained, flip, *service, *color))
    }

    /// Waits until it was told that everything is drained that flips have left behind, but not for long.
    pub(crate) async fn hear_the_last(&self) {
        let is_told = || {
            let notes = self.notes.borrow();
            self.subject.places().all(|service| {
                let of =
                    |flip: &Flip| flip.changes.iter().find(|it| it.0 == service).map(|it| it.1);
                let mut flips = notes.flips.iter().rev().filter(|it| it.end == FlipEnd::Done);
                let last = flips.find_map(|it| Some((it, of(it)?)));
                last.is_none_or(|(flip, color)| is_told(&notes.drained, flip, service, color))
            })
        };
        let looking = async {
            while self.tells_of_drains() && !is_told() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What was not told by then is judged as it is.
        let _ = timeout(AFTERWARDS, looking).await;
        let why = self.deaf.borrow().clone().filter(|_| self.tells_of_drains());
        if let Some(why) = why {
            self.trouble(now_ns(), format!("the events of the proxy cannot be followed: {why}"));
        }
    }

    /// Looks who is inside, again and again until it is stopped.
    pub(crate) async fn look(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        let looking = async {
            let mut turn = tokio::time::interval(LOOK);
            turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                turn.tick().await;
                let Ok(status) = caller.status().await else {
                    continue;
                };
                let at = now_ns();
                let mut notes = self.notes.borrow_mut();
                if notes.inside.len() < LOOKS_MAX {
                    notes.inside.extend(self.inside(&status, at));
                }
            }
        };
        tokio::select! { () = looking => {}, () = stop.cancelled() => {} }
    }

    fn inside(&self, status: &Status, at: u64) -> Vec<InFlightSample> {
        let mut all = Vec::new();
        for place in self.subject.places() {
            let Some(service) = status.services.get(self.subject.name(place)) else { continue };
            for (color, pool) in &service.pools {
                let is_leaving = *color != service.active;
                let Ok(color) = color.parse() else { continue };
                all.push(InFlightSample {
                    at,
                    service: place,
                    color,
                    count: pool.in_flight,
                    is_leaving,
                });
            }
        }
        all
    }
}

/// Whether it was told since a flip that `service` is drained of what was active before `color`.
fn is_told(drained: &[Drained], flip: &Flip, service: u8, color: Color) -> bool {
    let since = drained.iter().rev().take_while(|it| it.heard >= flip.called);
    // What one flip left behind may be told by the generation of one before it.
    let is_before = |it: &Drained| flip.generation.is_none_or(|own| it.generation <= own);
    let mut own = since.filter(|it| (it.service, it.color) == (service, color.other()));
    own.any(is_before)
}
