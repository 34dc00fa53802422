//! Compares the response of the candidate with those of the active color. Pure.

use serde_json::Value;

use super::{
    answer::{Answer, BODY_MAX, Body, Normalization, Unreadable},
    copied::CopiedRequest,
};
use crate::{
    release::{
        json_pointer::{differences, is_within},
        masking::{cut, is_secret},
        requests::SendError,
    },
    upstream::ProbeResponse,
};

/// The most places of one body that are distinguished.
const PLACES_MAX: usize = 1000;

/// The most differences of one request that are described.
const DESCRIBED_MAX: usize = 3;

/// The most characters of a value in a message, and those before the place where two texts differ.
const VALUE_MAX: usize = 80;
const CONTEXT: usize = 20;

/// One response, or why there is none.
#[derive(Debug)]
pub(super) struct Reply {
    /// The address of the endpoint.
    pub(super) address: String,
    pub(super) result: Result<ProbeResponse, SendError>,
}

/// The responses to the copies of one request.
#[derive(Debug)]
pub(super) struct Replies {
    pub(super) copied: CopiedRequest,
    pub(super) candidate: Reply,
    pub(super) active: [Reply; 2],
}

/// The result of one copied request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::release) enum Outcome {
    /// The responses were compared.
    Compared {
        /// What differs between the responses of the active color, and was not judged.
        noise: Vec<Aspect>,
        /// What differs in the response of the candidate; `None` if nothing does.
        difference: Option<String>,
    },
    /// They could not be compared.
    NotCompared(Obstacle),
}

/// A part of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::release) enum Aspect {
    Headers,
    Body,
    Latency,
}

/// Why responses could not be compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::release) enum Obstacle {
    /// The active color did not respond twice.
    NoResponse,
    /// The two responses of the active color have different statuses.
    Unstable,
    /// The active color responded with 304.
    NotModified,
    /// A body has a content coding that Flipgate cannot decode.
    Coding,
    /// The body of the active color is too long.
    TooLong,
    /// Flipgate could not send or compare.
    Local,
}

// === impl Aspect ===

impl Aspect {
    pub(super) const ALL: [Self; 3] = [Self::Headers, Self::Body, Self::Latency];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Body => "parts of the body",
            Self::Latency => "latency",
        }
    }
}

// === impl Obstacle ===

impl Obstacle {
    pub(super) const ALL: [Self; 6] = [
        Self::NoResponse,
        Self::Unstable,
        Self::NotModified,
        Self::Coding,
        Self::TooLong,
        Self::Local,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoResponse => "without two responses of the active color",
            Self::Unstable => "with two different statuses of the active color",
            Self::NotModified => "with status 304",
            Self::Coding => "with a content coding other than gzip",
            Self::TooLong => "with a body of more than 1 MiB",
            Self::Local => "that Flipgate could not send or compare",
        }
    }
}

// === impl Replies ===

impl Replies {
    /// Compares them. `latency` is how much later the candidate may respond.
    pub(super) fn compare(
        &self,
        rules: &Normalization,
        latency: Option<std::time::Duration>,
    ) -> Outcome {
        let (one, two) = match [&self.active[0].result, &self.active[1].result] {
            [Ok(one), Ok(two)] => (one, two),
            [Err(error), _] | [_, Err(error)] if error.is_local() => {
                return Outcome::NotCompared(Obstacle::Local);
            }
            _ => return Outcome::NotCompared(Obstacle::NoResponse),
        };
        if one.status != two.status {
            return Outcome::NotCompared(Obstacle::Unstable);
        }
        if one.status == 304 {
            return Outcome::NotCompared(Obstacle::NotModified);
        }
        let (before, again) = match (rules.read(one), rules.read(two)) {
            (Ok(before), Ok(again)) => (before, again),
            (Err(why), _) | (_, Err(why)) => {
                return Outcome::NotCompared(match why {
                    Unreadable::TooLong => Obstacle::TooLong,
                    Unreadable::Coding | Unreadable::Broken(_) => Obstacle::Coding,
                });
            }
        };
        let candidate = match &self.candidate.result {
            Ok(response) => response,
            Err(error) if error.is_local() => return Outcome::NotCompared(Obstacle::Local),
            Err(error) => return self.differs(format!("status {}", one.status), error.to_string()),
        };
        if candidate.status != one.status {
            return self.differs(format!("status {}", one.status), candidate.status.to_string());
        }
        let answer = match rules.read(candidate) {
            Ok(answer) => answer,
            Err(Unreadable::Coding) => return Outcome::NotCompared(Obstacle::Coding),
            Err(Unreadable::TooLong) => {
                return self
                    .differs("a shorter body", format!("one of more than {BODY_MAX} bytes"));
            }
            Err(Unreadable::Broken(why)) => {
                return self.differs("a valid body", format!("one that cannot be decoded: {why}"));
            }
        };
        let mut found = Found { replies: self, noise: Vec::new(), differences: Vec::new() };
        found.compare_headers(rules, &before, &again, &answer);
        found.compare_bodies(&before.body, &again.body, &answer.body);
        if let Some(bound) = latency {
            let (slowest, fastest) = (one.took.max(two.took), one.took.min(two.took));
            if slowest - fastest > bound {
                found.noise.push(Aspect::Latency);
            } else if candidate.took > slowest + bound {
                let of =
                    |it: std::time::Duration| format!("a response after {} ms", it.as_millis());
                found.add(of(slowest), of(candidate.took));
            }
        }
        found.outcome()
    }

