//! Rewrites request and response heads.

mod forwarding;
mod request_headers;
mod response_headers;
mod trailers;

pub use self::trailers::is_never_a_trailer;
pub(super) use self::{
    request_headers::{RequestRewrite, put_request},
    response_headers::{
        FlipgateHeaders, ResponseRewrite, hsts, put_answer, put_interim, put_marks,
    },
    trailers::{Allowed, clean_trailers},
};
