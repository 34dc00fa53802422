//! What the proxy tells of itself: drains, and who is inside.

use std::time::Duration;

use flipgate_api::wire::Status;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        options::Control,
        record::{Drained, FlipEnd, Inside},
    },
    AFTERWARDS, Conductor, LOOK, LOOKS_MAX,
};
use crate::sample::now_ns;

impl Conductor {
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
        let mut last = None;
        let listening = async {
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
                        while let Ok(Some(event)) = events.next().await {
                            let heard = now_ns();
                            let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
                            last = event["seq"].as_u64().or(last);
                            self.notes.borrow_mut().drained.extend(self.drained(&event, heard));
                        }
                    }
                }
                // It was killed, or does not run yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = listening => {}, () = stop.cancelled() => {} }
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

    /// Waits until it was told that everything is drained that flips have left behind, but not for long.
    pub(crate) async fn hear_the_last(&self) {
        let is_told = || {
            let notes = self.notes.borrow();
            let last = notes.flips.iter().rev().find(|it| it.end == FlipEnd::Done);
            last.is_none_or(|flip| {
                flip.changes.iter().all(|(service, color)| {
                    let is_it = |it: &Drained| (it.service, it.color) == (*service, color.other());
                    notes.drained.iter().any(|it| is_it(it) && it.heard >= flip.called)
                })
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

    fn inside(&self, status: &Status, at: u64) -> Vec<Inside> {
        let mut all = Vec::new();
        for place in self.subject.places() {
            let Some(service) = status.services.get(self.subject.name(place)) else { continue };
            for (color, pool) in &service.pools {
                let is_leaving = *color != service.active;
                let Ok(color) = color.parse() else { continue };
                all.push(Inside { at, service: place, color, count: pool.in_flight, is_leaving });
            }
        }
        all
    }
}
