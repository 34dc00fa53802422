//! Transactions, and which of their requests may have a color that was replaced.
//!
//! The first request of a transaction is routed like any other. The others may get its color for as long as pins last,
//! and assets of its page for ever. Only these, and only with that color, are exempt from the other promises.

use std::collections::HashMap;

use super::super::record::{Flip, FlipOutcome, History, Kind, Request};
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
    /// and is either an asset or not later than the pins of that color.
    pub(super) fn may_keep_color(&self, request: &Request) -> bool {
        let Some(color) = self.first(request).and_then(|it| it.color) else { return false };
        request.color == Some(color)
            && (request.kind == Kind::Page || !self.are_pins_over(request, color))
    }

    /// Whether the pins to a color had certainly ended when a request began.
    pub(super) fn are_pins_over(&self, request: &Request, color: Color) -> bool {
        let Some((flip, age)) = self.end_of_pins(request, color) else { return false };
        let end = flip.acknowledged.saturating_add(age).saturating_add(CLOCK);
        flip.outcome == FlipOutcome::Acknowledged && request.began > end
    }

    /// Whether the pins to a color may have ended when a request was routed.
    pub(super) fn may_pins_be_over(&self, request: &Request, color: Color) -> bool {
        let end = self.end_of_pins(request, color);
        end.is_some_and(|(flip, age)| {
            request.routed().saturating_add(CLOCK) >= flip.called.saturating_add(age)
        })
    }

    /// The flip away from a color after which a request was routed, and the time after it in which pins end.
    fn end_of_pins(&self, request: &Request, color: Color) -> Option<(&'a Flip, u64)> {
        let age = self.history.pin_age?;
        let change = |flip: &'a Flip| {
            let own = flip.changes.iter().find(|it| it.0 == request.service)?;
            (flip.outcome != FlipOutcome::Refused).then_some((flip, own.1))
        };
        let before = self.history.flips.iter().filter_map(change);
        let last = before.take_while(|(flip, _)| flip.called <= request.routed()).last();
        last.filter(|(_, to)| *to != color).map(|(flip, _)| (flip, age))
    }

    /// Whether an asset may have been asked of both colors: a flip was made since its page began to load.
    pub(super) fn may_fall_back(&self, request: &Request) -> bool {
        let Some(page) = self.first(request).filter(|it| it.kind == Kind::Page) else {
            return false;
        };
        self.history.flips.iter().any(|flip| {
            let is_own = flip.changes.iter().any(|it| it.0 == request.service);
            is_own && flip.acknowledged >= page.began && flip.called <= request.ended
        })
    }
}
