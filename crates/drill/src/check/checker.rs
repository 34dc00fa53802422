//! Checks a history, one promise after the other. The checks of drains are in `drains`.

use std::{collections::HashSet, fmt};

use super::{
    super::record::{Failure, FlipOutcome, History, Kind, Outcome, Request, UnnumberedRequest},
    Finding, FlipCounts, Promise, Verdict, Violation,
    analysis::{self, Excuses},
    pins::Transactions,
    register::{self, RegisterRead, conflicts},
};
use crate::color::Color;

/// Checks every promise.
#[must_use]
pub(crate) fn check_history(history: &History) -> Verdict {
    let excuses = Excuses::of(history);
    let mut checker = Checker {
        history,
        excuses,
        findings: Vec::new(),
        violations: Vec::new(),
        excused: HashSet::new(),
        flips: FlipCounts::default(),
        wrong_color_requests: HashSet::new(),
    };
    checker.check_responses();
    checker.check_flip_order();
    checker.check_arrivals();
    checker.check_drains();
    checker.check_flips();
    checker.check_trials();
    checker.check_transactions();
    checker.check_gradual_promotions();
    let Checker { mut findings, mut violations, excused, flips, .. } = checker;
    findings.sort_by_key(|it| it.promise);
    violations.sort_by_key(|it| it.at);
    let unsent = history.requests.iter().filter(|it| it.outcome == Outcome::NotSent).count();
    Verdict {
        findings,
        violations,
        excused,
        flips,
        not_sent: unsent as u64,
        incomplete: history.incomplete.clone(),
    }
}

pub(super) struct Checker<'a> {
    pub(super) history: &'a History,
    pub(super) excuses: Excuses<'a>,
    findings: Vec<Finding>,
    violations: Vec<Violation>,
    excused: HashSet<u64>,
    flips: FlipCounts,
    /// Requests that a color answered although it was not active. No flip has to wait for them.
    pub(super) wrong_color_requests: HashSet<u64>,
}

/// A finding that is not complete.
pub(super) struct FindingBuilder {
    pub(super) finding: Finding,
    violations: Vec<Violation>,
}

// === impl FindingBuilder ===

impl FindingBuilder {
    pub(super) fn new(promise: Promise) -> Self {
        let finding = Finding {
            promise,
            checked: 0,
            broken: 0,
            excused: 0,
            unchecked_reason: None,
            max_delay: 0,
            cost: 0,
        };
        Self { finding, violations: Vec::new() }
    }

    pub(super) fn break_at(&mut self, at: u64, text: String) {
        self.finding.broken += 1;
        self.violations.push(Violation { promise: self.finding.promise, at, text });
    }

