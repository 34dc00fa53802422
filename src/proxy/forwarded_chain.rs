//! Reading `X-Forwarded-*` and `Forwarded`: which address, scheme and host did the chain of proxies before
//! us see?
//!
//! A proxy that writes one of the two families often passes the other on as its client sent it. The chain is
//! that of `X-Forwarded-For`, which more proxies write, or else that of `Forwarded`. Scheme and host are those
//! of the same family. The other one fills in what that leaves out, unless it names another client.

use std::net::{IpAddr, SocketAddr};

use crate::{
    http1::{FieldLines, FieldName, members},
    model::{Host, Networks},
};

/// What a chain of forwarding proxies says of the client's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chain {
    /// Nothing.
    Absent,
    /// The address nearest to us that is not a trusted proxy's; or, where all of them are trusted,
    /// the farthest.
    Address(IpAddr),
    /// Something that cannot be read on the way to such an address.
    Unreadable,
}

/// What a trusted proxy tells of the client, and by which family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ForwardedInfo {
    family: ForwardedFamily,
    /// Whether the other family may fill in what this one leaves out.
    has_both: bool,
    /// Hops between the client and the proxy that is the peer. A byte, since each idle connection keeps one.
    hops: u8,
}

/// The family that the chain is read from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum ForwardedFamily {
    #[default]
    XForwarded,
    Forwarded,
}

/// What a trusted proxy tells of the client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ForwardedFacts {
    /// The nearest hops before the peer, from the farthest; `None` for one without an address.
    pub(super) hops: Vec<Option<IpAddr>>,
    /// The client's scheme, if that is told.
    pub(super) scheme: Option<String>,
    /// The host that the client asked for, if that is told.
    pub(super) host: Option<String>,
}

/// One element of `Forwarded`.
#[derive(Default)]
struct ForwardedElement {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// Hops that are looked at. A longer chain is taken for unreadable.
const HOPS_MAX: usize = 64;

// === impl ForwardedInfo ===

impl ForwardedInfo {
    /// The client's address, if what the proxy says of it can be read in one way only, and how to read the
    /// rest. Two families that name two clients prove nothing.
    pub(super) fn of(lines: FieldLines<'_>, trusted: &Networks) -> (Option<IpAddr>, Self) {
        let (one, one_hops) = x_chain(lines, trusted);
        let (two, two_hops) = forwarded_chain(lines, trusted);
        // No more than are looked at.
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
                let told = Self { family: ForwardedFamily::Forwarded, has_both: true, hops };
                (two.address(), told)
            }
            _ => (None, x_forwarded(false)),
        }
    }

    /// What is told. `lines` are those that this was read from.
    pub(super) fn facts(self, lines: FieldLines<'_>) -> ForwardedFacts {
        let told = usize::from(self.hops) + 1;
        let x_forwarded = |name| {
            let values = lines.all(name).rev().flat_map(|it| members(it).rev());
            // A list has a value for each hop, and a single value is for all of them.
            values.take(told).last().and_then(plain).map(str::to_owned)
        };
        let forwarded = |part: fn(ForwardedElement) -> Option<String>| {
            // The farthest one up to the client's that says it.
            elements(lines).take(told).filter_map(|it| part(it?)).last()
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

/// Reads `X-Forwarded-For`, from the right, over all of its lines.
fn x_chain(lines: FieldLines<'_>, trusted: &Networks) -> (Chain, usize) {
    walk(lines.all(FieldName::XForwardedFor), trusted, |line| {
        line.split(',').rev().map(|it| address(it.trim())).collect()
    })
}

/// Reads `Forwarded` (RFC 7239), from the right, over all of its lines.
fn forwarded_chain(lines: FieldLines<'_>, trusted: &Networks) -> (Chain, usize) {
    walk(lines.all(FieldName::Forwarded), trusted, |line| {
        let hop = |it| address(&element(it)?.node?);
        let mut hops: Vec<_> = split_outside_quotes(line, ',').map(hop).collect();
        hops.reverse();
        hops
    })
}

/// The elements of `Forwarded`, from the right, over all of its lines; `None` for one that is malformed.
fn elements(lines: FieldLines<'_>) -> impl Iterator<Item = Option<ForwardedElement>> {
    lines.all(FieldName::Forwarded).rev().flat_map(|line| {
        let Some(line) = plain(line) else { return vec![None] };
        let mut elements: Vec<_> = split_outside_quotes(line, ',').map(element).collect();
        elements.reverse();
        elements
    })
}

/// `hops` yields a line's addresses from the right, `None` for what is none. Returns the place of the one
/// that was found, from the right, too.
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

/// Text that is plain ASCII: RFC 7239, section 4.
fn plain(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().filter(|it| it.is_ascii())
}

/// One element of `Forwarded`. No parameter may be there twice, and all values must be whole: a client that
/// opens a quote has what the proxy before us adds swallowed by it.
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

/// A token as it is, a quoted string without quotes and backslashes.
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
    fn what_cannot_be_read_before_the_client_is_found_is_no_answer() {
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
        // What stands to the left of the client is anybody's text.
        assert_eq!(read("x-forwarded-for", &["<script>, 203.0.113.5"]), is("203.0.113.5"));
    }

    #[test]
    fn forwarded_says_the_same_in_other_words() {
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
            // Quotes that a client has opened, so that what the proxy adds is inside of them.
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
