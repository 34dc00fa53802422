//! Decides whether a color may become active: runs the gates of a service before a promotion or a rollback.
//!
//! A gate gathers evidence (requests to the endpoints, the stored state, another program) and gives a verdict. If one gate
//! refuses, nothing changes for any service of the call. Nothing here touches the requests of clients, and nothing is left
//! running when the caller is gone: the gates run inside the future of the call.

mod audited;
mod candidate;
mod compatibility;
mod duration_text;
mod evaluate;
mod expression;
mod gate;
mod gates;
mod handle;
mod json_pointer;
mod manifest;
mod masking;
mod requests;
mod response;
mod rollbacks;
mod rules;
mod run;
mod shadow;
mod shares;
mod strict_json;
mod watch;
mod watcher;

pub use self::{
    compatibility::{SampleRefusals, judge_sample},
    duration_text::written,
    expression::{EvaluationError, Expression, ExpressionError},
    gate::{GateName, GateReport, GateResult, Verdict},
    handle::{Release, ReleaseError},
    masking::cut,
    response::check_regex,
    rules::{MANIFEST_NAMES, RESPONSE_NAMES},
    watch::{ShareProgress, WatchProgress},
    watcher::Watcher,
};
