//! The watch after a promotion: judges the answers of the new color.
//!
//! `judge` and what it uses are pure. The statistics of a watch are in memory: after a restart it goes on with the time
//! that is left, and with new statistics. The task that runs the watches is `release::watcher`.

mod baseline;
mod clients;
mod judge;
mod mixture;
mod progress;
mod running;

pub use self::progress::WatchProgress;
pub(super) use self::{
    baseline::Baselines,
    judge::{TICK, WatchEnd, percent},
    progress::WatchBoard,
    running::RunningWatch,
};
