//! Rewrites the request head of a client for the upstream.

use std::net::IpAddr;

use super::forwarding::put_forwarding;
use crate::{
    downstream::Peer,
    http1::{FieldLines, FieldName, Framing, RequestHead, TargetForm, put_field, put_number},
    proxy::{
        cookies::{self, OwnCookies},
        forwarded_chain::ForwardedInfo,
        max_forwards::hops_left,
        peer_cache::PeerCache,
    },
};

/// What the rewriting depends on besides the head.
pub(in crate::proxy) struct RequestRewrite<'a> {
    /// Whether the client waits for `100 Continue`. Otherwise `Expect` is dropped.
    pub(in crate::proxy) expects_continue: bool,
    pub(in crate::proxy) peer: &'a Peer<PeerCache>,
    /// The address of the client, if it is known.
    pub(in crate::proxy) client: Option<IpAddr>,
    /// What a trusted proxy says about the client; `None` for any other peer.
    pub(in crate::proxy) forwarded: Option<ForwardedInfo>,
    /// Whether the trace context of clients without a trusted proxy is kept.
    pub(in crate::proxy) keeps_trace: bool,
    /// Whether the request has cookies of Flipgate, which are removed.
    pub(in crate::proxy) own_cookies: OwnCookies,
    /// The line with the loop mark.
    pub(in crate::proxy) mark: &'a [u8],
}

/// The most bytes that are added, without the host, which may be written twice.
const ADDED: usize = 512;

