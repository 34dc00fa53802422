//! What is changed in heads on their way through.

mod answer;
mod forwarding;
mod onward;
mod trailers;

pub use self::trailers::is_never_a_trailer;
pub(super) use self::{
    answer::{FlipgateHeaders, ResponseRewrite, hsts, put_answer, put_interim, put_marks},
    onward::{RequestRewrite, put_request},
    trailers::{Allowed, clean_trailers},
};
