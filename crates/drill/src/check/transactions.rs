//! Checks transactions: one version answers all of their requests, and a page gets all of its assets.

use super::{
    super::record::{FlipOutcome, Kind, Request},
    Promise,
    checker::{Checker, FindingBuilder},
    pins::Transactions,
};
use crate::color::Color;

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
            // Without its pin, it is a request like any other: checked as `register`.
            let may_be_free = match request.color == Some(color) {
                true => transactions.are_pins_over(request, color),
                false => transactions.may_have_begun_anew(request, first, color),
            };
            if request.kind == Kind::Scan && may_be_free {
                continue;
            }
            builder.finding.checked += 1;
            if request.color == Some(color) && !is_missing {
                continue;
            }
            if self.excuses.may_have_lost_its_color(request, first.began, color) {
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
