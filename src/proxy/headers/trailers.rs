//! Trailer fields that are forwarded.
//!
//! RFC 9110, section 6.5.1, allows only fields with definitions that permit it. Other fields arrive too late for
//! recipients that decide by the head: where a message goes, how it is framed and read, who sent it, and what a cache
//! may do with it.

use crate::{
    http1::{FieldName, Fields, members, put_field},
    model::NamePattern,
};

/// The trailer fields that are forwarded.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Allowed<'a> {
    /// Additional names of the configuration.
    pub(in crate::proxy) more: &'a [NamePattern],
    /// Whether they are gRPC metadata, which may have any name without another meaning.
    pub(in crate::proxy) is_grpc: bool,
}

/// Fields with definitions that allow trailers.
const KNOWN: [&str; 13] = [
    "accept-ranges",             // RFC 9110, section 14.3
    "authentication-info",       // RFC 9110, section 11.6.3
    "connect-error",             // no standard; of Connect, beside those of gRPC
    "content-digest",            // RFC 9530
    "content-md5",               // RFC 1864, and what object stores send
    "digest",                    // RFC 3230
    "endpoint-load-metrics-bin", // of gRPC: what an endpoint says of its load
    "etag",                      // RFC 9110, section 8.8.3
    "repr-digest",               // RFC 9530
    "server-timing",             // W3C Server Timing
    "signature",                 // RFC 9421, section 4
    "signature-input",           // RFC 9421, section 4
    "want-content-digest",       // RFC 9530
];

/// Prefixes of such fields.
const KNOWN_PREFIXES: [&str; 2] = ["grpc-", "x-amz-checksum-"];

/// Fields that are never forwarded as trailers, whatever the configuration says: framing, routing, request modifiers,
/// authentication, response control, and content. Sorted.
const NEVER: [&str; 84] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-patch",
    "accept-post",
    "age",
    "allow",
    "alt-svc",
    "alt-used",
    "authorization",
    "cdn-loop",
    "clear-site-data",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie2",
    "date",
    "dav",
    "early-data",
    "expect",
    "expect-ct",
    "host",
    "idempotency-key",
    "last-event-id",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "mime-version",
    "nel",
    "no-vary-search",
    "origin",
    "origin-agent-cluster",
    "permissions-policy",
    "pragma",
    "prefer",
    "preference-applied",
    "priority",
    "range",
    "referer",
    "referrer-policy",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "retry-after",
    "server",
    "service-worker",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "soapaction",
    "sourcemap",
    "strict-transport-security",
    "timing-allow-origin",
    "tk",
    "trailer",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-api-key",
    "x-content-type-options",
    "x-csrf-token",
    "x-frame-options",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-url",
    "x-permitted-cross-domain-policies",
    "x-requested-with",
    "x-rewrite-url",
    "x-robots-tag",
    "x-sendfile",
    "x-ua-compatible",
    "x-xsrf-token",
    "x-xss-protection",
];

/// Prefixes of fields that are never forwarded as trailers.
const NEVER_PREFIXES: [&str; 8] = [
    "access-control-",
    "content-security-",
    "cross-origin-",
    "if-",
    "proxy-",
    "sec-",
    "x-accel-",
    "x-auth-",
];

// === impl Allowed ===

impl Allowed<'_> {
    fn has(self, name: FieldName, text: &[u8]) -> bool {
        if is_never(name, text) {
            return false;
        }
        let is = |it: &&str| text.eq_ignore_ascii_case(it.as_bytes());
        self.is_grpc
            || KNOWN.iter().any(is)
            || KNOWN_PREFIXES.iter().any(|it| begins(text, it))
            || self.more.iter().any(|it| it.matches(text))
    }
}

/// Whether a field of this name is never forwarded as a trailer, so that the configuration may not allow it.
#[must_use]
pub fn is_never_a_trailer(text: &str) -> bool {
    text.is_empty() || is_never(FieldName::of(text.as_bytes()), text.as_bytes())
}

fn is_never(name: FieldName, text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    name.is_hop_by_hop()
        || name.is_essential()
        || name.is_forwarding()
        || name.is_flipgates()
        || name == FieldName::Underscored
        || matches!(name, FieldName::Cookie | FieldName::Authorization | FieldName::Proxy)
        || matches!(name, FieldName::ProxyStatus | FieldName::CacheControl)
        || NEVER.binary_search_by(|it| it.as_bytes().cmp(&lower)).is_ok()
        || NEVER_PREFIXES.iter().any(|it| begins(text, it))
}

fn begins(text: &[u8], with: &str) -> bool {
    text.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with.as_bytes()))
}

/// The trailer lines that are forwarded: allowed fields that the `Connection` of the message does not list (`listed`).
pub(in crate::proxy) fn clean_trailers(
    section: &[u8],
    listed: &[u8],
    allowed: Allowed<'_>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(section.len());
    // Malformed trailers were refused where they were decoded.
    let Some((fields, bytes)) = Fields::of_trailers(section) else { return out };
    let lines = fields.lines(&bytes);
    for (name, text, value) in lines.each() {
        let is_listed = || {
            lines.connection_lists(text) || members(listed).any(|it| it.eq_ignore_ascii_case(text))
        };
        if allowed.has(name, text) && !is_listed() {
            put_field(&mut out, text, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    fn clean(section: &str, listed: &[u8], more: &[&str], is_grpc: bool) -> String {
        let pattern = |it: &&str| it.parse().expect("a pattern");
        let more: Vec<NamePattern> = more.iter().map(pattern).collect();
        let out = clean_trailers(section.as_bytes(), listed, Allowed { more: &more, is_grpc });
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn names_that_are_never_trailers_are_sorted() {
        assert!(NEVER.is_sorted());
    }

    #[test]
    fn trailers_bring_nothing_through_that_a_head_would_not() {
        let section = samples::lines(&[
            ("x-sum", "1"),
            ("flipgate-preview", "green"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("cookie", "a=b"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("X-Other", "1"),
            ("proxy", "http://evil"),
            ("proxy-status", "flipgate; error=x"),
            ("cache-control", "public"),
        ]);
        assert_eq!(clean(&section, b"x-other", &["x-*"], false), "x-sum: 1\r\n");
        assert_eq!(clean(&section, b"x-other", &["x-*"], true), "x-sum: 1\r\n");
        assert_eq!(clean("no line\r\n", b"", &["x-*"], true), "");
    }

    #[test]
    fn only_allowed_names_pass_and_no_option_lets_the_others_through() {
        let names =
            ["ETag", "Grpc-Status", "x-sum", "my-own", "Content-Type", "Set-Cookie", "If-Match"];
        let section: String = names.iter().map(|it| format!("{it}: 1\r\n")).collect();
        for (more, is_grpc, passed) in [
            (&[][..], false, "ETag: 1\r\nGrpc-Status: 1\r\n"),
            (&["x-*"], false, "ETag: 1\r\nGrpc-Status: 1\r\nx-sum: 1\r\n"),
            (
                &["my-own", "content-*", "set-cookie", "if-*"],
                false,
                "ETag: 1\r\nGrpc-Status: 1\r\nmy-own: 1\r\n",
            ),
            (&[], true, "ETag: 1\r\nGrpc-Status: 1\r\nx-sum: 1\r\nmy-own: 1\r\n"),
        ] {
            assert_eq!(clean(&section, b"", more, is_grpc), passed, "{more:?} {is_grpc}");
        }
    }
}
