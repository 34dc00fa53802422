//! A progress line on a terminal.

use std::{
    cell::Cell,
    io::IsTerminal,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::live::LiveCounters;
use crate::sample::now_ns;

/// The progress line of a drill.
pub(super) struct Progress {
    bar: ProgressBar,
    last: Cell<Option<(Instant, u64, f64)>>,
}

/// The rate is the mean of this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// A progress line on standard error. Hidden if that is not a terminal.
#[must_use]
pub fn spinner(is_hidden: bool) -> ProgressBar {
    let target = match is_hidden || !std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let style = ProgressStyle::with_template("  {spinner:.cyan} {wide_msg}");
    let bar = ProgressBar::with_draw_target(None, target)
        .with_style(style.expect("a template of known words"));
    bar.enable_steady_tick(Duration::from_millis(80));
    bar
}

impl Progress {
    pub(super) fn new(is_hidden: bool) -> Self {
        Self { bar: spinner(is_hidden), last: Cell::new(None) }
    }

    pub(super) fn set_message(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    pub(super) fn show(&self, live: &LiveCounters, flips: usize, from: u64, until: u64) {
        let done = live.done.load(Relaxed);
        let (now, last) = (Instant::now(), self.last.get());
        let rate = match last {
            Some((at, _, rate)) if now - at < RATE_WINDOW => rate,
            Some((at, before, _)) => (done - before) as f64 / (now - at).as_secs_f64(),
            None => 0.0,
        };
        if last.is_none_or(|(at, _, _)| now - at >= RATE_WINDOW) {
            self.last.set(Some((now, done, rate)));
        }
        let now_ns = now_ns();
        let passed = now_ns.min(until).saturating_sub(from) as f64 / 1e9;
        let all = until.saturating_sub(from) as f64 / 1e9;
        let failed = live.failed.load(Relaxed);
        let time = format!("{passed:.0} of {all:.0} s");
        self.bar.set_message(if now_ns > until {
            format!(
                "{time} · {done} requests · {failed} failed · {flips} flips · waiting for responses"
            )
        } else {
            format!(
                "{time} · {done} requests, {rate:.0} per second · {failed} failed · {flips} flips"
            )
        });
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
