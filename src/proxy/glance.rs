//! One look over the names of a request's head, so that what is seldom there is not searched for in
//! every request.

use http::{
    HeaderMap,
    header::{COOKIE, EXPECT, FORWARDED, HOST, TE, TRANSFER_ENCODING},
};

/// What a head has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Glance {
    /// Lines of `Host`.
    pub(super) hosts: usize,
    /// Lines of `Transfer-Encoding`.
    pub(super) codings: usize,
    /// A `Flipgate-Preview`.
    pub(super) has_wish: bool,
    /// A `Cookie`.
    pub(super) has_cookies: bool,
    /// An `Expect`.
    pub(super) has_expectation: bool,
    /// A `TE`.
    pub(super) has_te: bool,
    /// `X-Forwarded-For` or `Forwarded`.
    pub(super) is_forwarded: bool,
}

impl Glance {
    /// Looks at every line once.
    pub(super) fn at(headers: &HeaderMap) -> Self {
        let mut glance = Self::default();
        for (name, _) in headers {
            match *name {
                HOST => glance.hosts += 1,
                TRANSFER_ENCODING => glance.codings += 1,
                COOKIE => glance.has_cookies = true,
                EXPECT => glance.has_expectation = true,
                TE => glance.has_te = true,
                FORWARDED => glance.is_forwarded = true,
                _ => match name.as_str() {
                    "flipgate-preview" => glance.has_wish = true,
                    "x-forwarded-for" => glance.is_forwarded = true,
                    _ => {}
                },
            }
        }
        glance
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_line_is_seen() {
        let names = ["host", "host", "transfer-encoding", "flipgate-preview", "cookie", "expect"];
        let all = names.into_iter().chain(["te", "x-forwarded-for", "accept"]);
        let mut headers = HeaderMap::new();
        for name in all {
            headers.append(name, HeaderValue::from_static("x"));
        }
        let glance = Glance {
            hosts: 2,
            codings: 1,
            has_wish: true,
            has_cookies: true,
            has_expectation: true,
            has_te: true,
            is_forwarded: true,
        };
        assert_eq!(Glance::at(&headers), glance);
        assert_eq!(Glance::at(&HeaderMap::new()), Glance::default());
    }
}
