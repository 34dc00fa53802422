//! The progress of a drain, and the wait for its end.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{
    endings::{ColorIsActive, EndingSnapshot},
    handle::Control,
    holds::{Holds, PinsSnapshot, SideRequests},
};
use crate::{
    model::{Color, ServiceName},
    switch::{Drain, SideId},
};

/// The progress of the drain of a color.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DrainSnapshot {
    /// The service.
    pub service: ServiceName,
    /// The color.
    pub color: Color,
    /// Whether the color is active, so that it is not draining.
    pub is_active: bool,
    /// Requests that were admitted before the last change of this color.
    pub in_flight: usize,
    /// The same by kind.
    pub kinds: ClaimCounts,
    /// The age of the oldest.
    pub oldest: Option<Duration>,
    /// Previews, rescued and pinned requests since then. The drain does not wait for the first two.
    pub other: SideRequests,
    /// The pins that hold the color.
    pub pins: Option<PinsSnapshot>,
    /// Whether the color is drained: no request is in flight, and none can come that may use it.
    pub is_drained: bool,
    /// How its streams are ended, if they are.
    pub streams: Option<EndingSnapshot>,
    /// What else may still need the color.
    pub holds: Holds,
}

/// Claims by kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClaimCounts {
    /// Requests.
    pub request: usize,
    /// Tunnels.
    pub tunnel: usize,
}

/// What a wait for a drain waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DrainGoal {
    /// No request is in flight.
    Drained,
    /// The same, and nothing else may need the color.
    SafeToStop,
}

/// How often previews and rescued requests are counted while a call waits for them.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

// === impl DrainSnapshot ===

impl DrainSnapshot {
    /// Whether the endpoints of the color may be stopped.
    #[must_use]
    pub fn is_safe_to_stop(&self) -> bool {
        self.is_drained && self.holds.by.is_empty()
    }
}

impl Control {
    /// The progress of the drain of `color`, or of the color that is not active. For a removed service: of the color
    /// that was active last or, if that is drained, the other one. `None` for a service that is not configured, or was
    /// removed and has been drained for some seconds.
    #[must_use]
    pub fn drain(&self, service: &ServiceName, color: Option<Color>) -> Option<DrainSnapshot> {
        let active = self.active(service);
        let color = color.map_or_else(|| self.drained_color(service, active), Some)?;
        if active.is_none() && self.removed(service).is_none() {
            return None;
        }
        // Before the drains: if the pins end in between, their requests are found there.
        let pins = PinsSnapshot::of(self.switch(), service, color);
        let inside = self.switch().in_flight(service, color);
        let drains = self.switch().drains(service, color);
        let sides: Vec<SideId> = drains.iter().map(Drain::side).collect();
        let summary = self.ledger().summary(&sides);
        let in_flight = inside.retired;
        let other = SideRequests::of(self.switch(), self.ledger(), service, color);
        let is_active = active == Some(color);
        let holds = self.holds(service, color);
        let is_candidate = holds.by.contains(&Holds::SHARE);
        Some(DrainSnapshot {
            service: service.clone(),
            color,
            is_active,
            in_flight,
            kinds: ClaimCounts {
                request: in_flight.saturating_sub(summary.tunnels),
                tunnel: summary.tunnels,
            },
            oldest: summary.oldest.map(|it| it.elapsed()),
            other,
            pins,
            is_drained: !is_active && drains.is_empty() && pins.is_none() && !is_candidate,
            streams: self.shared().endings.snapshot(service, color),
            holds: holds.with_pins(pins).with(other),
        })
    }

    /// Ends the streams that a flip has left on a color by the policies of its service at once, without their patience;
    /// streams of a kind without a policy as [`StreamPolicies::by_hand`] says. Replaces an ending in progress.
    ///
    /// # Errors
    ///
    /// [`ColorIsActive`]; then nothing is ended.
    ///
    /// [`StreamPolicies::by_hand`]: crate::model::StreamPolicies::by_hand
    pub fn end_streams(&self, service: &ServiceName, color: Color) -> Result<(), ColorIsActive> {
        let applied = self.applied();
        let pools = applied.pools.get(service);
        let known = pools.map(|it| it.pool(color).policy().drain.streams).unwrap_or_default();
        self.shared().endings.start_by_hand(service, color, &known)
    }

    /// What may still need a color, besides its requests.
    fn holds(&self, service: &ServiceName, color: Color) -> Holds {
        let applied = self.applied();
        let state = applied.state.services.get(service);
        state.map(|it| Holds::of(it, color)).unwrap_or_default()
    }

    /// The color of the drain if none is named.
    fn drained_color(&self, service: &ServiceName, active: Option<Color>) -> Option<Color> {
        let Some(active) = active else {
            let last = self.removed(service)?;
            let is_held = |color| !self.switch().drains(service, color).is_empty();
            return Some(if !is_held(last) && is_held(last.other()) { last.other() } else { last });
        };
        Some(active.other())
    }

    /// Waits until nothing holds `color` of a service any more, or until it is made active again; of a color
    /// that is active, until nothing is left of what came before its last change, such as the
    /// replacement of an endpoint; of a service that was removed, until nothing holds either color if none is
    /// named. At most for `timeout`; then says how it is. Nothing is left behind when the future is
    /// dropped. `None` as for [`Control::drain`].
    pub async fn wait_for_drain(
        &self,
        service: &ServiceName,
        color: Option<Color>,
        timeout: Duration,
        goal: DrainGoal,
    ) -> Option<DrainSnapshot> {
        let active = self.active(service);
        // Of a removed service, first one color may drain and then the other.
        let color = color.or(active.map(Color::other));
        let was_active = active.is_some() && active == color;
        let until = Instant::now() + timeout;
        let mut changes = self.changes();
        loop {
            // Marked as seen before the check, so that a change after the check wakes the wait.
            changes.borrow_and_update();
            let picture = self.drain(service, color)?;
            let is_over = picture.is_active && (!was_active || picture.in_flight == 0);
            let is_reached = match goal {
                DrainGoal::Drained => picture.is_drained,
                DrainGoal::SafeToStop => picture.is_safe_to_stop(),
            };
            if is_reached || is_over {
                return Some(picture);
            }
            if picture.is_drained {
                // The end of a watch or a confirmation is a change of the state. The end of other requests is none.
                let has_requests = picture.other != SideRequests::default();
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return Some(picture) },
                    () = tokio::time::sleep_until(until.into()) => return Some(picture),
                    () = tokio::time::sleep(POLL_INTERVAL), if has_requests => {}
                }
                continue;
            }
            let mut drains = self.switch().drains(service, picture.color);
            // Without drains, the last one has just ended, or only pins or a share hold the color: their end is a change.
            let is_candidate = picture.holds.by.contains(&Holds::SHARE);
            let is_pinned = (picture.pins.is_some() || is_candidate) && drains.is_empty();
            let drained = join_all(drains.iter_mut().map(Drain::wait));
            tokio::select! {
                _ = drained, if !is_pinned => {}
                changed = changes.changed() => if changed.is_err() {
                    return self.drain(service, color);
                },
                () = tokio::time::sleep_until(until.into()) => {
                    return self.drain(service, color);
                }
            }
        }
    }
}
