//! Reading `X-Forwarded-For` and `Forwarded`: which address did the chain of proxies before us see?

use std::net::{IpAddr, SocketAddr};

use crate::{
    http1::{Lines, Name},
    model::Networks,
};

/// What a chain of forwarding proxies says of the client's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chain {
    /// Nothing.
    Absent,
    /// The address nearest to us that is not a trusted proxy's; or, where all of them are trusted,
    /// the farthest.
    Address(IpAddr),
    /// Something that cannot be read on the way to such an address.
    Unreadable,
}

/// Hops that are looked at. A longer chain is taken for unreadable.
const HOPS_MAX: usize = 64;

/// Reads `X-Forwarded-For`, from the right, over all of its lines.
pub(super) fn x_forwarded_for(lines: Lines<'_>, trusted: &Networks) -> Chain {
    walk(lines.all(Name::XForwardedFor), trusted, |line| {
        line.split(',').rev().map(|it| address(it.trim())).collect()
    })
}

/// Reads `Forwarded` (RFC 7239), from the right, over all of its lines.
pub(super) fn forwarded(lines: Lines<'_>, trusted: &Networks) -> Chain {
    walk(lines.all(Name::Forwarded), trusted, |line| {
        let mut hops: Vec<_> = split_outside_quotes(line, ',').map(element).collect();
        hops.reverse();
        hops
    })
}

/// `hops` yields a line's addresses from the right, `None` for what is none.
fn walk<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &Networks,
    hops: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Chain {
    let mut farthest = Chain::Absent;
    let mut seen = 0;
    for line in lines.rev() {
        let Some(line) = plain(line) else { return Chain::Unreadable };
        for hop in hops(line) {
            seen += 1;
            match hop {
                Some(address) if seen <= HOPS_MAX => {
                    farthest = Chain::Address(address);
                    if !trusted.contains(address) {
                        return farthest;
                    }
                }
                _ => return Chain::Unreadable,
            }
        }
    }
    farthest
}

/// Text that is plain ASCII: RFC 7239, section 4.
fn plain(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().filter(|it| it.is_ascii())
}

/// One element of `Forwarded`: its `for`, which must be there once. All other values must be whole
/// too: a client that opens a quote has what the proxy before us adds swallowed by it.
fn element(text: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_outside_quotes(text, ';') {
        let (name, value) = pair.trim().split_once('=')?;
        let value = unquoted(value)?;
        if !name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    address(&found?)
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
            "forwarded" => forwarded(lines, &trusted()),
            _ => x_forwarded_for(lines, &trusted()),
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