/// Writes the request head for the upstream.
///
/// Removed: hop-by-hop fields (RFC 9110, section 7.6.1, and the fields that `Connection` lists), `Proxy`
/// (CVE-2016-5385), names with `_` (many applications read them as `-`), `Flipgate-*`, and forwarding fields of
/// untrusted peers. Added: client, host and scheme, and a request id.
pub(in crate::proxy) fn put_request(
    head: &RequestHead,
    bytes: &[u8],
    rewrite: &RequestRewrite<'_>,
    random: &mut fastrand::Rng,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len + ADDED + 2 * head.host(bytes).len());
    let lines = head.fields.lines(bytes);
    put_request_line(&mut out, head, bytes);
    let is_traced = lines.has(FieldName::Traceparent)
        && (rewrite.forwarded.is_some() || rewrite.keeps_trace && has_parent(lines));
    put_kept(&mut out, head, bytes, rewrite, is_traced);
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(match (head.accepts_trailers, head.requests_websocket) {
        (false, false) => b"",
        (true, false) => b"TE: trailers\r\nConnection: te\r\n",
        (false, true) => b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        (true, true) => b"TE: trailers\r\nUpgrade: websocket\r\nConnection: te, upgrade\r\n",
    });
    out.extend_from_slice(rewrite.mark);
    let is_named = rewrite.forwarded.is_some() && lines.has(FieldName::XRequestId);
    put_identity(&mut out, is_named, is_traced, random);
    put_forwarding(
        &mut out,
        head.host(bytes),
        lines,
        rewrite.peer,
        rewrite.client,
        rewrite.forwarded,
    );
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// The target in origin form: RFC 9112, section 3.2.1.
fn put_request_line(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8]) {
    out.extend_from_slice(head.method(bytes));
    out.push(b' ');
    match head.form {
        TargetForm::Path => {}
        TargetForm::Root => out.push(b'/'),
        TargetForm::Asterisk => out.push(b'*'),
    }
    if head.form != TargetForm::Asterisk {
        out.extend_from_slice(head.target(bytes));
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Copies the lines that stay as they are. All others are written anew, or dropped.
fn put_kept(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    rewrite: &RequestRewrite<'_>,
    is_traced: bool,
) {
    let RequestRewrite { expects_continue, forwarded, .. } = *rewrite;
    let is_behind_proxy = forwarded.is_some();
    let (lines, host) = (head.fields.lines(bytes), head.host(bytes));
    let hops = hops_left(head, bytes);
    let has_list = lines.has(FieldName::Connection);
    let has_own_cookies = rewrite.own_cookies.exist();
    let mut has_host = false;
    lines.put_filtered(out, |name, line| match name {
        FieldName::Host => {
            has_host = !head.is_absolute || line.value() == host;
            has_host
        }
        FieldName::ContentLength => false,
        FieldName::Expect => expects_continue,
        FieldName::MaxForwards => hops == Ok(None),
        name if name.is_hop_by_hop() => false,
        // An application may treat copies differently: only Flipgate itself marks one.
        FieldName::FlipgateShadow
        | FieldName::Proxy
        | FieldName::Flipgate
        | FieldName::FlipgatePreview
        | FieldName::Underscored => false,
        // Written by the caller.
        FieldName::XForwardedFor
        | FieldName::XForwardedHost
        | FieldName::XForwardedProto
        | FieldName::Forwarded => false,
        // `Tracestate` has no meaning without `Traceparent`.
        FieldName::Traceparent | FieldName::Tracestate => is_traced,
        name if name.is_forwarding() && !is_behind_proxy => false,
        _ if has_list && lines.connection_lists(line.name()) => false,
        // Written below, without those of Flipgate.
        FieldName::Cookie if has_own_cookies => false,
        _ => true,
    });
    if !has_host {
        // The host of the target, in its normalized form.
        put_field(out, b"Host", host);
    }
    if has_own_cookies && !(has_list && lines.connection_lists(b"cookie")) {
        for line in lines.all(FieldName::Cookie) {
            cookies::put_others(out, line);
        }
    }
    if let Ok(Some(hops)) = hops {
        out.extend_from_slice(b"Max-Forwards: ");
        // The next hop may not be able to read a larger number.
        put_number(out, hops.saturating_sub(1).min(u32::MAX.into()));
        out.extend_from_slice(b"\r\n");
    }
    if let Framing::Exact(length) = head.framing {
        out.extend_from_slice(b"Content-Length: ");
        put_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether there is exactly one `Traceparent`, and it is valid: W3C Trace Context, section 3.2.
fn has_parent(lines: FieldLines<'_>) -> bool {
    let mut parents = lines.all(FieldName::Traceparent);
    let (Some(parent), None) = (parents.next(), parents.next()) else { return false };
    let is_hex = |it: &[u8]| it.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |it: &[u8]| is_hex(it) && it.iter().any(|it| *it != b'0');
    let Some((known, more)) = parent.split_at_checked(55) else { return false };
    let is_of_version = match &known[..2] {
        b"00" => more.is_empty(),
        b"ff" => false,
        later => is_hex(later) && more.first().is_none_or(|it| *it == b'-'),
    };
    is_of_version
        && [known[2], known[35], known[52]] == *b"---"
        && is_id(&known[3..35])
        && is_id(&known[36..52])
        && is_hex(&known[53..])
}

/// Adds a request id and a trace, unless the request has them. The trace is not sampled, because Flipgate records none:
/// the upstream decides.
fn put_identity(out: &mut Vec<u8>, is_named: bool, is_traced: bool, random: &mut fastrand::Rng) {
    if is_named && is_traced {
        return;
    }
    // An id of zeros is invalid: W3C Trace Context, section 3.2.
    let trace = hex::<16, 32>(random.u128(1..).to_be_bytes());
    if !is_named {
        out.extend_from_slice(b"X-Request-Id: ");
        out.extend_from_slice(&trace);
        out.extend_from_slice(b"\r\n");
    }
    if !is_traced {
        out.extend_from_slice(b"Traceparent: 00-");
        out.extend_from_slice(&trace);
        out.push(b'-');
        out.extend_from_slice(&hex::<8, 16>(random.u64(1..).to_be_bytes()));
        out.extend_from_slice(b"-00\r\n");
    }
}

/// Two digits for each byte. Not by `format!`, which costs ten times as much, for every request.
fn hex<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    const PAIRS: [[u8; 2]; 256] = {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let mut digits = [b'0'; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(byte)]);
    }
    digits
}

#[cfg(test)]
mod tests;
