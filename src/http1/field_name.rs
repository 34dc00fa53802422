//! Field names with a meaning for a proxy.

/// The meaning of a field name. Determined once, when the head is parsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldName {
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `TE`.
    Te,
    /// `Upgrade`.
    Upgrade,
    /// Another hop-by-hop field: RFC 9110, section 7.6.1, and proxy authentication, section 11.7.
    Hop,
    /// `Expect`.
    Expect,
    /// `Content-Type`.
    ContentType,
    /// `Date`.
    Date,
    /// `Cookie`.
    Cookie,
    /// `Accept`.
    Accept,
    /// `Sec-Fetch-Dest` (Fetch Metadata).
    FetchDest,
    /// `Sec-Fetch-Mode` (Fetch Metadata).
    FetchMode,
    /// `Sec-Purpose`, or `Purpose` of older browsers.
    Purpose,
    /// `Authorization`.
    Authorization,
    /// `Proxy`, which some applications read as the address of a proxy (CVE-2016-5385).
    Proxy,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Real-IP`.
    XRealIp,
    /// Another field with the origin of a request.
    OtherForwarding,
    /// `X-Request-Id`.
    XRequestId,
    /// `Traceparent` (W3C Trace Context).
    Traceparent,
    /// `Tracestate` (W3C Trace Context).
    Tracestate,
    /// `Proxy-Status` (RFC 9209).
    ProxyStatus,
    /// `Cache-Control`, and fields that caches prefer to it.
    CacheControl,
    /// `Strict-Transport-Security` (RFC 6797).
    StrictTransport,
    /// `Max-Forwards`.
    MaxForwards,
    /// `Via`.
    Via,
    /// `CDN-Loop` (RFC 8586).
    CdnLoop,
    /// `Flipgate-Preview`.
    FlipgatePreview,
    /// `Flipgate-Shadow`, which marks copies of requests.
    FlipgateShadow,
    /// Another `Flipgate-…`.
    Flipgate,
    /// A name with `_`, which many applications read as `-`.
    Underscored,
    /// Any other.
    Other,
}

// === impl FieldName ===

impl FieldName {
    /// The meaning of a name, case-insensitive.
    ///
    /// # Panics
    ///
    /// If the name is empty, which the parser excludes.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let is = |other: &str, found| match name.eq_ignore_ascii_case(other.as_bytes()) {
            true => found,
            false => Self::Other,
        };
        // Length and first letter leave one or two candidates.
        let found = match (name.len(), name[0] | 0x20) {
            (2, b't') => is("te", Self::Te),
            (4, b'h') => is("host", Self::Host),
            (4, b'd') => is("date", Self::Date),
            (3, b'v') => is("via", Self::Via),
            (8, b'c') => is("cdn-loop", Self::CdnLoop),
            (5, b'p') => is("proxy", Self::Proxy),
            (6, b'a') => is("accept", Self::Accept),
            (6, b'c') => is("cookie", Self::Cookie),
            (6, b'e') => is("expect", Self::Expect),
            (7, b'u') => is("upgrade", Self::Upgrade),
            (7, b'e') => is("expires", Self::CacheControl),
            (7, b'p') => is("purpose", Self::Purpose),
            (9, b'f') => is("forwarded", Self::Forwarded),
            (9, b'x') => is("x-real-ip", Self::XRealIp),
            (10, b'c') => is("connection", Self::Connection),
            (10, b'k') => is("keep-alive", Self::Hop),
            (10, b't') => is("tracestate", Self::Tracestate),
            (11, b's') => is("sec-purpose", Self::Purpose),
            (11, b't') => is("traceparent", Self::Traceparent),
            (11, b'x') => is("x-client-ip", Self::OtherForwarding),
            (12, b'c') => is("content-type", Self::ContentType),
            (12, b'm') => is("max-forwards", Self::MaxForwards),
            (12, b'x') => is("x-request-id", Self::XRequestId),
            (12, b'p') => is("proxy-status", Self::ProxyStatus),
            (12, b'e') => is("edge-control", Self::CacheControl),
            (13, b'a') => is("authorization", Self::Authorization),
            (13, b'c') => is("cache-control", Self::CacheControl),
            (14, b'c') => is("content-length", Self::ContentLength),
            (14, b's') => match is("sec-fetch-dest", Self::FetchDest) {
                Self::Other => is("sec-fetch-mode", Self::FetchMode),
                found => found,
            },
            (14, b't') => is("true-client-ip", Self::OtherForwarding),
            (14, b'h') => is("http2-settings", Self::Hop),
            (15, b'f') => is("flipgate-shadow", Self::FlipgateShadow),
            (15, b'x') => match is("x-forwarded-for", Self::XForwardedFor) {
                Self::Other => is("x-accel-expires", Self::CacheControl),
                found => found,
            },
            (16, b'p') => is("proxy-connection", Self::Hop),
            (16, b'x') => is("x-forwarded-host", Self::XForwardedHost),
            (16, b'c') => is("cf-connecting-ip", Self::OtherForwarding),
            (16, b'f') => match is("flipgate-preview", Self::FlipgatePreview) {
                Self::Other => is("fastly-client-ip", Self::OtherForwarding),
                found => found,
            },
            (17, b't') => is("transfer-encoding", Self::TransferEncoding),
            (17, b'x') => is("x-forwarded-proto", Self::XForwardedProto),
            (18, b'p') => is("proxy-authenticate", Self::Hop),
            (19, b'p') => is("proxy-authorization", Self::Hop),
            (19, b'x') => is("x-cluster-client-ip", Self::OtherForwarding),
            (25, b'p') => is("proxy-authentication-info", Self::Hop),
            (25, b's') => is("strict-transport-security", Self::StrictTransport),
            (17, b's') => is("surrogate-control", Self::CacheControl),
            _ => Self::Other,
        };
        match found {
            Self::Other => Self::of_family(name),
            found => found,
        }
    }

    /// Names that are recognized by a prefix, a suffix or a character.
    fn of_family(name: &[u8]) -> Self {
        let begins = |with: &str| {
            name.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with.as_bytes()))
        };
        let ends = |with: &str| {
            let at = name.len().checked_sub(with.len());
            at.is_some_and(|at| name[at..].eq_ignore_ascii_case(with.as_bytes()))
        };
        match name[0] | 0x20 {
            b'x' if begins("x-forwarded-") => Self::OtherForwarding,
            b'f' if begins("flipgate-") => Self::Flipgate,
            _ if name.contains(&b'_') => Self::Underscored,
            _ if ends("cdn-cache-control") => Self::CacheControl,
            _ => Self::Other,
        }
    }

    /// The name's bit in a set of names.
    pub(super) fn bit(self) -> u64 {
        1 << self as u32
    }

    /// Whether the field is hop-by-hop (RFC 9110, section 7.6.1).
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        use FieldName::{Connection, Hop, Te, TransferEncoding, Upgrade};
        matches!(self, Connection | Hop | Te | TransferEncoding | Upgrade)
    }

    /// Whether the field is one of Flipgate's own.
    #[must_use]
    pub fn is_flipgates(self) -> bool {
        matches!(self, Self::Flipgate | Self::FlipgatePreview | Self::FlipgateShadow)
    }

    /// Whether the field determines framing or routing. Such a field is kept even if `Connection` lists it.
    #[must_use]
    pub fn is_essential(self) -> bool {
        matches!(self, Self::Host | Self::ContentLength | Self::TransferEncoding)
    }

    /// Whether the field says where a request came from, so that only trusted proxies may set it.
    #[must_use]
    pub fn is_forwarding(self) -> bool {
        use FieldName::{
            Forwarded, OtherForwarding, Traceparent, Tracestate, XForwardedFor, XForwardedHost,
            XForwardedProto, XRealIp, XRequestId,
        };
        matches!(
            self,
            Forwarded
                | OtherForwarding
                | Traceparent
                | Tracestate
                | XForwardedFor
                | XForwardedHost
                | XForwardedProto
                | XRealIp
                | XRequestId
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognized_in_any_case() {
        for (name, meaning) in [
            ("Host", FieldName::Host),
            ("CONTENT-LENGTH", FieldName::ContentLength),
            ("transfer-Encoding", FieldName::TransferEncoding),
            ("te", FieldName::Te),
            ("Keep-Alive", FieldName::Hop),
            ("Proxy-Connection", FieldName::Hop),
            ("HTTP2-Settings", FieldName::Hop),
            ("x-Forwarded-Port", FieldName::OtherForwarding),
            ("X-Real-IP", FieldName::XRealIp),
            ("True-Client-IP", FieldName::OtherForwarding),
            ("X-Client-IP", FieldName::OtherForwarding),
            ("Fastly-Client-IP", FieldName::OtherForwarding),
            ("Content-Type", FieldName::ContentType),
            ("Strict-Transport-Security", FieldName::StrictTransport),
            ("X-Forwarded-For", FieldName::XForwardedFor),
            ("Flipgate-Anything", FieldName::Flipgate),
            ("flipgate-preview", FieldName::FlipgatePreview),
            ("Flipgate-Shadow", FieldName::FlipgateShadow),
            ("Flipgate-Shadows", FieldName::Flipgate),
            ("x_real_ip", FieldName::Underscored),
            ("X-Forwarded_For", FieldName::Underscored),
            ("Content_Length", FieldName::Underscored),
            ("CDN-Cache-Control", FieldName::CacheControl),
            ("Fastly-CDN-Cache-Control", FieldName::CacheControl),
            ("Max-Forwards", FieldName::MaxForwards),
            ("VIA", FieldName::Via),
            ("cdn-loop", FieldName::CdnLoop),
            ("Proxy-Authenticate", FieldName::Hop),
            ("Proxy-Authorization", FieldName::Hop),
            ("Proxy-Authentication-Info", FieldName::Hop),
            ("Accept", FieldName::Accept),
            ("hosts", FieldName::Other),
            ("x", FieldName::Other),
        ] {
            assert_eq!(FieldName::of(name.as_bytes()), meaning, "{name}");
        }
    }
}
