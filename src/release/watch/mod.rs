//! The watch after a promotion: judges the answers of the new color.
//!
//! The statistics are pure: no I/O and no clock. They are in memory: after a restart a watch goes on with the time that is
//! left, and with new statistics. The task that runs the watches is `release::watcher`.
//!
//! ```text
//! running       RunningWatch: reads what happened since the last tick, and has it judged
//! ├─ verdict    WatchJudge: one watch, its settings, its outcome
//! │  ├─ share   ShareJudge: the share of failures, or of slow answers
//! │  │  ├─ clients  FailingClients: which failures count, so that no single client fires the test
//! │  │  └─ mixture  MixtureTest: the sequential test of a share
//! │  └─ bound   upper_bound: the limit if the old color failed more than the configured one (the gate shadow uses it, too)
//! baseline      what the old color answered before the flip
//! progress      how the watches stand, for the status
//! ```

mod baseline;
mod bound;
mod clients;
mod mixture;
mod progress;
#[cfg(test)]
mod random;
mod running;
mod share;
mod verdict;

pub use self::progress::{ShareProgress, WatchProgress};
pub(super) use self::{
    baseline::Baselines,
    bound::upper_bound,
    progress::{ShareBoard, WatchBoard},
    running::{RunningWatch, TICK},
    verdict::Outcome,
};
