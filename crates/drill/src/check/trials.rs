//! The checks of `gated` and `guarded`: what the proxy did with a color that failed on purpose.

use super::{
    super::record::{FlipOutcome, Kind, Outcome, Request, Trial, TrialKind, TrialResult},
    Promise,
    checker::{Checker, FindingBuilder},
};
use crate::color::Color;

impl Checker<'_> {
    /// Checks the promotions of bad colors, and the rollbacks of colors that turned bad.
    pub(super) fn check_trials(&mut self) {
        let [mut gated, mut guarded] = [Promise::Gated, Promise::Guarded].map(FindingBuilder::new);
        for trial in &self.history.trials {
            match trial.kind {
                TrialKind::Refuse => self.check_refusal(trial, &mut gated),
                TrialKind::Guard => self.check_guard(trial, &mut guarded),
            }
        }
        for builder in [gated, guarded] {
            let is_tested = builder.finding.checked > 0 || builder.finding.broken > 0;
            let why = "no step of the script tests it";
            self.push_finding(if is_tested { builder } else { builder.unchecked(why) });
        }
    }

    /// The promotion was refused, and no public request that began later was answered by the color, until a later flip
    /// made it active.
    fn check_refusal(&self, trial: &Trial, gated: &mut FindingBuilder) {
        let Trial { service, color, from, result, .. } = *trial;
        let name = &self.history.services[usize::from(service)];
        gated.finding.checked += 1;
        if result == TrialResult::Missed {
            let text = format!(
                "{name} {color} fails every request, and its promotion at {} was made",
                self.format_time(from)
            );
            return gated.break_at(from, text);
        }
        let until = self.next_flip_to(service, color, from);
        let public = self.history.requests.iter().filter(|it| {
            it.service == service
                && it.kind != Kind::Preview
                && it.head != 0
                && (from..until).contains(&it.began)
        });
        for request in public {
            gated.finding.checked += 1;
            // Requests that began before the next flip may be answered behind it.
            if request.color == Some(color) && request.routed() < until {
                let text = format!(
                    "{color} answered {}, although its promotion at {} was refused",
                    self.request_name(request),
                    self.format_time(from)
                );
                gated.break_at(request.head, text);
            }
        }
    }

    fn check_guard(&self, trial: &Trial, guarded: &mut FindingBuilder) {
        let Trial { service, color, from, until, result, .. } = *trial;
        guarded.finding.checked += 1;
        let is_cost = |it: &&Request| {
            it.outcome != Outcome::Complete
                && it.outcome != Outcome::NotSent
                && it.service == service
                && it.kind != Kind::Preview
                && it.color == Some(color)
                && (from..=until).contains(&it.head)
        };
        guarded.finding.cost += self.history.requests.iter().filter(is_cost).count() as u64;
        match result {
            TrialResult::Done => {
                guarded.finding.max_delay = guarded.finding.max_delay.max(until - from);
            }
            TrialResult::Missed => {
                let name = &self.history.services[usize::from(service)];
                let text = format!(
                    "{name} {color} turned bad at {} and was not rolled back within a minute",
                    self.format_time(from)
                );
                guarded.break_at(until, text);
            }
        }
    }

    /// When a flip to a color was called first since a time.
    fn next_flip_to(&self, service: u8, color: Color, from: u64) -> u64 {
        let flips = self.history.flips.iter().filter(|it| {
            it.outcome != FlipOutcome::Refused
                && it.called >= from
                && it.changes.contains(&(service, color))
        });
        flips.map(|it| it.called).min().unwrap_or(u64::MAX)
    }
}
