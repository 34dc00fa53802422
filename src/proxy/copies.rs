//! Copies the heads of requests for the gate that compares two versions.
//!
//! A copy is made only while such a gate of the service runs. The request itself is not changed and never waits.

use super::worker::Proxy;
use crate::{
    http1::{FieldLines, FieldName, Framing, RequestHead},
    model::normalize_path,
    upstream::{NotCopied, Tap, TapSettings},
};

impl Proxy {
    /// Copies the head `out`, which the upstream gets, if the request is one of the share, and repeating it changes
    /// nothing.
    // Called only while a gate runs.
    #[cold]
    pub(super) fn copy_request(&self, tap: &Tap, head: &RequestHead, bytes: &[u8], out: &[u8]) {
        let Some(queue) = tap.queue() else { return };
        if !matches!(head.method(bytes), b"GET" | b"HEAD") {
            return;
        }
        let settings = queue.settings();
        if self.random.borrow_mut().u8(0..100) >= settings.share {
            return;
        }
        match reason_not_to_copy(head, bytes, settings) {
            Some(why) => queue.skip(why),
            None => queue.push(out),
        }
    }
}

/// Why a GET or HEAD request is not copied; `None` if it is.
fn reason_not_to_copy(
    head: &RequestHead,
    bytes: &[u8],
    settings: &TapSettings,
) -> Option<NotCopied> {
    let lines = head.fields.lines(bytes);
    if !settings.credentials && has_credentials(lines) {
        return Some(NotCopied::Credentials);
    }
    let has_body = !matches!(head.framing, Framing::None | Framing::Exact(0));
    if has_body || head.requests_websocket || lines.has(FieldName::Upgrade) {
        return Some(NotCopied::Body);
    }
    for (_, name, _) in lines.each() {
        let name = name.to_ascii_lowercase();
        match &*name {
            b"range" => return Some(NotCopied::Range),
            b"if-match"
            | b"if-none-match"
            | b"if-modified-since"
            | b"if-unmodified-since"
            | b"if-range" => return Some(NotCopied::Conditional),
            _ => {}
        }
    }
    let path = std::str::from_utf8(head.path(bytes)).ok().map(normalize_path);
    let is_excluded = match path {
        Some(Ok(path)) => settings.exclude.iter().any(|it| it.covers(&path)),
        // Not known which path an application reads.
        _ => true,
    };
    is_excluded.then_some(NotCopied::Excluded)
}

/// Whether a request has credentials, in one of the fields of HTTP.
fn has_credentials(lines: FieldLines<'_>) -> bool {
    [FieldName::Authorization, FieldName::Cookie].into_iter().any(|it| lines.has(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    fn settings(credentials: bool, exclude: &[&str]) -> TapSettings {
        let exclude = exclude.iter().map(|it| it.parse().expect("a prefix")).collect();
        TapSettings { share: 100, credentials, exclude }
    }

    fn why(fields: &[(&str, &str)], settings: &TapSettings) -> Option<NotCopied> {
        let (head, bytes) = samples::request(fields);
        reason_not_to_copy(&head, &bytes, settings)
    }

    fn why_path(path: &str, settings: &TapSettings) -> Option<NotCopied> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = RequestHead::parse(text.as_bytes()).expect("a good head").expect("a whole one");
        reason_not_to_copy(&head, text.as_bytes(), settings)
    }

    #[test]
    fn only_requests_that_can_be_repeated_and_compared_are_copied() {
        let known = settings(false, &[]);
        for (name, value, reason) in [
            ("accept", "text/html", None),
            ("content-length", "0", None),
            ("ranges", "bytes=0-1", None),
            ("Authorization", "Basic YTpi", Some(NotCopied::Credentials)),
            ("Cookie", "a=b", Some(NotCopied::Credentials)),
            ("Range", "bytes=0-1", Some(NotCopied::Range)),
            ("If-None-Match", "\"a\"", Some(NotCopied::Conditional)),
            ("if-modified-since", "Sat, 29 Oct 1994 19:43:31 GMT", Some(NotCopied::Conditional)),
            ("If-Range", "\"a\"", Some(NotCopied::Conditional)),
            ("content-length", "1", Some(NotCopied::Body)),
            ("transfer-encoding", "chunked", Some(NotCopied::Body)),
            // A client that claims to send a copy cannot hide from the gate.
            ("flipgate-shadow", "1", None),
        ] {
            assert_eq!(why(&[(name, value)], &known), reason, "{name}: {value}");
        }
        let upgrade = [("connection", "upgrade"), ("upgrade", "h2c")];
        assert_eq!(why(&upgrade, &known), Some(NotCopied::Body));
        let keeps = settings(true, &[]);
        assert_eq!(why(&[("authorization", "Basic YTpi"), ("cookie", "a=b")], &keeps), None);
    }

    #[test]
    fn an_excluded_path_is_not_copied_however_it_is_written() {
        let known = settings(false, &["/logout", "/api/cart"]);
        for path in ["/logout", "/logout?x=1", "/%6Cogout", "/a/../logout", "/api/cart/add"] {
            assert_eq!(why_path(path, &known), Some(NotCopied::Excluded), "{path}");
        }
        for path in ["/", "/logouts", "/api", "/api/carts", "/?path=/logout"] {
            assert_eq!(why_path(path, &known), None, "{path}");
        }
    }
}
