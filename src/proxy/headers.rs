//! What is changed in heads on their way through.

mod answer;
mod forwarding;
mod onward;

pub(super) use self::{
    answer::{Answer, Marks, hsts, put_answer, put_interim, put_marks},
    onward::{Onward, put_request},
};
use crate::http1::{Fields, Name, members, put_field};

/// The lines of a trailer section that go on: what a head would not bring through is left out, and so is
/// what the message's `Connection` has `listed`.
pub(super) fn clean_trailers(section: &[u8], listed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(section.len());
    // What cannot be read was refused where it was decoded.
    let Some((fields, bytes)) = Fields::of_trailers(section) else { return out };
    let lines = fields.lines(&bytes);
    for (name, text, value) in lines.each() {
        let is_left_out = name.is_hop_by_hop()
            || name.is_vital()
            || name.tells_of_forwarding()
            || matches!(name, Name::Flipgate | Name::FlipgatePreview | Name::Underscored)
            || matches!(name, Name::Cookie | Name::Authorization | Name::Proxy)
            || matches!(name, Name::ProxyStatus | Name::CacheControl)
            || lines.connection_lists(text)
            || members(listed).any(|it| it.eq_ignore_ascii_case(text));
        if !is_left_out {
            put_field(&mut out, text, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

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
        assert_eq!(clean_trailers(section.as_bytes(), b"x-other"), b"x-sum: 1\r\n");
        assert!(clean_trailers(b"no line\r\n", b"").is_empty());
    }
}
