//! What still holds a color, and the wait until nothing does.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::handle::Control;
use crate::{
    model::{Color, ServiceName},
    switch::{Drain, SideId},
};

/// What still holds a color of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DrainSnapshot {
    /// The service.
    pub service: ServiceName,
    /// The color.
    pub color: Color,
    /// Whether the color is the active one, so that it is not being drained at all.
    pub is_active: bool,
    /// Requests that were admitted before the last change that concerned this color.
    pub in_flight: usize,
    /// What they are.
    pub kinds: ClaimCounts,
    /// For how long the oldest of them has been inside.
    pub oldest: Option<Duration>,
    /// Requests of internal clients who asked for the color since. They do not hold up the drain.
    pub previews: usize,
    /// Whether nobody is left: the endpoints may be stopped.
    pub is_drained: bool,
}

/// Claims by what they are used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClaimCounts {
    /// Requests with their responses.
    pub request: usize,
    /// Upgraded connections.
    pub tunnel: usize,
}

impl Control {
    /// What holds `color` of a service, or its color that is not active; of a service that was removed, the
    /// color that was active at last or, if that is drained, the other one. `None` for a service that is not
    /// configured, or was removed and is drained for some seconds.
    #[must_use]
    pub fn drain(&self, service: &ServiceName, color: Option<Color>) -> Option<DrainSnapshot> {
        let active = self.active(service);
        let color = color.map_or_else(|| self.draining(service, active), Some)?;
        if active.is_none() && self.removed(service).is_none() {
            return None;
        }
        let inside = self.switch().in_flight(service, color);
        let drains = self.switch().drains(service, color);
        let sides: Vec<SideId> = drains.iter().map(Drain::side).collect();
        let summary = self.ledger().summary(&sides);
        let in_flight = inside.retired;
        let is_active = active == Some(color);
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
            previews: if is_active { 0 } else { inside.current },
            is_drained: !is_active && drains.is_empty(),
        })
    }

    /// The color whose drain is meant if none is named.
    fn draining(&self, service: &ServiceName, active: Option<Color>) -> Option<Color> {
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
    /// named. At most for `patience`; then says how it is. Nothing is left behind when the future is
    /// dropped. `None` as for [`Control::drain`].
    pub async fn wait_for_drain(
        &self,
        service: &ServiceName,
        color: Option<Color>,
        patience: Duration,
    ) -> Option<DrainSnapshot> {
        let active = self.active(service);
        // Of a service that is removed, it may be one color after the other.
        let color = color.or(active.map(Color::other));
        let was_active = active.is_some() && active == color;
        let until = Instant::now() + patience;
        let mut changes = self.changes();
        loop {
            // Marked as seen before looking, so that a change after the look is not slept through.
            changes.borrow_and_update();
            let picture = self.drain(service, color)?;
            let is_over = picture.is_active && (!was_active || picture.in_flight == 0);
            if picture.is_drained || is_over {
                return Some(picture);
            }
            let mut drains = self.switch().drains(service, picture.color);
            let drained = join_all(drains.iter_mut().map(Drain::wait));
            tokio::select! {
                _ = drained => {}
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
