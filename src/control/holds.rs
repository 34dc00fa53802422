//! What may still need a color that is not active, besides its requests.

use std::time::Instant;

use jiff::Timestamp;

use crate::{
    model::{Color, ServiceName},
    store::ServiceState,
    switch::Ledger,
    upstream::ServiceSwitch,
};

/// What may still need a color.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holds {
    /// `watch` and `confirm`: the promotion may be taken back. `share`: it is promoted gradually. `pins`: transactions are pinned to it. `previews`,
    /// `rescue` and `assets`: such requests are in flight.
    pub by: Vec<&'static str>,
    /// When the last of them ends. `None` if that is not known, as for requests in flight.
    pub until: Option<Timestamp>,
}

/// Requests in flight on a color that is not active. They do not hold up its drain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SideRequests {
    /// Previews.
    pub previews: usize,
    /// Requests that could not be connected to the active color.
    pub rescued: usize,
    /// Requests of transactions that are pinned to it.
    pub pinned: usize,
    /// Requests of clients that belong to its share.
    pub shared: usize,
    /// Requests for assets that the active color does not have.
    pub assets: usize,
}

/// The pins that hold a color which is not active.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PinsSnapshot {
    /// How many transactions are pinned to it; `None` for cookies, which are not counted.
    pub count: Option<usize>,
    /// When the last of them ends at the latest.
    pub until: Timestamp,
}

/// The time of so many milliseconds of Unix time.
#[must_use]
pub fn timestamp(unix_ms: u64) -> Timestamp {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

// === impl PinsSnapshot ===

impl PinsSnapshot {
    /// The pins that hold a color. Takes time in proportion to the transactions of the service.
    pub(super) fn of(switch: &ServiceSwitch, service: &ServiceName, color: Color) -> Option<Self> {
        let terms = switch.read(|it| it.service(service).and_then(|it| it.terms().clone()))?;
        let pins = terms.pins.as_ref()?;
        let window = pins.window().filter(|it| it.color == color)?;
        let left = window.until.saturating_duration_since(Instant::now());
        let until = Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX);
        Some(Self { count: pins.pinned(Instant::now()), until })
    }
}

// === impl SideRequests ===

impl SideRequests {
    /// Those of a color of a service; none if it is active.
    pub(super) fn of(
        switch: &ServiceSwitch,
        ledger: &Ledger<Instant>,
        service: &ServiceName,
        color: Color,
    ) -> Self {
        let side = switch.read(|table| {
            let service = table.service(service)?;
            let side = service.side(color);
            (service.active() != color).then(|| (side.id(), side.in_flight()))
        });
        match side {
            None | Some((_, 0)) => Self::default(),
            Some((side, in_flight)) => {
                let summary = ledger.summary(&[side]);
                // The two were not read at one moment.
                let mut left = in_flight;
                let mut take = |count: usize| {
                    let taken = count.min(left);
                    left -= taken;
                    taken
                };
                let (rescued, pinned) = (take(summary.rescued), take(summary.pinned));
                let (shared, assets) = (take(summary.shared), take(summary.assets));
                Self { previews: left, rescued, pinned, shared, assets }
            }
        }
    }
}

// === impl Holds ===

impl Holds {
    /// The color is promoted gradually.
    pub(super) const SHARE: &str = "share";

    /// What may need `color` of a service.
    #[must_use]
    pub fn of(service: &ServiceState, color: Color) -> Self {
        if service.share.as_ref().is_some_and(|it| it.color == color) {
            return Self { by: vec![Self::SHARE], until: None };
        }
        // A pool that was changed since is no way back.
        let is_way_back = service.previous == Some(color) && service.pool(color).served;
        if !is_way_back || service.active == color {
            return Self::default();
        }
        let watch = service.watch.as_ref().map(|it| ("watch", it.until));
        let confirmation = service.confirmation.as_ref().map(|it| ("confirm", it.until));
        let holds: Vec<_> = watch.into_iter().chain(confirmation).collect();
        let until = holds.iter().map(|it| it.1).max().map(timestamp);
        Self { by: holds.iter().map(|it| it.0).collect(), until }
    }

    /// The same with pins.
    pub(super) fn with_pins(mut self, pins: Option<PinsSnapshot>) -> Self {
        if let Some(pins) = pins {
            self.until = match self.by.is_empty() {
                true => Some(pins.until),
                // What has no end known stays so.
                false => self.until.map(|it| it.max(pins.until)),
            };
            self.by.push("pins");
        }
        self
    }

    /// The same with what is in flight.
    pub(super) fn with(mut self, requests: SideRequests) -> Self {
        // Others hold the color by their pins and by the share.
        let SideRequests { previews, rescued, pinned: _, shared: _, assets } = requests;
        for (count, name) in [(previews, "previews"), (rescued, "rescue"), (assets, "assets")] {
            if count > 0 {
                self.by.push(name);
                self.until = None;
            }
        }
        self
    }
}
