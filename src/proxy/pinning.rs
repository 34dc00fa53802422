//! Version pinning: which transaction a request belongs to, and the pin that a new one gets.
//!
//! Part of the admission of a request: it decides with the terms of the same generation that decides the active color.
//! What a browser says of a request: Fetch Metadata (`Sec-Fetch-*`, `Sec-Purpose`).

use std::{
    net::IpAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::cookies;
use crate::{
    continuity::{Begin, Carried, Pin, PinCarrier, PinStart, ServicePins},
    http1::{FieldLines, FieldName, RequestHead},
    model::{Color, Generation},
    switch::Visit,
};

/// What the decision needs of a request.
pub(super) struct PinRequest<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    /// The normalized path.
    pub(super) path: &'a str,
    pub(super) client: Option<IpAddr>,
    /// Whether the client uses `https`.
    pub(super) is_secure: bool,
    pub(super) now: Instant,
}

/// Where a request goes, and the cookie that its response may set.
pub(super) struct PinDecision {
    pub(super) visit: Visit,
    pub(super) cookie: Option<Box<PinCookie>>,
}

/// A cookie that pins a transaction. Only for a response that no shared cache may keep.
#[derive(Debug)]
pub(super) struct PinCookie {
    /// The header line.
    pub(super) line: Vec<u8>,
    /// Whether a response that a shared cache may keep is made private: by the settings, or because the client has a pin
    /// to another version, which the page must not go on with.
    pub(super) makes_private: bool,
}

/// How a request relates to transactions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Start {
    /// It begins a new one.
    Always,
    /// It begins one if it belongs to none.
    IfNone,
    /// It begins none.
    Never,
}

/// The longest name of a transaction. Longer ones are ignored.
const NAME_MAX: usize = 256;

/// Decides about a request that would get the active color. `is_up` says whether a color has an endpoint that is up.
#[inline(never)]
pub(super) fn decide(
    pins: &ServicePins,
    generation: Generation,
    active: Color,
    is_up: impl FnOnce(Color) -> bool,
    request: &PinRequest<'_>,
) -> PinDecision {
    let lines = request.head.fields.lines(request.bytes);
    let start = start(pins, request, lines);
    let carried = carried(pins, request, lines);
    if pins.settings().max_share < 100 {
        pins.activity().count_request();
    }
    let found = carried.and_then(|it| pins.follow(it, request.now));
    // A pin to a color without an endpoint that is up is void.
    let pinned = found.filter(|it| *it == active || start == Start::Always || is_up(*it));
    match (start, pinned) {
        (Start::Never | Start::IfNone, Some(color)) if color == active => PinDecision::ACTIVE,
        (Start::Never | Start::IfNone, Some(color)) => {
            PinDecision { visit: Visit::Pinned(color), cookie: None }
        }
        (Start::Never, None) => PinDecision::ACTIVE,
        (Start::Always, _) | (Start::IfNone, None) => {
            let has_other = pinned.is_some_and(|it| it != active);
            PinDecision {
                visit: Visit::Active,
                cookie: begin(pins, generation, has_other, request, lines),
            }
        }
    }
}

/// Begins a transaction on the active color. Returns the cookie that carries it, if a cookie does.
fn begin(
    pins: &ServicePins,
    generation: Generation,
    has_other: bool,
    request: &PinRequest<'_>,
    lines: FieldLines<'_>,
) -> Option<Box<PinCookie>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let order = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    let begin = Begin { generation, order };
    match carried_name(pins, request, lines) {
        Some(Carried::Member(key)) => {
            pins.begin(key, begin, request.now);
            None
        }
        Some(Carried::Pin(_)) => None,
        None if pins.settings().carrier == PinCarrier::Cookie => {
            let text = pins.sign(begin, fastrand::u64(..))?;
            let makes_private = pins.settings().makes_private || has_other;
            Some(Box::new(PinCookie { line: cookie_line(pins, &text, request), makes_private }))
        }
        None => None,
    }
}

fn cookie_line(pins: &ServicePins, text: &str, request: &PinRequest<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(160);
    for part in ["Set-Cookie: ", pins.cookie(), "=", text, "; Path=/"] {
        line.extend_from_slice(part.as_bytes());
    }
    if let Some(domain) = &pins.settings().domain {
        line.extend_from_slice(b"; Domain=");
        line.extend_from_slice(domain.as_bytes());
    }
    line.extend_from_slice(match request.is_secure {
        true => b"; HttpOnly; Secure; SameSite=Lax\r\n",
        false => b"; HttpOnly; SameSite=Lax\r\n",
    });
    line
}

