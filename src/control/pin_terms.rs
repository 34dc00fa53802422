//! The terms of a service that follow from the state, the configuration and the time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{catalog::ServiceSpec, pins::is_valid, shared::unix_millis};
use crate::{
    continuity::{Continuity, HoldLimits, PinActivity, PinSettings, PinWindow, ServicePins, Share},
    model::{Color, ServiceName},
    store::{ServiceState, ShareState, State},
};

/// Makes terms at one moment.
pub(super) struct TermsFactory<'a> {
    pub(super) state: &'a State,
    pub(super) now_ms: u64,
    pub(super) now: Instant,
    /// Whether the process starts, so that there may be pins of an earlier one.
    pub(super) is_start: bool,
    /// Whether this is a check of the pins while no earlier table is in use: what has not begun by now on an earlier color
    /// never will. Only then pins end before their time.
    pub(super) is_check: bool,
    pub(super) hold_limits: &'a Arc<HoldLimits>,
}

impl<'a> TermsFactory<'a> {
    /// For this state, now.
    pub(super) fn now(state: &'a State, is_start: bool, hold_limits: &'a Arc<HoldLimits>) -> Self {
        let (now_ms, now) = (unix_millis(), Instant::now());
        Self { state, now_ms, now, is_start, is_check: false, hold_limits }
    }

    /// The terms of a service; `None` if only its active color decides. `old` are those before.
    pub(super) fn terms(
        &self,
        name: &ServiceName,
        spec: &ServiceSpec,
        old: Option<&Continuity>,
    ) -> Option<Arc<Continuity>> {
        let state = self.state.services.get(name)?;
        let intake = self.intake(name, spec, old);
        let is_plain = spec.pins.is_none() && spec.policy.assets.is_none();
        if is_plain && state.share.is_none() && intake.is_none() {
            return None;
        }
        let old = old.and_then(|it| it.pins.as_ref());
        let pins = spec.pins.as_ref().map(|it| self.pins(name, it, state, old));
        let served = Color::BOTH.map(|it| state.pool(it).served || state.pool(it).shared);
        let share = state.share.as_ref().map(|it| {
            let ShareState { generation, color, has_first, secret, .. } = it;
            let settings = Arc::clone(&spec.share);
            Arc::new(Share::new(*color, *generation, it.percent(), *has_first, settings, *secret))
        });
        Some(Arc::new(Continuity { served, pins, share, intake }))
    }

    fn pins(
        &self,
        name: &ServiceName,
        settings: &Arc<PinSettings>,
        state: &ServiceState,
        old: Option<&ServicePins>,
    ) -> ServicePins {
        let keys = self.state.pin_keys.iter();
        let keys = keys.filter(|it| is_valid(it, settings.max_age, self.now_ms));
        let keys = keys.map(|it| it.key).collect();
        let activity = match old {
            Some(old) => Arc::clone(old.activity()),
            None => {
                // A service that had pins before, in an earlier process or configuration, may have some in use.
                let is_new = |it: &Color| state.pool(*it).pins_since == self.state.generation;
                let has_pins = self.is_start || !Color::BOTH.iter().all(is_new);
                Arc::new(PinActivity::new(random_secret(), has_pins))
            }
        };
        let since = Color::BOTH.map(|it| state.pool(it).pins_since);
        if let Some(old) = old {
            for color in Color::BOTH {
                // All pins of before are void.
                if old.since(color) != since[color as usize] {
                    activity.set_has_pins(color, false);
                }
            }
        }
        let history = state.history().into();
        let settings = Arc::clone(settings);
        let pins = ServicePins::new(name, settings, keys, history, since, activity);
        let window = self.window(&pins, state, old);
        let candidate = state.share.as_ref().map(|it| (it.color, it.generation));
        let pins = pins.with_window(window).with_candidate(candidate);
        if self.is_check && pins.window().is_some() && pins.settings().max_share < 100 {
            pins.activity().limit_share(pins.settings().max_share);
        }
        let is_over = |it: &PinWindow| self.now >= it.until;
        match pins.window().is_some_and(is_over)
            || self.is_check && !pins.is_window_needed(self.now)
        {
            true => pins.with_window(None),
            false => pins,
        }
    }

    /// The color before, if pins to it may be valid.
    fn window(
        &self,
        pins: &ServicePins,
        state: &ServiceState,
        old: Option<&ServicePins>,
    ) -> Option<PinWindow> {
        let color = state.active.other();
        let pool = state.pool(color);
        let retired_ms = pool.retired_at.filter(|_| pool.served)?;
        // The generation of the flip: a later one for the pins of this color voids all of them.
        let flip = state.history().last().map(|it| it.from)?;
        if pool.pins_since >= flip {
            return None;
        }
        if let Some(old) = old
            && old.flip() == Some(flip)
        {
            // It stays as it is, also closed before its time; a setting may end it earlier.
            let window = old.window().copied()?;
            let until = window.retired + pins.settings().max_age;
            return Some(PinWindow { until, ..window });
        }
        let passed = Duration::from_millis(self.now_ms.saturating_sub(retired_ms));
        let left = pins.settings().max_age.checked_sub(passed)?;
        let retired = self.now.checked_sub(passed).unwrap_or(self.now);
        Some(PinWindow { color, retired_ms, retired, until: self.now + left })
    }
}

/// Random bytes, from the system.
pub fn random_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    aws_lc_rs::rand::fill(&mut secret).expect("the random source of the system works");
    secret
}
