//! Checks transactions: one version answers all of their requests, and a page gets all of its assets.
//!
//! The first request of a transaction is routed like any other. The others may get its color for as long as pins last,
//! and assets of its page for ever. Only these, and only with that color, are exempt from the other promises.

use std::collections::HashMap;

use super::{
    super::record::{Flip, FlipOutcome, History, Kind, Request},
    Promise,
    checker::{Checker, FindingBuilder},
    drains::CLOCK,
};
use crate::color::Color;

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
    fn first(&self, request: &Request) -> Option<&'a Request> {
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
    fn are_pins_over(&self, request: &Request, color: Color) -> bool {
        let Some(age) = self.history.pin_age else { return false };
        let change = |flip: &'a Flip| {
            let own = flip.changes.iter().find(|it| it.0 == request.service)?;
            (flip.outcome != FlipOutcome::Refused).then_some((flip, own.1))
        };
        let before = self.history.flips.iter().filter_map(change);
        let last = before.take_while(|(flip, _)| flip.called <= request.routed()).last();
        last.is_some_and(|(flip, to)| {
            let end = flip.acknowledged.saturating_add(age).saturating_add(CLOCK);
            to != color && flip.outcome == FlipOutcome::Acknowledged && request.began > end
        })
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

impl Checker<'_> {
    /// Checks the calls of scans, and the assets of pages.
    pub(super) fn check_transactions(&mut self) {
        let [mut pinned, mut whole_page] =
            [Promise::Pinned, Promise::WholePage].map(FindingBuilder::new);
        let transactions = Transactions::of(self.history);
        for request in &self.history.requests {
            let Some(first) = transactions.first(request) else { continue };
            let Some(color) = first.color else { continue };
            let builder = match request.kind {
                Kind::Page => &mut whole_page,
                _ => &mut pinned,
            };
            let is_missing = request.is_missing_asset();
            if request.color.is_none() && !is_missing {
                // There is no response of an application: checked as `answered`.
                continue;
            }
            if request.kind == Kind::Scan && transactions.are_pins_over(request, color) {
                // It is a request like any other: checked as `register`.
                continue;
            }
            builder.finding.checked += 1;
            if request.color == Some(color) && !is_missing {
                continue;
            }
            if self.excuses.may_have_lost_its_color(request, color) {
                builder.finding.excused += 1;
                continue;
            }
            let what = match is_missing {
                true => format!("{} has no such asset", found(request)),
                false => format!("{} answered", found(request)),
            };
            let text = format!(
                "{}, begun at {}, belongs to a transaction that began on {color} with request {}, but {what}",
                self.request_name(request),
                self.format_time(request.began),
                request.transaction,
            );
            builder.break_at(request.ended, text);
        }
        for builder in [pinned, whole_page] {
            let builder = match builder.finding.promise {
                _ if builder.finding.checked > 0 => builder,
                Promise::Pinned => builder.unchecked("the mix has no scan"),
                _ => builder.unchecked("the mix has no page"),
            };
            self.push_finding(builder);
        }
    }

    /// Whether a flip took the color of a stream away while it was open, so that the proxy may have it move.
    pub(super) fn may_move(&self, request: &Request) -> bool {
        let Some(color) = request.color else { return false };
        self.history.flips.iter().filter(|it| it.outcome != FlipOutcome::Refused).any(|flip| {
            flip.changes.contains(&(request.service, color.other()))
                && flip.called <= request.moved
                && flip.acknowledged >= request.began
        })
    }
}

fn found(request: &Request) -> &'static str {
    request.color.map_or("the proxy", Color::as_str)
}
