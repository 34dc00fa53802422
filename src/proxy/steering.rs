//! Where a request goes that would get the active color: by its pin, or by the share of its client.
//!
//! Part of the admission of a request: it decides with the terms of the same generation that decides the active color.

use std::sync::Arc;

use super::{
    continued::{Continued, Sides, SteeredRequest},
    pinning::{Start, begin, pinned, start},
    shares,
};
use crate::{
    continuity::{Continuity, Share},
    model::Color,
    switch::Visit,
};

/// Decides about a request that would get the active color.
#[inline(never)]
pub(super) fn decide(
    terms: &Continuity,
    sides: &Sides<impl Fn(Color) -> bool>,
    request: &SteeredRequest<'_>,
) -> Continued {
    let lines = request.head.fields.lines(request.bytes);
    let pins = terms.pins.as_ref().filter(|_| !request.is_signal);
    let (start, pinned) = pins
        .map_or((Start::Never, None), |it| (start(it, request, lines), pinned(it, request, lines)));
    // A pin to a color without an endpoint that is up is void.
    let active = sides.active;
    let pinned = pinned.filter(|it| *it == active || start == Start::Always || (sides.is_up)(*it));
    // Before the public has seen the candidate, a transaction on it is one of those who go first. Others may know its name.
    let is_foreign = pinned.is_some_and(|color| {
        let is_candidate = |it: &&Arc<Share>| it.color == color && !terms.was_served(color);
        let share = terms.share.as_ref().filter(is_candidate);
        share.is_some_and(|it| !shares::goes_first(it, request, lines))
    });
    let (start, pinned) = match is_foreign {
        // It goes on for those who have begun it.
        true if start == Start::IfNone => (Start::Never, None),
        true => (start, None),
        false => (start, pinned),
    };
    if let Some(color) = pinned.filter(|_| start != Start::Always) {
        let is_candidate = terms.share.as_ref().is_some_and(|it| it.color == color);
        return match color == active {
            true => Continued::ACTIVE,
            false if is_candidate => shares::moved(color, request),
            false => Continued { visit: Visit::Pinned(color), cookies: None },
        };
    }
    let mut continued = match &terms.share {
        Some(share) => shares::choose(share, sides, request, lines),
        None => Continued::ACTIVE,
    };
    if let Some(pins) = pins.filter(|_| start != Start::Never) {
        let color = continued.color(active);
        let has_other = pinned.is_some_and(|it| it != color);
        let on_candidate = color != active;
        // A pin to a candidate is one of its gradual promotion: other services of a group may be at another one.
        let share = terms.share.as_ref().filter(|_| on_candidate);
        let generation = share.map_or(sides.generation, |it| it.from);
        let begun = (generation, on_candidate, has_other);
        if let Some(cookie) = begin(pins, begun, request, lines) {
            continued.add(cookie);
        }
    }
    continued
}