/// What the request carries, if it is readable.
fn carried(pins: &ServicePins, request: &PinRequest<'_>, lines: FieldLines<'_>) -> Option<Carried> {
    if pins.settings().carrier != PinCarrier::Cookie {
        return carried_name(pins, request, lines);
    }
    let name = pins.cookie().as_bytes();
    let mut newest = None;
    for line in lines.all(FieldName::Cookie) {
        for pin in cookies::values(line, name).filter_map(|it| pins.read(it)) {
            // Of cookies with several domains: that of the last navigation.
            let order = |it: &Pin| (it.order, it.generation);
            newest = newest.filter(|it| order(it) > order(&pin)).or(Some(pin));
        }
    }
    newest.map(Carried::Pin)
}

/// The name of its transaction, if the client gives one.
fn carried_name(
    pins: &ServicePins,
    request: &PinRequest<'_>,
    lines: FieldLines<'_>,
) -> Option<Carried> {
    let name = match &pins.settings().carrier {
        PinCarrier::Cookie => return None,
        PinCarrier::Header(name) => only_value(lines, name)?,
        PinCarrier::Query(name) => {
            let target = request.head.target(request.bytes);
            parameter(&target[memchr::memchr(b'?', target)? + 1..], name.as_bytes())?
        }
    };
    let mut network = [0; 16];
    match request.client {
        Some(IpAddr::V4(it)) => network[..4].copy_from_slice(&it.octets()),
        // The network that one customer has: RFC 6177.
        Some(IpAddr::V6(it)) => network[..6].copy_from_slice(&it.octets()[..6]),
        None => {}
    }
    (!name.is_empty() && name.len() <= NAME_MAX)
        .then(|| Carried::Member(pins.activity().members().key(name, &network)))
}

/// The value of a header field that occurs once.
fn only_value<'a>(lines: FieldLines<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = lines.each().filter(|(_, it, _)| it.eq_ignore_ascii_case(name.as_bytes()));
    let (_, _, value) = values.next()?;
    values.next().is_none().then_some(value)
}

/// The value of a parameter of a query, as it is written, if it occurs once.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = |it: &'a [u8]| it.strip_prefix(name)?.strip_prefix(b"=");
    let mut values = query.split(|it| *it == b'&').filter_map(value);
    let found = values.next()?;
    values.next().is_none().then_some(found)
}

/// Whether a trusted proxy says that the client uses `https`.
pub(super) fn is_https(lines: FieldLines<'_>) -> bool {
    let first =
        |it: &[u8]| it.split(|it| *it == b',').next().map(<[u8]>::trim_ascii).map(<[u8]>::to_vec);
    let scheme = lines.first(FieldName::XForwardedProto).and_then(first);
    if let Some(scheme) = scheme {
        return scheme.eq_ignore_ascii_case(b"https");
    }
    let wanted = b"proto=https";
    let is_it = |it: &[u8]| it.windows(wanted.len()).any(|it| it.eq_ignore_ascii_case(wanted));
    lines.first(FieldName::Forwarded).is_some_and(is_it)
}

/// Whether the request begins a transaction.
fn start(pins: &ServicePins, request: &PinRequest<'_>, lines: FieldLines<'_>) -> Start {
    let mut found = Start::Never;
    for start in &pins.settings().start {
        match start {
            PinStart::Document if is_navigation(request, lines) => return Start::Always,
            PinStart::Path(prefix) if prefix.covers(request.path) => found = Start::IfNone,
            PinStart::Header { name, value } => {
                let given = only_value(lines, name);
                let is_it = |it: &[u8]| value.as_ref().is_none_or(|pattern| pattern.matches(it));
                if given.is_some_and(is_it) {
                    found = Start::IfNone;
                }
            }
            PinStart::Document | PinStart::Path(_) => {}
        }
    }
    found
}

/// Whether a browser loads a page, into a window or a frame, and not ahead of time.
fn is_navigation(request: &PinRequest<'_>, lines: FieldLines<'_>) -> bool {
    let is_it = match lines.first(FieldName::FetchDest) {
        Some(b"document" | b"iframe" | b"frame") => true,
        // A service worker that forwards a navigation.
        Some(b"empty") => lines.first(FieldName::FetchMode) == Some(b"navigate"),
        Some(_) => false,
        // Plain HTTP, and old browsers.
        None => {
            request.head.method(request.bytes) == b"GET"
                && lines.all(FieldName::Accept).any(has_html)
        }
    };
    is_it && !lines.all(FieldName::Purpose).any(is_prefetch)
}

fn has_html(value: &[u8]) -> bool {
    let wanted = b"text/html";
    value.windows(wanted.len()).any(|it| it.eq_ignore_ascii_case(wanted))
}

fn is_prefetch(value: &[u8]) -> bool {
    // `prefetch`, or `prefetch;prerender`.
    value.get(..8).is_some_and(|it| it.eq_ignore_ascii_case(b"prefetch"))
}

// === impl PinDecision ===

impl PinDecision {
    /// The active color, and no cookie.
    pub(super) const ACTIVE: Self = Self { visit: Visit::Active, cookie: None };
}
