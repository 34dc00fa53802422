//! What decides where a request of a service goes that has pins or a gradual promotion, and the decision.

use std::{net::IpAddr, time::Instant};

use super::cookies::OwnCookies;
use crate::{
    continuity::LastPin,
    http1::{FieldLines, FieldName, RequestHead},
    model::{Color, Generation},
    switch::Visit,
};

/// What the decision needs of a request.
pub(super) struct SteeredRequest<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    /// The normalized path.
    pub(super) path: &'a str,
    pub(super) client: Option<IpAddr>,
    /// Whether the client uses `https`.
    pub(super) is_secure: bool,
    /// Whether the client is internal.
    pub(super) is_internal: bool,
    /// Whether the request is for the version signal: it begins nothing, and pins have no effect on it.
    pub(super) is_signal: bool,
    /// Whether the request has cookies of Flipgate.
    pub(super) own_cookies: OwnCookies,
    /// The last pin of the connection.
    pub(super) last_pin: &'a LastPin,
    pub(super) now: Instant,
}

/// The sides that a request may get.
pub(super) struct Sides<F> {
    pub(super) generation: Generation,
    pub(super) active: Color,
    /// Whether a color has an endpoint that is up.
    pub(super) is_up: F,
}

/// Where a request goes, and the cookies that its response may set.
pub(super) struct Continued {
    pub(super) visit: Visit,
    pub(super) cookies: Option<Box<NewCookies>>,
}

/// Cookies that keep a client on a version. Only for a response that no shared cache may keep.
#[derive(Debug)]
pub(super) struct NewCookies {
    /// The header lines. None, if the client has its cookies already and the response must only be kept from caches.
    pub(super) lines: Vec<u8>,
    /// What happens to a response that a shared cache may keep.
    pub(super) cacheable: Cacheable,
}

/// What happens to a response that a shared cache may keep, and that could set a cookie.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Cacheable {
    /// It sets no cookie.
    Skip,
    /// It is made private, unless the application says how long a cache may keep it.
    PrivateIfUnstated,
    /// It is made private: the client must not go on without the cookie.
    Private,
}

/// Writes a cookie for the whole origin that scripts cannot read.
pub(super) fn put_cookie(
    out: &mut Vec<u8>,
    (name, value): (&str, &str),
    domain: Option<&str>,
    is_secure: bool,
) {
    for part in ["Set-Cookie: ", name, "=", value, "; Path=/"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(domain) = domain {
        out.extend_from_slice(b"; Domain=");
        out.extend_from_slice(domain.as_bytes());
    }
    out.extend_from_slice(match is_secure {
        true => b"; HttpOnly; Secure; SameSite=Lax\r\n",
        false => b"; HttpOnly; SameSite=Lax\r\n",
    });
}

/// The value of a header field that occurs once.
pub(super) fn only_value<'a>(lines: FieldLines<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = lines.each().filter(|(_, it, _)| it.eq_ignore_ascii_case(name.as_bytes()));
    let (_, _, value) = values.next()?;
    values.next().is_none().then_some(value)
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

pub(super) fn is_prefetch(value: &[u8]) -> bool {
    // `prefetch`, or `prefetch;prerender`.
    value.get(..8).is_some_and(|it| it.eq_ignore_ascii_case(b"prefetch"))
}

// === impl Continued ===

impl Continued {
    /// The active color, and no cookie.
    pub(super) const ACTIVE: Self = Self { visit: Visit::Active, cookies: None };

    /// The color that the request gets, of a service with this active color.
    pub(super) fn color(&self, active: Color) -> Color {
        match self.visit {
            Visit::Active => active,
            Visit::Preview(color) | Visit::Pinned(color) | Visit::Shared(color) => color,
        }
    }

    pub(super) fn add(&mut self, new: NewCookies) {
        match &mut self.cookies {
            Some(known) => {
                known.lines.extend_from_slice(&new.lines);
                known.cacheable = known.cacheable.max(new.cacheable);
            }
            None => self.cookies = Some(Box::new(new)),
        }
    }
}
