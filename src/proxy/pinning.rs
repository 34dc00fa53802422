//! Version pinning: which transaction a request belongs to, and the pin that a new one gets.
//!
//! What a browser says of a request: Fetch Metadata (`Sec-Fetch-*`, `Sec-Purpose`).

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    continued::{Cacheable, NewCookies, SteeredRequest, is_prefetch, only_value, put_cookie},
    cookies,
};
use crate::{
    continuity::{Begin, Carried, Pin, PinCarrier, PinStart, ServicePins},
    http1::{FieldLines, FieldName},
    model::{Color, Generation},
};

/// How a request relates to transactions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Start {
    /// It begins a new one.
    Always,
    /// It begins one if it belongs to none.
    IfNone,
    /// It begins none.
    Never,
}

/// The longest name of a transaction. Longer ones are ignored.
const NAME_MAX: usize = 256;

/// The color of the transaction that the request belongs to.
pub(super) fn pinned(
    pins: &ServicePins,
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> Option<Color> {
    let carried = carried(pins, request, lines);
    if pins.settings().max_share < 100 {
        pins.activity().count_request();
    }
    pins.follow(carried?, request.now)
}

/// Begins a transaction on the active color, or on a candidate. Returns the cookie that carries it, if a cookie does.
pub(super) fn begin(
    pins: &ServicePins,
    (generation, on_candidate, has_other): (Generation, bool, bool),
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> Option<NewCookies> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let order = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
    let begin = Begin { generation, order, on_candidate };
    match carried_name(pins, request, lines) {
        Some(Carried::Member(key)) => {
            pins.begin(key, begin, request.now);
            None
        }
        Some(Carried::Pin(_)) => None,
        None if pins.settings().carrier == PinCarrier::Cookie => {
            let text = pins.sign(begin, fastrand::u64(..))?;
            let mut lines = Vec::with_capacity(160);
            let domain = pins.settings().domain.as_deref();
            put_cookie(&mut lines, (pins.cookie(), &text), domain, request.is_secure);
            // The page must not go on with a pin to another version.
            let cacheable = match pins.settings().makes_private || has_other {
                true => Cacheable::Private,
                false => Cacheable::Skip,
            };
            Some(NewCookies { lines, cacheable })
        }
        None => None,
    }
}

/// What the request carries, if it is readable.
fn carried(
    pins: &ServicePins,
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> Option<Carried> {
    if pins.settings().carrier != PinCarrier::Cookie {
        return carried_name(pins, request, lines);
    }
    if !request.own_cookies.exist() {
        return None;
    }
    let name = pins.cookie().as_bytes();
    let mut newest = None;
    for line in lines.all(FieldName::Cookie) {
        for pin in cookies::values(line, name).filter_map(|it| pins.read(it, request.last_pin)) {
            // Of cookies with several domains: that of the last navigation.
            let order = |it: &Pin| (it.begin.order, it.begin.generation);
            newest = newest.filter(|it| order(it) > order(&pin)).or(Some(pin));
        }
    }
    newest.map(Carried::Pin)
}

/// The name of its transaction, if the client gives one.
fn carried_name(
    pins: &ServicePins,
    request: &SteeredRequest<'_>,
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

/// The value of a parameter of a query, as it is written, if it occurs once.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = |it: &'a [u8]| it.strip_prefix(name)?.strip_prefix(b"=");
    let mut values = query.split(|it| *it == b'&').filter_map(value);
    let found = values.next()?;
    values.next().is_none().then_some(found)
}

/// Whether the request begins a transaction.
pub(super) fn start(
    pins: &ServicePins,
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> Start {
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
fn is_navigation(request: &SteeredRequest<'_>, lines: FieldLines<'_>) -> bool {
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
