//! Checks transactions: one version answers all of their requests, and a page gets all of its assets.

use std::collections::HashMap;

use super::{
    super::record::{FlipOutcome, Kind, Request},
    Promise,
    checker::{Checker, FindingBuilder},
};
use crate::color::Color;

impl Checker<'_> {
    /// Checks the calls of scans, and the assets of pages.
    pub(super) fn check_transactions(&mut self) {
        let [mut pinned, mut whole_page] =
            [Promise::Pinned, Promise::WholePage].map(FindingBuilder::new);
        let first: HashMap<u64, Request> = (self.history.requests.iter())
            .filter(|it| it.transaction != 0 && it.transaction == it.id)
            .map(|it| (it.id, *it))
            .collect();
        for request in self.history.requests.iter().filter(|it| it.goes_on()) {
            let Some(Some(color)) = first.get(&request.transaction).map(|it| it.color) else {
                continue;
            };
            let builder = match request.kind {
                Kind::Page => &mut whole_page,
                _ => &mut pinned,
            };
            let is_missing = request.is_missing_asset();
            if request.color.is_none() && !is_missing {
                // There is no response of an application: checked as `answered`.
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

    /// Whether an asset may have been asked of both colors: a flip was made since its page began to load.
    pub(super) fn may_fall_back(&self, request: &Request) -> bool {
        let page = self.history.requests.iter().find(|it| it.id == request.transaction);
        request.is_asset()
            && page.is_some_and(|page| {
                self.history.flips.iter().any(|flip| {
                    let is_own = flip.changes.iter().any(|it| it.0 == request.service);
                    is_own && flip.acknowledged >= page.began && flip.called <= request.ended
                })
            })
    }
}

fn found(request: &Request) -> &'static str {
    request.color.map_or("the proxy", Color::as_str)
}
