//! Rewrites request and response heads.

mod cache_control;
mod forwarding;
mod request_headers;
mod response_headers;
mod trailers;

pub use self::trailers::is_never_a_trailer;
pub(super) use self::{
    cache_control::is_private,
    request_headers::{RequestRewrite, put_request},
    response_headers::{
        FlipgateHeaders, PinLine, ResponseRewrite, hsts, put_answer, put_connection, put_interim,
        put_marks,
    },
    trailers::{Allowed, clean_trailers},
};
