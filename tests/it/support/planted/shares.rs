//! The gradual promotions of the planted proxy: a cookie with a number from 0 to 99, below which clients move.

use std::{sync::Arc, time::Duration};

use flipgate::model::Color;
use flipgate_api::wire::{PromoteRequest, ShareStatus};
use http::{HeaderValue, Request, header};

use super::{Fault, Proxy, pins::value_of};

/// The share of a candidate.
#[derive(Clone, Debug)]
pub(super) struct Share {
    color: Color,
    steps: Vec<u8>,
    /// The index of the current step.
    step: usize,
}

const COOKIE: &str = "planted_share";

/// What a share says about a request.
pub(super) struct Draw {
    /// The candidate, for clients that have moved.
    pub(super) color: Option<Color>,
    /// The cookie that a new client is given.
    pub(super) cookie: Option<HeaderValue>,
}

// === impl Share ===

impl Share {
    pub(super) fn draw<B>(&self, request: &Request<B>, fault: Fault) -> Draw {
        let known = value_of(request.headers(), COOKIE).and_then(|it| it.parse::<u8>().ok());
        let number = match (known, fault) {
            (Some(number), Fault::MovesOthers) => (number + 37 * self.number()) % 100,
            (None, _) | (Some(_), Fault::DrawsAgain) => fastrand::u8(..100),
            (Some(number), _) => number,
        };
        let new = format!("{COOKIE}={number}; Path=/");
        let moves = number < self.percent() && fault != Fault::MovesNone;
        Draw {
            color: moves.then_some(self.color),
            cookie: known.is_none().then(|| HeaderValue::from_str(&new).expect("digits")),
        }
    }

    fn percent(&self) -> u8 {
        self.steps[self.step]
    }

    fn number(&self) -> u8 {
        u8::try_from(self.step).expect("few steps")
    }

    pub(super) fn status(&self) -> ShareStatus {
        ShareStatus {
            color: self.color.to_string(),
            percent: self.percent(),
            steps: self.steps.clone(),
            step: u64::from(self.number()) + 1,
            until: String::new(),
            waiting: None,
            errors: 0.0,
            failures: 0,
            requests: 0,
            first_token: None,
        }
    }
}

/// Whether a request can be given a cookie.
pub(super) fn takes_cookie<B>(request: &Request<B>) -> bool {
    let is_part = request.headers().get("sec-fetch-dest").is_some_and(|it| it != "document");
    !is_part && !request.headers().contains_key(header::UPGRADE)
}

impl Proxy {
    /// Begins a gradual promotion of one service, and makes its steps.
    pub(super) fn promote_gradually(self: &Arc<Self>, request: &PromoteRequest) {
        let (name, color) = request.services.first_key_value().expect("a service");
        let service = super::NAMES.iter().position(|it| it == name).expect("a service");
        let color: Color = color.parse().expect("a color");
        let time = request.step_for.as_deref().and_then(|it| it.strip_suffix("ms"));
        let time = Duration::from_millis(time.and_then(|it| it.parse().ok()).expect("a time"));
        let share = Share { color, steps: request.steps.clone(), step: 0 };
        let last = share.steps.len() - 1;
        self.table.lock().expect("no panic inside").shares[service] = Some(share);
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            for step in 1..=last {
                tokio::time::sleep(time).await;
                let mut table = proxy.table.lock().expect("no panic inside");
                table.generation += 1;
                if step < last {
                    table.shares[service].as_mut().expect("only this ends it").step = step;
                    continue;
                }
                table.shares[service] = None;
                proxy.flips.send_replace(table.generation);
                let generation = table.generation;
                drop(table);
                proxy.set_all(&[(service, color)], generation);
            }
        });
    }
}
