//! The page of a service for an error of Flipgate: HTML or JSON, as the client accepts it (RFC 9110, section 12.5.1).
//!
//! Everything here is done when there is an error. A request without one costs nothing.

use bytes::Bytes;

use crate::{http1::members, model::ErrorPage};

/// The statuses of errors of Flipgate for requests that have a service. Only these can have a page.
pub const PAGE_STATUSES: [u16; 6] = [400, 413, 429, 502, 503, 504];

/// A chosen page.
pub(super) struct ChosenPage {
    pub(super) content_type: &'static str,
    pub(super) content: Bytes,
}

/// How much a client likes each format, in thousandths; 0: not acceptable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AcceptedFormats {
    html: u16,
    json: u16,
}

/// The best quality.
const BEST: u16 = 1000;

// === impl AcceptedFormats ===

impl AcceptedFormats {
    /// Everything: what a request without `Accept` accepts.
    const ANY: Self = Self { html: BEST, json: BEST };

    /// Reads the `Accept` lines of a request head. An empty head accepts everything.
    pub(super) fn of_head(head: &[u8]) -> Self {
        let lines = head.split(|it| *it == b'\n').skip(1);
        let values = lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon].eq_ignore_ascii_case(b"accept").then(|| &line[colon + 1..])
        });
        Self::of_values(values)
    }

    fn of_values<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        // By how specific the media range is: the most specific one counts.
        let (mut html, mut json) = ([None::<u16>; 3], [None::<u16>; 3]);
        let mut is_empty = true;
        for range in values.flat_map(members) {
            let mut parts = range.split(|it| *it == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            if name.is_empty() {
                continue;
            }
            is_empty = false;
            let Some(quality) = quality(parts) else { continue };
            let accept = |format: &mut [Option<u16>; 3], rank: usize| {
                // Of two ranges of the same rank, the better one.
                format[rank] = Some(format[rank].map_or(quality, |it| it.max(quality)));
            };
            match &*name {
                b"*/*" => {
                    accept(&mut html, 0);
                    accept(&mut json, 0);
                }
                b"text/*" => accept(&mut html, 1),
                b"application/*" => accept(&mut json, 1),
                b"text/html" => accept(&mut html, 2),
                b"application/json" => accept(&mut json, 2),
                // Clients that expect errors of their own type, such as `application/problem+json`, read JSON.
                other if other.starts_with(b"application/") && other.ends_with(b"+json") => {
                    accept(&mut json, 2);
                }
                _ => {}
            }
        }
        if is_empty {
            return Self::ANY;
        }
        let most_specific =
            |format: [Option<u16>; 3]| format.into_iter().rev().flatten().next().unwrap_or(0);
        Self { html: most_specific(html), json: most_specific(json) }
    }

    /// The format of a page that the client likes best; HTML if it likes both. `None` if it accepts none.
    pub(super) fn choose(self, page: &ErrorPage) -> Option<ChosenPage> {
        let ErrorPage { html, json } = page;
        let html = html.as_ref().filter(|_| self.html > 0);
        let json = json.as_ref().filter(|_| self.json > 0);
        let (content_type, content) = match (html, json) {
            (Some(_), Some(json)) if self.json > self.html => ("application/json", json),
            (Some(html), _) => ("text/html; charset=utf-8", html),
            (None, Some(json)) => ("application/json", json),
            (None, None) => return None,
        };
        Some(ChosenPage { content_type, content: content.clone() })
    }
}

