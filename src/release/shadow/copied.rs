//! A copied request, made from the head that an upstream gets.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    http1::{FieldName, RequestHead},
    release::masking::{Secrets, cut},
    upstream::ProbeRequest,
};

/// Marks copies, so that an application can tell them from requests of clients, and no Flipgate copies them again.
const MARK: HeaderName = HeaderName::from_static("flipgate-shadow");

/// The most characters of a path in messages.
const PATH_MAX: usize = 100;

/// A copied request.
#[derive(Clone, Debug)]
pub(super) struct CopiedRequest {
    request: ProbeRequest,
    /// The values of its headers that no message may contain.
    pub(super) secrets: Secrets,
}

// === impl CopiedRequest ===

impl CopiedRequest {
    /// Reads a head that was written for an upstream. `None` if it cannot be sent as it is.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let head = RequestHead::parse(bytes).ok()??;
        let text = |it: &[u8]| std::str::from_utf8(it).map(str::to_owned).ok();
        let method = Method::from_bytes(head.method(bytes)).ok()?;
        let (path, host) = (text(head.target(bytes))?, text(head.host(bytes))?);
        let mut headers = HeaderMap::new();
        let mut secrets = Secrets::default();
        let mut codings = Vec::new();
        for (known, name, value) in head.fields.lines(bytes).each() {
            let is_of_connection = known.is_hop_by_hop() || known.is_essential();
            if is_of_connection || known == FieldName::FlipgateShadow {
                continue;
            }
            let name = HeaderName::from_bytes(name).ok()?;
            if name == header::ACCEPT_ENCODING {
                codings.extend_from_slice(value);
                codings.push(b',');
                continue;
            }
            secrets.add_header(name.as_str(), &String::from_utf8_lossy(value));
            headers.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        headers.insert(MARK, HeaderValue::from_static("1"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted(&codings)));
        let request = ProbeRequest { method, path, host: Some(host), headers, body: [][..].into() };
        Some(Self { request, secrets })
    }

    /// The request for an endpoint.
    pub(super) fn to_send(&self) -> ProbeRequest {
        self.request.clone()
    }

    /// Method and path for messages. The query may have secrets and is left out.
    pub(super) fn shown(&self) -> String {
        let ProbeRequest { method, path, .. } = &self.request;
        let (path, query) = path.split_once('?').map_or((&**path, ""), |(path, _)| (path, "?…"));
        format!("{method} {}{query}", self.secrets.mask(&cut(path, PATH_MAX)))
    }
}

/// The codings that the client accepts, without those that Flipgate cannot decode: a response in another one could not
/// be compared.
fn accepted(codings: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(codings).to_ascii_lowercase();
    let accepts_gzip = text.split(',').any(|it| {
        let (name, quality) = it.split_once(';').unwrap_or((it, ""));
        let quality: String = quality.split_ascii_whitespace().collect();
        let is_refused = quality.strip_prefix("q=").is_some_and(|it| it.parse() == Ok(0.0));
        matches!(name.trim(), "gzip" | "x-gzip" | "*") && !is_refused
    });
    if accepts_gzip { "gzip" } else { "identity" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fields: &str) -> CopiedRequest {
        let text = format!("GET /a/b?key=sesame HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
        CopiedRequest::parse(text.as_bytes()).expect("it can be sent")
    }

    #[test]
    fn a_copy_has_host_path_and_headers_of_the_request_and_the_mark() {
        let copied = parsed("X-One: 1\r\nx-one: 2\r\nTE: trailers\r\nConnection: te\r\n");
        let ProbeRequest { method, path, host, headers, body } = copied.to_send();
        assert_eq!(
            (method, &*path, host.as_deref()),
            (Method::GET, "/a/b?key=sesame", Some("shop.test"))
        );
        let ones: Vec<_> = headers.get_all("x-one").iter().collect();
        assert_eq!(ones, ["1", "2"]);
        assert_eq!(headers["flipgate-shadow"], "1");
        for name in ["host", "te", "connection"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert!(body.is_empty());
        let marked = parsed("Flipgate-Shadow: 7\r\n").to_send();
        assert_eq!(marked.headers.get_all("flipgate-shadow").iter().count(), 1);
    }

    #[test]
    fn only_codings_that_can_be_decoded_are_accepted() {
        for (line, coding) in [
            ("", "identity"),
            ("Accept-Encoding: br, zstd\r\n", "identity"),
            ("Accept-Encoding: br, GZIP;q=0.5\r\n", "gzip"),
            ("Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", "gzip"),
            ("Accept-Encoding: *\r\n", "gzip"),
            ("Accept-Encoding: gzip; q=0, br\r\n", "identity"),
        ] {
            assert_eq!(parsed(line).to_send().headers["accept-encoding"], coding, "{line}");
        }
    }

    #[test]
    fn a_message_has_neither_the_query_nor_a_secret() {
        let copied = parsed("Authorization: Bearer opensesame\r\n");
        assert_eq!(copied.shown(), "GET /a/b?…");
        assert_eq!(copied.secrets.mask("a opensesame b"), "a *** b");
    }

    #[test]
    fn a_head_that_is_not_whole_is_no_request() {
        for bad in [&b""[..], b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
            assert!(CopiedRequest::parse(bad).is_none(), "{}", bad.escape_ascii());
        }
    }
}
