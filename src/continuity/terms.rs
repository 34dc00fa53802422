//! The terms of a service in one generation: which requests may use a color that is not active, and why.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    activity::PinActivity,
    intake::Intake,
    keys::{LastPin, Pin, PinKey, PinKeys, PinScope},
    members::{Begin, MemberKey},
    settings::{PinCarrier, PinSettings},
    share::Share,
};
use crate::model::{Color, Generation, ServiceName};

/// What decides, besides the active color, which side a request of a service gets.
#[derive(Clone, Debug, Default)]
pub struct Continuity {
    /// Whether the pools of blue and green have had clients of the public since their endpoints were set.
    pub served: [bool; 2],
    /// Its pins, if it has a setting for them.
    pub pins: Option<ServicePins>,
    /// The share of a candidate that is being promoted gradually, if there is one.
    pub share: Option<Arc<Share>>,
    /// What keeps new requests from its colors, while there is a hold or a maintenance.
    pub intake: Option<Arc<Intake>>,
}

/// The pins of a service.
#[derive(Clone, Debug)]
pub struct ServicePins {
    settings: Arc<PinSettings>,
    keys: PinKeys,
    /// The active colors, the earliest first. Of the time before the first one nothing is known.
    history: Arc<[Span]>,
    /// Pins to blue and to green of an earlier generation are void: another pool had the color then, or its pins have
    /// ended.
    since: [Generation; 2],
    window: Option<PinWindow>,
    /// The candidate of a gradual promotion, and the generation that began it.
    candidate: Option<(Color, Generation)>,
    activity: Arc<PinActivity>,
}

/// A color, and the first generation that had it active.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The generation.
    pub from: Generation,
    /// The color.
    pub color: Color,
}

/// A color that is not active any more, while pins to it are valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PinWindow {
    /// The color.
    pub color: Color,
    /// When another color became active, in milliseconds of Unix time.
    pub retired_ms: u64,
    /// The same.
    pub retired: Instant,
    /// When all pins have ended.
    pub until: Instant,
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub enum Carried {
    /// A signed pin.
    Pin(Pin),
    /// The name of a transaction.
    Member(MemberKey),
}

// === impl Continuity ===

impl Continuity {
    /// Whether the pool of a color has had clients of the public since its endpoints were set: it was active, or a gradual
    /// promotion gave it a share.
    #[must_use]
    pub fn was_served(&self, color: Color) -> bool {
        self.served[color as usize]
    }

    /// Whether a color that is not active gets requests of the public, by pins or as a candidate.
    #[must_use]
    pub fn admits(&self, color: Color) -> bool {
        self.window().is_some_and(|it| it.color == color)
            || self.share.as_ref().is_some_and(|it| it.color == color)
    }

    /// The color that is not active, while pins to it are valid.
    #[must_use]
    pub fn window(&self) -> Option<&PinWindow> {
        self.pins.as_ref()?.window.as_ref()
    }
}

// === impl ServicePins ===

impl ServicePins {
    /// The pins of a service. `history` ends with the active color.
    #[must_use]
    pub fn new(
        service: &ServiceName,
        settings: Arc<PinSettings>,
        keys: Vec<PinKey>,
        history: Arc<[Span]>,
        since: [Generation; 2],
        activity: Arc<PinActivity>,
    ) -> Self {
        let scope = match &settings.group {
            Some(group) => PinScope::group(group),
            None => PinScope::service(service),
        };
        let keys = PinKeys::new(scope, keys);
        Self { settings, keys, history, since, window: None, candidate: None, activity }
    }

    /// The same with a window.
    #[must_use]
    pub fn with_window(self, window: Option<PinWindow>) -> Self {
        Self { window, ..self }
    }

    /// The same while this color is promoted gradually, from this generation on.
    #[must_use]
    pub fn with_candidate(self, candidate: Option<(Color, Generation)>) -> Self {
        Self { candidate, ..self }
    }

    /// The color that is not active, while pins to it are valid.
    #[must_use]
    pub fn window(&self) -> Option<&PinWindow> {
        self.window.as_ref()
    }

    /// The generation that made the active color active, if it is known.
    #[must_use]
    pub fn flip(&self) -> Option<Generation> {
        self.history.last().map(|it| it.from)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &PinSettings {
        &self.settings
    }

    /// The name of the cookie.
    #[must_use]
    pub fn cookie(&self) -> &str {
        self.keys.scope().cookie()
    }

    /// What is known of the pins in use.
    #[must_use]
    pub fn activity(&self) -> &Arc<PinActivity> {
        &self.activity
    }

    /// The first generation with valid pins to a color.
    #[must_use]
    pub fn since(&self, color: Color) -> Generation {
        self.since[color as usize]
    }

    /// Whether requests are decided the same by both: everything but what is counted.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { settings, keys, history, since, window, candidate, activity } = self;
        let is_same_window = match (window, &other.window) {
            (Some(one), Some(two)) => (one.color, one.retired_ms) == (two.color, two.retired_ms),
            (None, None) => true,
            _ => false,
        };
        *settings == other.settings
            && *keys == other.keys
            && *history == other.history
            && *since == other.since
            && *candidate == other.candidate
            && is_same_window
            && Arc::ptr_eq(activity, &other.activity)
    }