    pub(super) fn unchecked(mut self, why: &'static str) -> Self {
        self.finding.unchecked_reason = Some(why);
        self
    }
}

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn push_finding(&mut self, mut builder: FindingBuilder) {
        let Finding { checked, broken, excused, unchecked_reason, .. } = &mut builder.finding;
        // What a kill excuses tests nothing.
        *checked = checked.saturating_sub(*excused);
        if *broken == 0 && *checked == 0 && unchecked_reason.is_none() {
            *unchecked_reason = Some("no request tests it");
        }
        self.findings.push(builder.finding);
        self.violations.extend(builder.violations);
    }

    /// Checks each request by itself.
    fn check_responses(&mut self) {
        let mut builders =
            [Promise::Answered, Promise::Whole, Promise::Kept].map(FindingBuilder::new);
        let [answered, whole, kept] = &mut builders;
        let sent = self.history.requests.iter().filter(|it| it.outcome != Outcome::NotSent);
        for request in sent {
            answered.finding.checked += 1;
            if request.head != 0 {
                let builder = if request.kind.is_long() { &mut *kept } else { &mut *whole };
                builder.finding.checked += 1;
                if matches!(request.kind, Kind::Download | Kind::Upload) {
                    whole.finding.checked += 1;
                }
            }
            if request.is_missing_asset() {
                // Checked as `whole_page`.
                continue;
            }
            if request.moved != 0 && !self.may_move(request) {
                let text = format!(
                    "{}: closed by the proxy, although no flip has replaced its color",
                    self.request_name(request)
                );
                kept.break_at(request.moved, text);
                continue;
            }
            let broken = match request.outcome {
                // Checked as `private`.
                Outcome::Complete | Outcome::WrongColor => continue,
                Outcome::Corrupted | Outcome::TrailersLost => &mut *whole,
                Outcome::ColorChanged | Outcome::EndpointChanged | Outcome::MessageCut => {
                    &mut *kept
                }
                Outcome::Truncated | Outcome::TimedOut if request.head != 0 => {
                    match request.kind.is_long() {
                        true => &mut *kept,
                        false => &mut *whole,
                    }
                }
                _ => &mut *answered,
            };
            if self.excuses.is_excused(request) {
                broken.finding.excused += 1;
                self.excused.insert(request.id);
            } else {
                broken.break_at(request.ended, self.describe_failure(request));
            }
        }
        builders.into_iter().for_each(|it| self.push_finding(it));
    }

    /// Checks that the routing table behaves as one register, for each service and for all services together.
    fn check_flip_order(&mut self) {
        let (writes, mut uncertain) = analysis::writes(&self.history.flips);
        uncertain.extend(analysis::gradual_periods(self.history));
        // If the proxy honors the preview header of a public client, the response says nothing about the flips.
        let asks_for_color =
            |it: &RegisterRead| self.history.requests[it.request].kind == Kind::RefusedPreview;
        let (previews, reads): (Vec<_>, Vec<_>) =
            analysis::reads(self.history, &uncertain).into_iter().partition(asks_for_color);
        let [mut register, mut together, mut private] =
            [Promise::Register, Promise::Together, Promise::Private].map(FindingBuilder::new);
        for request in &self.history.requests {
            if matches!(request.kind, Kind::Preview | Kind::RefusedPreview) && request.head != 0 {
                private.finding.checked += 1;
                if request.outcome == Outcome::WrongColor {
                    private.break_at(request.head, self.describe_failure(request));
                }
            }
        }
        let mut split = Vec::new();
        for service in 0..self.history.services.len() {
            let is_own = |it: &u8| usize::from(*it) == service;
            let own = |of: &[RegisterRead]| -> Vec<RegisterRead> {
                of.iter().copied().filter(|it| is_own(&it.service)).collect()
            };
            let mut of_service = writes.clone();
            of_service.iter_mut().for_each(|it| it.changes.retain(|(it, _)| is_own(it)));
            of_service.retain(|it| !it.changes.is_empty());
            for conflict in conflicts(&self.history.initial, &of_service, &own(&previews)) {
                if let register::Conflict::Stale { request, .. } = conflict {
                    self.wrong_color_requests.insert(self.history.requests[request].id);
                    let (at, text, _) = self.describe_conflict(conflict);
                    private.break_at(at, text);
                }
            }
            let own = own(&reads);
            register.finding.checked += own.len() as u64;
            for conflict in conflicts(&self.history.initial, &of_service, &own) {
                match conflict {
                    register::Conflict::Backwards { flip, .. } => split.push(flip),
                    register::Conflict::Stale { request, .. } => {
                        self.wrong_color_requests.insert(self.history.requests[request].id);
                    }
                }
                if let register::Conflict::Stale { request, since: Some(flip) } = conflict {
                    let History { requests, flips, .. } = self.history;
                    let late = requests[request].began.saturating_sub(flips[flip].acknowledged);
                    register.finding.max_delay = register.finding.max_delay.max(late);
                }
                let (at, text, is_early) = self.describe_conflict(conflict);
                let builder = if is_early { &mut private } else { &mut register };
                builder.break_at(at, text);
            }
        }
        if private.finding.checked == 0 && private.finding.broken == 0 {
            private = private.unchecked("the mix has no refused-preview and no preview");
        }
        if writes.is_empty() && register.finding.broken == 0 {
            register = register.unchecked("no flip was made");
        }
        if writes.iter().any(|it| it.changes.len() > 1) {
            together.finding.checked = reads.len() as u64;
            for conflict in conflicts(&self.history.initial, &writes, &reads) {
                // Violations of a single service are found above.
                if let register::Conflict::Backwards { flip, new, old } = conflict
                    && !split.contains(&flip)
                {
                    let (new, old) = (&self.history.requests[new], &self.history.requests[old]);
                    together.break_at(old.head, self.describe_partial_flip(flip, new, old));
                }
            }
        } else {
            together = together.unchecked("no flip was of several services");
        }
        for builder in [register, together, private] {
            self.push_finding(builder);
        }
    }

    /// The time and the text of a conflict, and whether a color answered before it was active.
    fn describe_conflict(&self, conflict: register::Conflict) -> (u64, String, bool) {
        let History { requests, flips, .. } = self.history;
        match conflict {
            register::Conflict::Stale { request, since } => {
                let request = &requests[request];
                let color = request.color.map_or("no color", Color::as_str);
                let text = match since.map(|it| &flips[it]) {
                    Some(flip) => format!(
                        "{color} answered {}, begun {} after its flip away from {color} was acknowledged (at {})",
                        self.request_name(request),
                        format_millis(request.began.saturating_sub(flip.acknowledged)),
                        self.format_time(flip.acknowledged),
                    ),
                    None => format!(
                        "{color} answered {} before it was active for the first time",
                        self.request_name(request)
                    ),
                };
                (request.head, text, since.is_none())
            }
            register::Conflict::Backwards { flip, new, old } => {
                let (new, old) = (&requests[new], &requests[old]);
                let text = format!(
                    "the flip called at {} is visible in {}, answered at {}, but not in {}, begun {} later",
                    self.format_time(flips[flip].called),
                    self.request_name(new),
                    self.format_time(new.head),
                    self.request_name(old),
                    format_millis(old.began.saturating_sub(new.head)),
                );
                (old.head, text, false)
            }
        }
    }

    fn describe_partial_flip(&self, flip: usize, new: &Request, old: &Request) -> String {
        format!(
            "a partial flip: it is visible in {}, answered at {}, but not in {}, begun {} later (called at {})",
            self.request_name(new),
            self.format_time(new.head),
            self.request_name(old),
            format_millis(old.began.saturating_sub(new.head)),
            self.format_time(self.history.flips[flip].called),
        )
    }

    /// Checks that each request reached one application once.
    fn check_arrivals(&mut self) {
        let mut once = FindingBuilder::new(Promise::Once);
        let Some(arrived) = &self.history.arrived else {
            let why = "the drill did not start the applications, so they counted no requests";
            return self.push_finding(once.unchecked(why));
        };
        let mut arrived = arrived.clone();
        arrived.sort_unstable();
        self.check_unknown_requests(&arrived, &mut once);
        let transactions = Transactions::of(self.history);
        for request in &self.history.requests {
            let owner = self.history.instances.get(&request.instance);
            if request.color.is_some() && owner.is_none() {
                // The response of an application that the drill did not start.
                continue;
            }
            once.finding.checked += 1;
            if let (Some(color), Some(owner)) = (request.color, owner)
                && *owner != (request.service, color)
            {
                let (service, color) = (&self.history.services[usize::from(owner.0)], owner.1);
                let text = format!(
                    "{} was answered by application {} of {service} {color}",
                    self.request_name(request),
                    request.instance
                );
                once.break_at(request.ended, text);
                continue;
            }
            let first = arrived.partition_point(|it| *it < request.id);
            let times = arrived[first..].partition_point(|it| *it == request.id);
            let wrong = match times {
                0 if request.color.is_some() => "never reached an application",
                0 | 1 => continue,
                _ => "reached the applications more than once",
            };
            // The color of the asset got it, and before that the one that does not have it.
            if times == 2 && transactions.may_fall_back(request) {
                continue;
            }
            if times > 1 && self.excuses.may_be_repeated(request) {
                once.finding.excused += 1;
            } else {
                once.break_at(
                    request.ended,
                    format!("{} {wrong} ({times} times)", self.request_name(request)),
                );
            }
        }
        self.push_finding(once);
    }

    fn check_flips(&mut self) {
        let mut builder = FindingBuilder::new(Promise::Acknowledged);
        for flip in &self.history.flips {
            builder.finding.checked += 1;
            if flip.outcome == FlipOutcome::Acknowledged && !flip.lost_response {
                self.flips.succeeded += 1;
                continue;
            }
            if self.excuses.is_proxy_gone(flip.called, flip.acknowledged) {
                self.flips.excused += 1;
                builder.finding.excused += 1;
            } else {
                self.flips.failed += 1;
                let error = flip.error.as_deref().unwrap_or("no reason was given");
                let text =
                    format!("the flip called at {} failed: {error}", self.format_time(flip.called));
                builder.break_at(flip.called, text);
            }
        }
        for Failure { from, until, text } in &self.history.failures {
            builder.finding.checked += 1;
            if self.excuses.is_proxy_gone(*from, *until) {
                builder.finding.excused += 1;
            } else {
                builder.break_at(*until, text.clone());
            }
        }
        if self.history.flips.is_empty() && self.history.failures.is_empty() {
            builder = builder.unchecked("no flip was made");
        }
        self.push_finding(builder);
    }

    fn describe_failure(&self, request: &Request) -> String {
        let Request { outcome, began, ended, .. } = request;
        let took = format_millis(ended.saturating_sub(*began));
        let color = request.color.map_or(String::new(), |it| format!(" of {it}"));
        format!(
            "{}, begun at {}: {outcome}{color} after {took}",
            self.request_name(request),
            self.format_time(*began)
        )
    }

    /// Finds requests that reached an application and that the drill did not send: without a number, or with another
    /// one. `arrived` is sorted.
    fn check_unknown_requests(&self, arrived: &[u64], once: &mut FindingBuilder) {
        let History { unnumbered, is_exclusive: is_alone, instances, services, .. } = self.history;
        let unnumbered = unnumbered.iter().filter(|it| it.is_traffic || *is_alone);
        for UnnumberedRequest { instance, at, .. } in unnumbered {
            let pool = instances
                .get(instance)
                .map_or("an unknown instance".to_owned(), |(service, color)| {
                    format!("{} {color}", services[usize::from(*service)])
                });
            let text = format!(
                "a request without a number reached application {instance} of {pool} at {}: the drill numbers all of its \
                 requests",
                self.format_time(*at)
            );
            once.finding.checked += 1;
            once.break_at(*at, text);
        }
        let mut own: Vec<u64> = self.history.requests.iter().map(|it| it.id).collect();
        own.sort_unstable();
        let Some(first) = own.first() else { return };
        // Requests before the load have smaller numbers.
        let of_load = arrived.partition_point(|it| it < first);
        for number in arrived[of_load..].iter().filter(|it| own.binary_search(it).is_err()) {
            let text =
                format!("request {number} reached an application, but the drill did not send it");
            once.finding.checked += 1;
            once.break_at(self.history.ended, text);
        }
    }

    pub(super) fn request_name(&self, request: &Request) -> String {
        let service = &self.history.services[usize::from(request.service)];
        format!("{service} {} {}", request.kind.name(), request.id)
    }

    pub(super) fn format_time(&self, at: u64) -> impl fmt::Display {
        format!("{:.4} s", at.saturating_sub(self.history.began) as f64 / 1e9)
    }
}

pub(super) fn format_millis(nanos: u64) -> String {
    format!("{:.3} ms", nanos as f64 / 1e6)
}
