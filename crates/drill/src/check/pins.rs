//! Transactions, and which of their requests may have a color that was replaced.
//!
//! The first request of a transaction is routed like any other. The others may get its color for as long as pins last,
//! and assets of its page for ever. Only these, and only with that color, are exempt from the other promises.

use std::collections::HashMap;

use super::super::record::{
    Flip, FlipOutcome, GradualPromotion, History, Kill, KilledProcess, Kind, Request,
};
use crate::color::Color;

/// The proxy counts the time of pins in milliseconds of another clock: 20 ms, in nanoseconds.
pub(super) const CLOCK: u64 = 20_000_000;

/// The first request of each transaction.
pub(super) struct Transactions<'a> {
    history: &'a History,
    first: HashMap<u64, &'a Request>,
}

// === impl Transactions ===

impl<'a> Transactions<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let first = history.requests.iter().filter(|it| it.transaction != 0 && !it.goes_on());
        Self { history, first: first.map(|it| (it.id, it)).collect() }
    }

    /// The first request of the transaction that a request goes on with.
    pub(super) fn first(&self, request: &Request) -> Option<&'a Request> {
        self.first.get(&request.transaction).copied().filter(|_| request.goes_on())
    }

    /// Whether a request may have the color of its transaction without regard to flips: it goes on with one, has its color,
    /// and is either an asset or not later than the pins of that color. A scan that may have begun anew may have either.
    pub(super) fn may_keep_color(&self, request: &Request) -> bool {
        let Some(first) = self.first(request) else { return false };
        let Some(color) = first.color else { return false };
        match request.kind {
            Kind::Page => request.color == Some(color),
            _ if request.color == Some(color) => !self.are_pins_over(request, color),
            _ => self.may_have_begun_anew(request, first, color),
        }
    }

    /// Whether the pins to a color had certainly ended when a request began.
    pub(super) fn are_pins_over(&self, request: &Request, color: Color) -> bool {
        let Some(age) = self.history.pin_age else { return false };
        let before = self.flips_of(request).take_while(|(flip, _)| flip.called <= request.routed());
        let Some((flip, _)) = before.last().filter(|(_, to)| *to != color) else { return false };
        let end = flip.acknowledged.saturating_add(age).saturating_add(CLOCK);
        flip.outcome == FlipOutcome::Acknowledged && request.began > end
    }

    /// Whether the pin of a transaction may have ended by the time that a request of it was routed, so that it goes on as one
    /// that began anew: its color was not active for as long as pins last, or the proxy has forgotten it.
    pub(super) fn may_have_begun_anew(
        &self,
        request: &Request,
        first: &Request,
        color: Color,
    ) -> bool {
        let is_stop = |it: &Kill| {
            it.process == KilledProcess::Proxy
                && it.from <= request.routed()
                && it.until >= first.began
        };
        let is_forgetful = self.history.forgetful.contains(&request.service);
        if is_forgetful && self.history.kills.iter().any(is_stop) {
            return true;
        }
        let Some(age) = self.history.pin_age else { return false };
        let ends = |(flip, to): &(&Flip, Color)| {
            let end = self.history.flip_from(flip).saturating_add(age);
            let is_back = |(back, to): (&Flip, Color)| {
                to == color
                    && back.called > flip.called
                    && back.outcome == FlipOutcome::Acknowledged
                    && back.acknowledged.saturating_add(CLOCK) < end
            };
            *to != color
                && flip.acknowledged >= first.began
                && end <= request.routed().saturating_add(CLOCK)
                && !self.flips_of(request).any(is_back)
        };
        self.flips_of(request).any(|it| ends(&it))
    }

    /// The flips of the service of a request that may have been made, with the color that became active.
    fn flips_of(&self, request: &Request) -> impl Iterator<Item = (&'a Flip, Color)> {
        let service = request.service;
        self.history.flips.iter().filter_map(move |flip| {
            let (_, to) = *flip.changes.iter().find(|it| it.0 == service)?;
            (flip.outcome != FlipOutcome::Refused).then_some((flip, to))
        })
    }

    /// Whether an asset may have been asked of both colors: a flip was made since its page began to load, or a candidate had a
    /// share.
    pub(super) fn may_fall_back(&self, request: &Request) -> bool {
        let Some(page) = self.first(request).filter(|it| it.kind == Kind::Page) else {
            return false;
        };
        let is_since = |it: &GradualPromotion| {
            it.service == request.service && it.until >= page.began && it.from <= request.ended
        };
        let is_flipped = |(flip, _): (&Flip, Color)| {
            flip.acknowledged >= page.began && flip.called <= request.ended
        };
        self.flips_of(request).any(is_flipped) || self.history.gradual.iter().any(is_since)
    }
}