/// The quality of a media range with these parameters, in thousandths; `None` if it is malformed.
fn quality<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<u16> {
    for parameter in parameters {
        let [b'q' | b'Q', b'=', value @ ..] = parameter else { continue };
        // RFC 9110, section 12.4.2: at most three digits behind the point.
        let (whole, digits) = match value {
            [whole] | [whole, b'.'] => (whole, &[][..]),
            [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
            _ => return None,
        };
        let thousandths = (0..3).try_fold(0, |sum, place| {
            let digit = digits.get(place).copied().unwrap_or(b'0');
            digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
        })?;
        return match (whole, thousandths) {
            (b'0', less) => Some(less),
            (b'1', 0) => Some(BEST),
            _ => None,
        };
    }
    Some(BEST)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, num::NonZeroU32};

    use super::*;
    use crate::{proxy::ProxyError, upstream::ConnectReason};

    fn chosen(accept: &[&str], page: &ErrorPage) -> Option<&'static str> {
        let lines: String = accept.iter().map(|it| format!("accept: {it}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let page = AcceptedFormats::of_head(head.as_bytes()).choose(page)?;
        page.content_type.split(['/', ';']).nth(1)
    }

    #[test]
    fn the_format_is_the_one_that_the_client_likes_best() {
        let both = ErrorPage { html: Some("h".into()), json: Some("j".into()) };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, expected) in [
            (&[][..], Some("html")),
            (&[""], Some("html")),
            (&["*/*"], Some("html")),
            (&[browser], Some("html")),
            (&["application/json"], Some("json")),
            (&["APPLICATION/JSON;charset=utf-8"], Some("json")),
            (&["application/problem+json"], Some("json")),
            (&["application/json, text/plain, */*"], Some("html")),
            (&["application/json, */*;q=0.5"], Some("json")),
            (&["text/html;q=0.5", "application/json;q=0.6"], Some("json")),
            (&["text/html;q=0.6, application/json;q=0.6"], Some("html")),
            (&["text/html;q=0, */*"], Some("json")),
            (&["text/*;q=0.1, application/*;q=0.2"], Some("json")),
            (&["image/avif,image/webp"], None),
            (&["text/html;q=0"], None),
            (&["text/html;q=2, application/json;q=0.001"], Some("json")),
            (&["text/html;q=0.1234"], None),
        ] {
            assert_eq!(chosen(accept, &both), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_page_in_one_format_is_only_for_clients_that_accept_it() {
        let html = ErrorPage { html: Some("h".into()), json: None };
        let json = ErrorPage { html: None, json: Some("j".into()) };
        for (accept, of_html, of_json) in [
            (&[][..], Some("html"), Some("json")),
            (&["*/*"], Some("html"), Some("json")),
            (&["application/json"], None, Some("json")),
            (&["text/html"], Some("html"), None),
            (&["text/css"], None, None),
        ] {
            assert_eq!(
                (chosen(accept, &html), chosen(accept, &json)),
                (of_html, of_json),
                "{accept:?}"
            );
        }
    }

    /// An exhaustive list, so that a new error must be thought of: whether it can follow the admission, when the service
    /// is known.
    fn has_service(error: ProxyError) -> bool {
        match error {
            ProxyError::TransferCoding
            | ProxyError::Method
            | ProxyError::TargetTooLong
            | ProxyError::HeadTooLarge
            | ProxyError::HeadTooSlow
            | ProxyError::Misdirected
            | ProxyError::Redirect
            | ProxyError::Loop
            | ProxyError::Options
            | ProxyError::PublicOnPreviewListener
            | ProxyError::NoRoute
            | ProxyError::UnclearPreview => false,
            ProxyError::Malformed(_)
            | ProxyError::BodyTooLarge
            | ProxyError::NoEndpoint
            | ProxyError::Overloaded
            | ProxyError::RateLimited(_)
            | ProxyError::Held(_)
            | ProxyError::Maintenance(_)
            | ProxyError::Connect(_)
            | ProxyError::Closed
            | ProxyError::Protocol
            | ProxyError::Body(_)
            | ProxyError::BodyIncomplete
            | ProxyError::RequestTimeout
            | ProxyError::ResponseTimeout => true,
        }
    }

    #[test]
    fn exactly_the_statuses_of_errors_with_a_service_can_have_a_page() {
        use ConnectReason::{
            Certificate, Descriptors, Dns, Limit, Other, Own, Protocol, Refused, Timeout, Tls,
            Unreachable,
        };
        let connect = [
            Certificate,
            Descriptors,
            Dns,
            Limit,
            Other,
            Own,
            Protocol,
            Refused,
            Timeout,
            Tls,
            Unreachable,
        ];
        let all = [
            ProxyError::Malformed("x"),
            ProxyError::TransferCoding,
            ProxyError::Method,
            ProxyError::NoRoute,
            ProxyError::BodyTooLarge,
            ProxyError::NoEndpoint,
            ProxyError::Overloaded,
            ProxyError::RateLimited(NonZeroU32::MIN),
            ProxyError::Held(NonZeroU32::MIN),
            ProxyError::Maintenance(NonZeroU32::MIN),
            ProxyError::Closed,
            ProxyError::Protocol,
            ProxyError::BodyIncomplete,
            ProxyError::RequestTimeout,
            ProxyError::ResponseTimeout,
        ];
        let all = all.into_iter().chain(connect.map(ProxyError::Connect));
        let with_service = all.filter(|it| has_service(*it));
        let statuses: BTreeSet<u16> = with_service.map(|it| it.status().0.as_u16()).collect();
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), PAGE_STATUSES);
    }
}
