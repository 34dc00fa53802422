//! Writes where a request came from, and its scheme and host, in both families: `X-Forwarded-*` and `Forwarded` (RFC
//! 7239). An upstream may read either, so both have the same values.

use std::{fmt::Display, io::Write, net::IpAddr};

use crate::{
    downstream::Peer,
    http1::{FieldLines, FieldName},
    proxy::{
        forwarded_chain::{ForwardedFacts, ForwardedInfo},
        peer_cache::PeerCache,
    },
};

/// Bytes of a host that are allowed in a token.
const IN_TOKEN: [bool; 256] = {
    let mut all = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let it = byte as u8;
        all[byte] = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_');
        byte += 1;
    }
    all
};

/// Writes the certificate, address, chain, scheme and host of the client. The caller ends the last line.
pub(super) fn put_forwarding(
    out: &mut Vec<u8>,
    host: &[u8],
    lines: FieldLines<'_>,
    peer: &Peer<PeerCache>,
    client: Option<IpAddr>,
    forwarded: Option<ForwardedInfo>,
) {
    // If the identity of the client is unknown, nothing is written about it.
    let peer_text: &[u8] = match peer.is_identity_unknown() {
        true => b"unknown",
        false => peer.cache().peer_text(peer.address()),
    };
    let is_v6 = peer.address().is_ipv6() && !peer.is_identity_unknown();
    let scheme: &[u8] = if peer.tls().is_some() { b"https" } else { b"http" };
    if let Some(identity) = peer.tls().and_then(|it| it.client_certificate.as_ref()) {
        out.extend_from_slice(b"X-Forwarded-Client-Cert: ");
        out.extend_from_slice(identity.element.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let has_address = put_address(out, client, forwarded, lines, peer.address(), peer_text);
    out.extend_from_slice(match has_address {
        true => b"\r\nX-Forwarded-For: ",
        false => b"X-Forwarded-For: ",
    });
    match forwarded {
        None => put_families(out, &[], (peer_text, is_v6), host, scheme),
        Some(forwarded) => {
            let ForwardedFacts { hops, scheme: forwarded_scheme, host: forwarded_host } =
                forwarded.facts(lines);
            let host = forwarded_host.as_ref().map_or(host, |it| it.as_bytes());
            let scheme = forwarded_scheme.as_ref().map_or(scheme, |it| it.as_bytes());
            put_families(out, &hops, (peer_text, is_v6), host, scheme);
        }
    }
}

/// Writes both families for the hops before the peer and the peer itself, beginning with the value of
/// `X-Forwarded-For`.
fn put_families(
    out: &mut Vec<u8>,
    hops: &[Option<IpAddr>],
    (peer, is_v6): (&[u8], bool),
    host: &[u8],
    scheme: &[u8],
) {
    for hop in hops {
        match hop {
            Some(address) => put_text(out, address),
            None => out.extend_from_slice(b"unknown"),
        }
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer);
    out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(scheme);
    // RFC 7239, section 4. The host was checked: it has no quotes and no control characters.
    let is_token = host.iter().all(|it| IN_TOKEN[usize::from(*it)]);
    let (before_host, behind_host): (&[u8], &[u8]) = match is_token {
        true => (b";host=", b";proto="),
        false => (b";host=\"", b"\";proto="),
    };
    let rest = [before_host, host, behind_host, scheme];
    out.extend_from_slice(match (hops, is_v6) {
        ([], false) => b"\r\nForwarded: for=",
        ([], true) => b"\r\nForwarded: for=\"[",
        _ => b"\r\nForwarded: ",
    });
    for (place, hop) in hops.iter().enumerate() {
        out.extend_from_slice(b"for=");
        match hop {
            Some(IpAddr::V4(address)) => put_text(out, address),
            Some(IpAddr::V6(address)) => put_text(out, format_args!("\"[{address}]\"")),
            None => out.extend_from_slice(b"unknown"),
        }
        // Some applications read the first element, others the last one: both have scheme and host.
        if place == 0 {
            rest.iter().for_each(|it| out.extend_from_slice(it));
        }
        out.extend_from_slice(b", ");
    }
    if !hops.is_empty() {
        out.extend_from_slice(if is_v6 { b"for=\"[" } else { b"for=" });
    }
    out.extend_from_slice(peer);
    if is_v6 {
        out.extend_from_slice(b"]\"");
    }
    rest.iter().for_each(|it| out.extend_from_slice(it));
}

/// Writes the verified address of the client, unless a trusted proxy has given one. Returns whether a line has to be
/// ended.
fn put_address(
    out: &mut Vec<u8>,
    client: Option<IpAddr>,
    forwarded: Option<ForwardedInfo>,
    lines: FieldLines<'_>,
    peer: IpAddr,
    peer_text: &[u8],
) -> bool {
    let Some(client) = client else { return false };
    if forwarded.is_some() && lines.has(FieldName::XRealIp) {
        return false;
    }
    out.extend_from_slice(b"X-Real-IP: ");
    match client == peer {
        true => out.extend_from_slice(peer_text),
        false => put_text(out, client),
    }
    true
}

fn put_text(out: &mut Vec<u8>, text: impl Display) {
    write!(out, "{text}").expect("writing to memory cannot fail");
}
