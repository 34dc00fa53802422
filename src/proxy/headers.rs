//! Rewrites request and response heads.

mod cache_control;
mod forwarding;
mod request_headers;
mod response_headers;
mod trailers;

pub use self::trailers::is_never_a_trailer;
pub(super) use self::{
    cache_control::{is_private, is_stored_by_rule},
    request_headers::{RequestRewrite, put_request},
    response_headers::{
        CookieLines, FlipgateHeaders, ResponseRewrite, hsts, put_answer, put_connection,
        put_interim, put_marks,
    },
    trailers::{Allowed, clean_trailers},
};
