//! Reads `X-Forwarded-*` and `Forwarded`: the address, scheme and host that the chain of proxies in front of Flipgate
//! saw.
//!
//! A proxy that writes one of the two families often forwards the other one as its client sent it. The chain is that of
//! `X-Forwarded-For`, which more proxies write, or else that of `Forwarded`. Scheme and host are those of the same
//! family. The other family fills in what is missing, unless it names another client.

use std::net::{IpAddr, SocketAddr};

use crate::{
    http1::{FieldLines, FieldName, members},
    model::{Host, Networks},
};

/// The client address that a chain of proxies gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chain {
    /// There is no chain.
    Absent,
    /// The nearest address that is not a trusted proxy; if all are trusted, the farthest.
    Address(IpAddr),
    /// A part of the chain before such an address is unreadable.
    Unreadable,
}

/// What a trusted proxy says about the client, and in which family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ForwardedInfo {
    family: ForwardedFamily,
    /// Whether the other family may fill in what is missing.
    has_both: bool,
    /// Hops between the client and the peer. A byte: each idle connection keeps one.
    hops: u8,
}

/// The family of the chain.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum ForwardedFamily {
    #[default]
    XForwarded,
    Forwarded,
}

/// The values that a trusted proxy gives for the client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ForwardedFacts {
    /// The nearest hops before the peer, beginning with the farthest; `None` for a hop without an address.
    pub(super) hops: Vec<Option<IpAddr>>,
    /// The scheme of the client, if given.
    pub(super) scheme: Option<String>,
    /// The host that the client requested, if given.
    pub(super) host: Option<String>,
}

/// One element of `Forwarded`.
#[derive(Default)]
struct ForwardedElement {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// The most hops that are read. A longer chain is unreadable.
const HOPS_MAX: usize = 64;

// === impl ForwardedInfo ===

impl ForwardedInfo {
    /// The client address, if it is unambiguous, and how to read the rest. Two families with two different clients
    /// prove nothing.
    pub(super) fn of(lines: FieldLines<'_>, trusted: &Networks) -> (Option<IpAddr>, Self) {
        let (one, one_hops) = x_chain(lines, trusted);
        let (two, two_hops) = forwarded_chain(lines, trusted);
        // At most `HOPS_MAX`.
        let hops = |it: usize| u8::try_from(it.min(HOPS_MAX)).unwrap_or(u8::MAX);
        let x_forwarded =
            |has_both| Self { family: ForwardedFamily::XForwarded, has_both, hops: hops(one_hops) };
        match (one, two) {
            (Chain::Address(it), Chain::Absent) => (Some(it), x_forwarded(false)),
            (Chain::Address(it), Chain::Address(other)) if it == other => {
                (Some(it), x_forwarded(true))
            }
            (Chain::Absent, Chain::Address(_) | Chain::Unreadable) => {
                let hops = hops(two_hops);
                let chain = Self { family: ForwardedFamily::Forwarded, has_both: true, hops };
                (two.address(), chain)
            }
            _ => (None, x_forwarded(false)),
        }
    }

    /// The values. `lines` are those that this was read from.
    pub(super) fn facts(self, lines: FieldLines<'_>) -> ForwardedFacts {
        let count = usize::from(self.hops) + 1;
        let x_forwarded = |name| {
            let values = lines.all(name).rev().flat_map(|it| members(it).rev());
            // A list has a value for each hop; a single value is for all of them.
            values.take(count).last().and_then(plain).map(str::to_owned)
        };
        let forwarded = |part: fn(ForwardedElement) -> Option<String>| {
            // The farthest element up to the client that has the value.
            elements(lines).take(count).filter_map(|it| part(it?)).last()
        };
        let is_forwarded = self.family == ForwardedFamily::Forwarded;
        let read = |name, part| match (is_forwarded, self.has_both) {
            (true, _) => (forwarded(part), x_forwarded(name)),
            (false, true) => (x_forwarded(name), forwarded(part)),
            (false, false) => (x_forwarded(name), None),
        };
        let (scheme, other_scheme) = read(FieldName::XForwardedProto, |it| it.proto);
        let (host, other_host) = read(FieldName::XForwardedHost, |it| it.host);
        let mut hops: Vec<_> = match self.family {
            ForwardedFamily::Forwarded => {
                elements(lines).take(HOPS_MAX).map(|it| address(&it?.node?)).collect()
            }
            ForwardedFamily::XForwarded => {
                let hops =
                    lines.all(FieldName::XForwardedFor).rev().flat_map(|it| members(it).rev());
                hops.take(HOPS_MAX).map(|it| address(plain(it)?)).collect()
            }
        };
        hops.reverse();
        ForwardedFacts {
            hops,
            scheme: [scheme, other_scheme].into_iter().flatten().find(|it| is_scheme(it)),
            host: [host, other_host].into_iter().flatten().find(|it| is_host(it)),
        }
    }
}

/// RFC 3986, section 3.1.
fn is_scheme(text: &str) -> bool {
    text.len() <= 16
        && text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it))
}