    /// What a cookie says, if Flipgate has signed it. `last` is the last one of the connection.
    #[must_use]
    pub fn read(&self, text: &[u8], last: &LastPin) -> Option<Pin> {
        last.read(&self.keys, text)
    }

    /// The text of a pin for a transaction that begins.
    #[must_use]
    pub fn sign(&self, begin: Begin, id: u64) -> Option<String> {
        let text = self.keys.sign(Pin { begin, id })?;
        self.note_begin(begin);
        Some(text)
    }

    /// Begins a transaction with a name.
    pub fn begin(&self, key: MemberKey, begin: Begin, now: Instant) {
        self.activity.members().begin(key, begin, now);
        self.note_begin(begin);
    }

    fn note_begin(&self, begin: Begin) {
        if let Some(last) = self.history.last() {
            let color = if begin.on_candidate { last.color.other() } else { last.color };
            self.activity.set_has_pins(color, true);
        }
    }

    /// The color of the transaction that a request carries. `None` if there is none, or if its pin has ended or is void.
    /// Counts it as used.
    #[must_use]
    pub fn follow(&self, carried: Carried, now: Instant) -> Option<Color> {
        let members = self.activity.members();
        let (begin, color) = match carried {
            Carried::Member(key) => {
                let is_live = |begin, used| self.is_live(begin, used, now);
                let begin = members.touch(key, now, is_live)?;
                (begin, self.color_of(begin)?)
            }
            Carried::Pin(Pin { begin, id }) => {
                let color = self.color_of(begin)?;
                // Cookies are only remembered while it matters.
                if let Some(window) = self.window.filter(|it| it.color == color)
                    && self.settings.idle.is_some()
                {
                    let key = members.key(&id.to_be_bytes(), &id.to_be_bytes());
                    let is_live = |begin, used| self.is_live(begin, used, now);
                    if members.touch(key, now, is_live).is_none() {
                        if !self.is_live(begin, window.retired, now) {
                            return None;
                        }
                        members.begin(key, begin, now);
                    }
                }
                (begin, color)
            }
        };
        let is_in_window = self.window.is_some_and(|it| it.color == color);
        if is_in_window && self.settings.max_share < 100 && !self.activity.admits(begin.order) {
            return None;
        }
        Some(color)
    }

    /// The color of a transaction that began like this, if its pin is valid.
    fn color_of(&self, begin: Begin) -> Option<Color> {
        let Begin { generation, on_candidate, order: _ } = begin;
        let span = self.history.iter().rev().find(|it| it.from <= generation)?;
        let color = if on_candidate { span.color.other() } else { span.color };
        // A candidate is one until it is taken back, which raises `since`, or becomes active. Of a group, only the services
        // that are promoted together have the same generation.
        let is_candidate = on_candidate && self.candidate == Some((color, generation));
        let was_active = !on_candidate
            || self.history.iter().any(|it| it.from > generation && it.color == color);
        let is_open = was_active && self.window.is_some_and(|it| it.color == color);
        let is_active = self.history.last().is_some_and(|it| it.color == color);
        let is_valid = generation >= self.since(color) && (is_open || is_active || is_candidate);
        is_valid.then_some(color)
    }

    /// Whether a transaction that was used then can go on.
    fn is_live(&self, begin: Begin, used: Instant, now: Instant) -> bool {
        let Some(color) = self.color_of(begin) else { return false };
        let Some(window) = self.window.filter(|it| it.color == color) else { return true };
        // What was used before the flip may be used for as long after it.
        let unused = now.saturating_duration_since(used.max(window.retired));
        unused <= self.settings.idle.unwrap_or(Duration::MAX)
    }

    /// Whether a pin to the color of the window may still be used. Forgets what has lapsed. Takes time in proportion to
    /// the remembered transactions.
    #[must_use]
    pub fn is_window_needed(&self, now: Instant) -> bool {
        let Some(window) = &self.window else { return false };
        // Another service of the group may have set pins that are valid here.
        let is_shared = self.settings.group.is_some();
        if now >= window.until || !is_shared && !self.activity.has_pins(window.color) {
            return false;
        }
        let idle = self.settings.idle.filter(|_| self.settings.carrier == PinCarrier::Cookie);
        let is_unknown = match (&self.settings.carrier, idle) {
            (PinCarrier::Cookie, None) => true,
            // What was not used since then could be used until now.
            (PinCarrier::Cookie, Some(idle)) => {
                now.saturating_duration_since(window.retired) <= idle
            }
            (PinCarrier::Header(_) | PinCarrier::Query(_), _) => false,
        };
        if is_unknown {
            return true;
        }
        self.activity.members().retain(|begin, used| self.is_live(begin, used, now));
        self.count(window, now) > 0
    }

    /// The transactions that are pinned to the color of the window; `None` for cookies, which are not counted.
    #[must_use]
    pub fn pinned(&self, now: Instant) -> Option<usize> {
        let window = self.window.as_ref()?;
        match self.settings.carrier {
            PinCarrier::Cookie => None,
            PinCarrier::Header(_) | PinCarrier::Query(_) => Some(self.count(window, now)),
        }
    }

    fn count(&self, window: &PinWindow, now: Instant) -> usize {
        let is_pinned = |begin: Begin, used| {
            self.color_of(begin) == Some(window.color) && self.is_live(begin, used, now)
        };
        self.activity.members().count(is_pinned)
    }
}

#[cfg(test)]
mod tests;