    /// The outcome with this as the only difference.
    fn differs(&self, active: impl Into<String>, candidate: impl Into<String>) -> Outcome {
        let mut found = Found { replies: self, noise: Vec::new(), differences: Vec::new() };
        found.add(active, candidate);
        found.outcome()
    }
}

/// What was found so far.
struct Found<'a> {
    replies: &'a Replies,
    noise: Vec<Aspect>,
    differences: Vec<String>,
}

// === impl Found ===

impl Found<'_> {
    /// Adds a difference: what the active color and what the candidate responded.
    fn add(&mut self, active: impl Into<String>, candidate: impl Into<String>) {
        let Replies { candidate: to, active: [from, _], copied } = self.replies;
        // Masked before it is cut: half of a secret must not be shown.
        let text = |it: String| copied.secrets.mask(&it);
        let (active, candidate) = (text(active.into()), text(candidate.into()));
        self.differences
            .push(format!("{active} at {}, {candidate} at {}", from.address, to.address));
    }

    fn outcome(self) -> Outcome {
        let Self { replies, noise, differences } = self;
        let more = differences.len().saturating_sub(DESCRIBED_MAX);
        let mut described = differences[..differences.len() - more].join("; ");
        if more > 0 {
            described += &format!("; and {more} more");
        }
        let difference =
            (!described.is_empty()).then(|| format!("{}: {described}", replies.copied.shown()));
        Outcome::Compared { noise, difference }
    }

    fn compare_headers(
        &mut self,
        rules: &Normalization,
        before: &Answer,
        again: &Answer,
        answer: &Answer,
    ) {
        for (place, name) in rules.headers.iter().enumerate() {
            let [before, again, answer] =
                [before, again, answer].map(|it| it.headers.get(place).cloned().flatten());
            if before != again {
                if !self.noise.contains(&Aspect::Headers) {
                    self.noise.push(Aspect::Headers);
                }
            } else if before != answer {
                let shown = |it: Option<String>| match it {
                    None => "none".to_owned(),
                    Some(_) if is_secret(name) => "***".to_owned(),
                    Some(value) => self.quoted(&value),
                };
                let (before, answer) = (shown(before), shown(answer));
                self.add(format!("header {name} {before}"), answer);
            }
        }
    }

    fn compare_bodies(&mut self, before: &Body, again: &Body, answer: &Body) {
        match (before, again, answer) {
            (Body::Json(before), Body::Json(again), answer) => {
                let noise = differences(before, again, PLACES_MAX);
                // So many places say that the whole body is different each time.
                let is_noise = noise.len() >= PLACES_MAX || noise.iter().any(String::is_empty);
                if !noise.is_empty() {
                    self.noise.push(Aspect::Body);
                }
                match answer {
                    _ if is_noise => {}
                    Body::Json(answer) => self.compare_json(before, answer, &noise),
                    _ => self.add("a JSON body", "another one"),
                }
            }
            (Body::Text(before), Body::Text(again), answer) => {
                let is_noise = before.len() != again.len();
                if before != again {
                    self.noise.push(Aspect::Body);
                }
                match answer {
                    _ if is_noise => {}
                    Body::Text(answer) if answer.len() == before.len() => {
                        self.compare_lines(before, again, answer);
                    }
                    Body::Text(answer) => {
                        let lines = |it: &[String]| format!("a body of {} lines", it.len());
                        self.add(lines(before), lines(answer));
                    }
                    Body::Json(_) => self.add("a body of text", "a JSON body"),
                    Body::Binary(_) => self.add("a body of text", "bytes that are no text"),
                }
            }
            (before, again, _) if before != again => self.noise.push(Aspect::Body),
            (before, _, answer) if before != answer => self.add("a body", "a different one"),
            _ => {}
        }
    }

    fn compare_json(&mut self, before: &Value, answer: &Value, noise: &[String]) {
        for place in differences(before, answer, 2 * PLACES_MAX) {
            if noise.iter().any(|it| is_within(&place, it)) {
                continue;
            }
            let key = place.rsplit('/').next().unwrap_or_default();
            let shown = |it: &Value| match it.pointer(&place) {
                None => "none".to_owned(),
                Some(_) if is_secret(key) => "***".to_owned(),
                Some(value) => self.shown(&value.to_string()),
            };
            let (before, answer) = (shown(before), shown(answer));
            self.add(format!("JSON value \"{place}\" {before}"), answer);
        }
    }

    fn compare_lines(&mut self, before: &[String], again: &[String], answer: &[String]) {
        let lines = before.iter().zip(again).zip(answer).enumerate();
        for (number, ((before, again), answer)) in lines {
            if before == again && before != answer {
                let same = before.chars().zip(answer.chars()).take_while(|(a, b)| a == b).count();
                let from = same.saturating_sub(CONTEXT);
                let part = |it: &str| it.chars().skip(from).collect::<String>();
                let [before, answer] = [before, answer]
                    .map(|it| self.quoted(&part(&self.replies.copied.secrets.mask(it))));
                self.add(format!("line {} {before}", number + 1), answer);
            }
        }
    }

    /// The beginning of a value, without the secrets of the request.
    fn shown(&self, value: &str) -> String {
        cut(&self.replies.copied.secrets.mask(value), VALUE_MAX)
    }

    fn quoted(&self, value: &str) -> String {
        format!("\"{}\"", self.shown(value))
    }
}

#[cfg(test)]
mod tests;
