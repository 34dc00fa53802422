//! Checks gradual promotions: clients that have got the candidate keep it, and the candidate has its share of the clients.
//!
//! A client draws its share once, when it has no cookie yet. So the new clients of a step are independent draws, and their
//! number on the candidate is binomial. By the Chernoff bound, the probability of `k` of `n` draws, or of a number that
//! is further from the share on the same side, is at most `exp(-n D(k/n, p))`, where `D` is the relative entropy. A
//! share is wrong if that is less than 1e-9.

use std::collections::HashMap;

use super::{
    super::record::{GradualPromotion, Kind, Request, ShareStep},
    Promise,
    checker::{Checker, FindingBuilder},
};

/// The natural logarithm of 1e-9.
const CHANCE: f64 = -20.723;

impl Checker<'_> {
    pub(super) fn check_gradual_promotions(&mut self) {
        let mut sticky = FindingBuilder::new(Promise::Sticky);
        for promotion in &self.history.gradual {
            self.check_clients(promotion, &mut sticky);
            for step in &promotion.steps {
                self.check_share(promotion, *step, &mut sticky);
            }
        }
        if self.history.gradual.is_empty() {
            sticky = sticky.unchecked("no step was gradual");
        }
        self.push_finding(sticky);
    }

    /// No client that has got the candidate gets the other color.
    fn check_clients(&self, promotion: &GradualPromotion, sticky: &mut FindingBuilder) {
        // The first request of each client with a response of the candidate.
        let mut moved: HashMap<u64, &Request> = HashMap::new();
        // The requests of one client are in order. An asset may come from the color of its page.
        let of_clients =
            self.history.requests.iter().filter(|it| {
                it.client != 0 && it.head != 0 && !it.is_asset() && promotion.covers(it)
            });
        for request in of_clients {
            let Some(color) = request.color else { continue };
            let Some(first) = moved.get(&request.client) else {
                // A transaction from before may still be pinned to the color.
                if color == promotion.color && !request.goes_on() {
                    moved.insert(request.client, request);
                }
                continue;
            };
            sticky.finding.checked += 1;
            if color == promotion.color {
                continue;
            }
            if self.excuses.may_have_lost_its_color(request, first.began, promotion.color) {
                sticky.finding.excused += 1;
                continue;
            }
            let text = format!(
                "{color} answered {}, begun at {}, although its client had got {} with request {}",
                self.request_name(request),
                self.format_time(request.began),
                promotion.color,
                first.id,
            );
            sticky.break_at(request.head, text);
        }
    }

    /// The candidate gets its share of the new clients of a step.
    fn check_share(
        &self,
        promotion: &GradualPromotion,
        step: ShareStep,
        sticky: &mut FindingBuilder,
    ) {
        let draws = self.history.requests.iter().filter(|it| {
            it.service == promotion.service
                && draws_share(it)
                && (it.began >= step.from && it.routed() <= step.until)
        });
        let (mut of_candidate, mut all) = (0_u32, 0_u32);
        for color in draws.filter_map(|it| it.color) {
            all += 1;
            of_candidate += u32::from(color == promotion.color);
        }
        if all == 0 {
            return;
        }
        sticky.finding.checked += 1;
        if log_probability(of_candidate, all, f64::from(step.percent) / 100.0) >= CHANCE {
            return;
        }
        let time = (step.from, step.until);
        if self.excuses.may_have_no_endpoint(promotion.service, promotion.color, time) {
            sticky.finding.excused += 1;
            return;
        }
        let text = format!(
            "{of_candidate} of {all} new clients of {} got {} while its share was {} %",
            self.history.services[usize::from(promotion.service)],
            promotion.color,
            step.percent,
        );
        sticky.break_at(step.until, text);
    }
}

/// Whether a request is the first one of its client, and may be given a cookie.
fn draws_share(request: &Request) -> bool {
    let is_first = match request.client {
        0 => !request.goes_on(),
        first => first == request.id,
    };
    is_first
        && request.head != 0
        && (request.kind.keeps_cookies() || matches!(request.kind, Kind::Short | Kind::Pair))
}

/// The natural logarithm of the bound, for `count` of `all` draws at a probability of `share` each.
fn log_probability(count: u32, all: u32, share: f64) -> f64 {
    let (all, found) = (f64::from(all), f64::from(count) / f64::from(all));
    let term = |found: f64, share: f64| match found {
        0.0 => 0.0,
        _ => found * (found / share).ln(),
    };
    -all * (term(found, share) + term(1.0 - found, 1.0 - share))
}
