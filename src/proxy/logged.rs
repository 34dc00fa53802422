//! What the log says of a request: read from the head that was sent to the upstream, so that a request that is not
//! logged costs nothing.

use std::{borrow::Cow, time::Instant};

use tracing::warn;

use super::{admitted::AdmittedRequest, log_limiter::LimitedEvent};

/// A request as the log names it.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct LoggedRequest<'a> {
    pub(super) method: Cow<'a, str>,
    /// Without the query, which may hold secrets.
    pub(super) path: Cow<'a, str>,
    /// The verified address of the client, if it is known.
    pub(super) client: Option<Cow<'a, str>>,
    pub(super) request_id: Option<Cow<'a, str>>,
}

/// A longer path is cut in the log, in bytes.
const PATH_MAX: usize = 256;

impl<'a> LoggedRequest<'a> {
    /// Of a request head as Flipgate writes it. Empty if there is none, as of a request that was refused before it was
    /// written.
    pub(super) fn of(head: &'a [u8]) -> Self {
        let mut lines = head.split(|it| *it == b'\n').map(<[u8]>::trim_ascii_end);
        let mut words = lines.next().unwrap_or_default().split(|it| *it == b' ');
        let method = text(words.next().unwrap_or_default());
        let target = words.next().unwrap_or_default();
        let path = target.split(|it| *it == b'?').next().unwrap_or_default();
        let path = text(&path[..path.len().min(PATH_MAX)]);
        let (mut client, mut request_id) = (None, None);
        for line in lines {
            let Some(colon) = line.iter().position(|it| *it == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"x-real-ip") {
                client = Some(text(value));
            } else if name.eq_ignore_ascii_case(b"x-request-id") {
                request_id = Some(text(value));
            }
        }
        Self { method, path, client, request_id }
    }
}

/// Bytes of a head as text. Heads have no control characters.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl AdmittedRequest<'_> {
    /// Logs something about this request, at most once a second of each kind, service and color, with the number of
    /// lines that were left out.
    pub(super) fn warn(&self, event: LimitedEvent, details: &str, now: Instant) {
        let (service, color) = self.names();
        let Some(suppressed) = self.proxy.log_limiter.permits(event, (service, color), now) else {
            return;
        };
        let LoggedRequest { method, path, client, request_id } =
            LoggedRequest::of(self.upload.head());
        let endpoint = self.endpoint();
        warn!(
            %method, %path, client = client.as_deref(), request_id = request_id.as_deref(), %service, %color,
            endpoint, suppressed, details, "{}", event.message()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_named_by_method_path_client_and_id() {
        let head = b"GET /a/b?token=secret HTTP/1.1\r\nHost: a\r\nX-Real-Ip: 10.0.0.9\r\nx-request-id: id-1\r\n\r\n";
        let LoggedRequest { method, path, client, request_id } = LoggedRequest::of(head);
        assert_eq!((&*method, &*path), ("GET", "/a/b"));
        assert_eq!((client.as_deref(), request_id.as_deref()), (Some("10.0.0.9"), Some("id-1")));
        assert_eq!(LoggedRequest::of(b""), LoggedRequest::default());
        let long = [b"GET /".as_slice(), &[b'a'; 1000], b" HTTP/1.1\r\n"].concat();
        assert_eq!(LoggedRequest::of(&long).path.len(), PATH_MAX);
    }
}