fn is_host(text: &str) -> bool {
    Host::parse(text).is_ok()
}

// === impl Chain ===

impl Chain {
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// Reads all lines of `X-Forwarded-For` from the right.
fn x_chain(lines: FieldLines<'_>, trusted: &Networks) -> (Chain, usize) {
    walk(lines.all(FieldName::XForwardedFor), trusted, |line| {
        line.split(',').rev().map(|it| address(it.trim())).collect()
    })
}

/// Reads all lines of `Forwarded` (RFC 7239) from the right.
fn forwarded_chain(lines: FieldLines<'_>, trusted: &Networks) -> (Chain, usize) {
    walk(lines.all(FieldName::Forwarded), trusted, |line| {
        let hop = |it| address(&element(it)?.node?);
        let mut hops: Vec<_> = split_outside_quotes(line, ',').map(hop).collect();
        hops.reverse();
        hops
    })
}

/// The elements of all lines of `Forwarded`, from the right; `None` for a malformed one.
fn elements(lines: FieldLines<'_>) -> impl Iterator<Item = Option<ForwardedElement>> {
    lines.all(FieldName::Forwarded).rev().flat_map(|line| {
        let Some(line) = plain(line) else { return vec![None] };
        let mut elements: Vec<_> = split_outside_quotes(line, ',').map(element).collect();
        elements.reverse();
        elements
    })
}

/// `hops` yields the addresses of a line from the right, `None` for one that is not an address. Returns the position of
/// the result, from the right too.
fn walk<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &Networks,
    hops: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> (Chain, usize) {
    let mut farthest = Chain::Absent;
    let mut seen = 0_usize;
    for line in lines.rev() {
        let Some(line) = plain(line) else { return (Chain::Unreadable, seen) };
        for hop in hops(line) {
            seen += 1;
            match hop {
                Some(address) if seen <= HOPS_MAX => {
                    farthest = Chain::Address(address);
                    if !trusted.contains(address) {
                        return (farthest, seen - 1);
                    }
                }
                _ => return (Chain::Unreadable, seen - 1),
            }
        }
    }
    (farthest, seen.saturating_sub(1))
}

/// Visible ASCII only: RFC 7239, section 4.
fn plain(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().filter(|it| it.is_ascii())
}

/// One element of `Forwarded`. A parameter must not occur twice, and every value must be complete: otherwise a client
/// could open a quote that swallows what the proxy adds.
fn element(text: &str) -> Option<ForwardedElement> {
    let mut found = ForwardedElement::default();
    for pair in split_outside_quotes(text, ';') {
        let (name, value) = pair.trim().split_once('=')?;
        let value = unquoted(value)?;
        if !name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
            return None;
        }
        let part = match name {
            it if it.eq_ignore_ascii_case("for") => &mut found.node,
            it if it.eq_ignore_ascii_case("proto") => &mut found.proto,
            it if it.eq_ignore_ascii_case("host") => &mut found.host,
            _ => continue,
        };
        if part.replace(value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// A token unchanged, or a quoted string without quotes and backslashes.
fn unquoted(value: &str) -> Option<String> {
    let Some(inside) = value.strip_prefix('"') else {
        let is_plain = !value.contains(['"', '\\', ',', ' ', '\t']);
        return is_plain.then(|| value.to_owned());
    };
    let inside = inside.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(it) = characters.next() {
        match it {
            '\\' => text.push(characters.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |it: char| {
        if is_escaped {
            is_escaped = false;
        } else if is_quoted && it == '\\' {
            is_escaped = true;
        } else if it == '"' {
            is_quoted = !is_quoted;
        } else {
            return !is_quoted && it == separator;
        }
        false
    })
}

/// An address with or without a port; an IPv6 address with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let found = text.parse::<IpAddr>().ok();
    let found = found.or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip())).or_else(bare);
    found.map(|it| it.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    fn trusted() -> Networks {
        ["10.0.0.0/8", "fc00::/7"].iter().map(|it| Networks::parse(it).expect("a net")).collect()
    }

    fn read(name: &'static str, lines: &[&str]) -> Chain {
        let fields: Vec<_> = lines.iter().map(|it| (name, *it)).collect();
        let (head, bytes) = samples::request(&fields);
        let lines = head.fields.lines(&bytes);
        match name {
            "forwarded" => forwarded_chain(lines, &trusted()).0,
            _ => x_chain(lines, &trusted()).0,
        }
    }

    fn is(address: &str) -> Chain {
        Chain::Address(address.parse().expect("an address"))
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        for (lines, client) in [
            (&["203.0.113.5"][..], is("203.0.113.5")),
            (&["192.168.0.1, 203.0.113.5"], is("203.0.113.5")),
            (&["192.168.0.1, 203.0.113.5, 10.0.0.2"], is("203.0.113.5")),
            (&["192.168.0.1", "203.0.113.5,10.0.0.2"], is("203.0.113.5")),
            (&["203.0.113.5:4711"], is("203.0.113.5")),
            (&["[2001:db8::1]:80"], is("2001:db8::1")),
            (&["[2001:db8::1]"], is("2001:db8::1")),
            (&["2001:db8::1"], is("2001:db8::1")),
            (&["::ffff:203.0.113.5"], is("203.0.113.5")),
            (&["10.9.9.9, 10.0.0.2"], is("10.9.9.9")),
            (&[], Chain::Absent),
        ] {
            assert_eq!(read("x-forwarded-for", lines), client, "{lines:?}");
        }
    }

    #[test]
    fn an_unreadable_hop_before_the_client_makes_the_chain_unreadable() {
        for lines in [
            &["unknown"][..],
            &[""],
            &["203.0.113.5,"],
            &["203.0.113.5, unknown, 10.0.0.1"],
            &["203.0.113.5, 10.0.0.1 10.0.0.2"],
            &["1.2.3.4.5"],
            &["010.0.0.1"],
            &["203.0.113.5\u{e9}"],
        ] {
            assert_eq!(read("x-forwarded-for", lines), Chain::Unreadable, "{lines:?}");
        }
        let long = "10.0.0.1,".repeat(HOPS_MAX) + "10.0.0.1";
        assert_eq!(read("x-forwarded-for", &[&long]), Chain::Unreadable);
        // Text to the left of the client's address is not trusted.
        assert_eq!(read("x-forwarded-for", &["<script>, 203.0.113.5"]), is("203.0.113.5"));
    }

    #[test]
    fn forwarded_gives_the_client_address_in_all_its_forms() {
        for (lines, client) in [
            (&["for=203.0.113.5"][..], is("203.0.113.5")),
            (&["For=203.0.113.5;proto=https;by=10.0.0.1"], is("203.0.113.5")),
            (&["for=192.168.0.1, for=203.0.113.5;host=\"a,b;c\", for=10.0.0.1"], is("203.0.113.5")),
            (&["for=\"[2001:db8::1]:4711\""], is("2001:db8::1")),
            (&["for=\"203.0.113.5:80\""], is("203.0.113.5")),
            (&["for=\"203.0.\\113.5\""], is("203.0.113.5")),
            (&["for=10.1.1.1", "for=10.0.0.1"], is("10.1.1.1")),
        ] {
            assert_eq!(read("forwarded", lines), client, "{lines:?}");
        }
        for lines in [
            &["for=unknown"][..],
            &["for=_hidden"],
            &["proto=https"],
            &["for=203.0.113.5;for=10.0.0.1"],
            &["for=\"203.0.113.5"],
            &["for=203.0.113.5, \"for=10.0.0.1"],
            // The client has opened a quote that encloses what the proxy adds.
            &["for=10.0.0.2;x=\", for=203.0.113.5"],
            &["for=10.0.0.2;x=h\", for=203.0.113.5"],
            &["for=10.0.0.2;x\", for=203.0.113.5"],
            &["for=10.0.0.2;x=\"\\, for=203.0.113.5;host=\"a\""],
            &["for"],
            &[""],
        ] {
            assert_eq!(read("forwarded", lines), Chain::Unreadable, "{lines:?}");
        }
    }
}
