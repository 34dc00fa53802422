//! One watch in progress: reads what happened since the last tick, and has it judged.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    baseline::totals,
    judge::{TickCounts, WatchEnd, WatchJudge},
    progress::WatchProgress,
};
use crate::{
    control::Control,
    model::{Color, Generation, ServiceName, WatchAction, WatchSettings, client_key},
    store::WatchState,
    switch::SideId,
    upstream::Pool,
};

/// Without a limit of the latency, a request without a response is a failure after so long.
const HANGING_AFTER: Duration = Duration::from_secs(10);

/// A watch in progress.
#[derive(Debug)]
pub(in crate::release) struct RunningWatch {
    pub(in crate::release) service: ServiceName,
    pub(in crate::release) color: Color,
    pub(in crate::release) state: WatchState,
    pub(in crate::release) action: WatchAction,
    /// Whether it was found bad, and is being taken back.
    pub(in crate::release) has_fired: bool,
    judge: WatchJudge,
    pool: Arc<Pool>,
    /// Requests without a response are failures after so long.
    overdue_after: Duration,
    since: Instant,
    /// What was counted up to the last tick.
    seen: Counters,
}

/// The counters of a pool.
#[derive(Clone, Copy, Debug)]
struct Counters {
    failed: u64,
    answered: u64,
    slow: u64,
    heads: u64,
}

// === impl RunningWatch ===

impl RunningWatch {
    /// Begins a watch, or goes on with one after a restart. `left` is the time until its end.
    pub(in crate::release) fn begin(
        service: &ServiceName,
        state: &WatchState,
        settings: &WatchSettings,
        pool: &Arc<Pool>,
        left: Duration,
    ) -> Self {
        let bound = settings.latency.map(|it| it.bound);
        pool.metrics().outcomes().watch(true, bound);
        Self {
            service: service.clone(),
            color: pool.color(),
            state: state.clone(),
            action: settings.action,
            has_fired: false,
            judge: WatchJudge::new(settings, left, state.before),
            pool: Arc::clone(pool),
            overdue_after: bound.unwrap_or(HANGING_AFTER),
            since: Instant::now(),
            seen: Counters::of(pool),
        }
    }

    /// The generation of the promotion.
    pub(in crate::release) fn generation(&self) -> Generation {
        self.state.generation
    }

    /// Judges what happened since the last tick. Returns why the color is bad, if that is proved now.
    pub(in crate::release) fn tick(&mut self, control: &Control, now: Instant) -> Option<String> {
        let mut failures: HashMap<Option<IpAddr>, u64> =
            self.pool.metrics().outcomes().take_failures().into_iter().collect();
        let side = control.switch().read(|table| {
            let service = table.service(&self.service)?;
            (service.active() == self.color).then(|| service.side(self.color).id())
        });
        if let Some(side) = side {
            for client in self.overdue(control, side, now) {
                *failures.entry(client.map(client_key)).or_default() += 1;
            }
        }
        let before = std::mem::replace(&mut self.seen, Counters::of(&self.pool));
        let Counters { failed, answered, slow, heads } = self.seen;
        let of = |now: u64, before: u64| now.saturating_sub(before);
        let (failed, answered) = (of(failed, before.failed), of(answered, before.answered));
        let (slow, heads) = (of(slow, before.slow), of(heads, before.heads));
        let counts = TickCounts {
            failures: failures.into_iter().collect(),
            others: answered.saturating_sub(failed),
            slow,
            fast: heads.saturating_sub(slow),
        };
        self.judge.tick(&counts)
    }

    /// The clients of requests that have been waiting for a response for too long.
    fn overdue(&self, control: &Control, side: SideId, now: Instant) -> Vec<Option<IpAddr>> {
        let Some(before) = now.checked_sub(self.overdue_after) else { return Vec::new() };
        // Earlier requests may have a response that was not noted.
        control.ledger().take_overdue(side, self.since, before)
    }

    pub(in crate::release) fn progress(&self) -> WatchProgress {
        let (failures, requests) = self.judge.counts();
        WatchProgress { failures, requests, share: self.judge.share() }
    }

    /// How the watch ends, if it did not fire.
    pub(in crate::release) fn end(&self) -> WatchEnd {
        self.judge.end()
    }
}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.pool.metrics().outcomes().watch(false, None);
    }
}

// === impl Counters ===

impl Counters {
    fn of(pool: &Pool) -> Self {
        let metrics = pool.metrics();
        let (failed, answered) = totals(pool);
        Self { failed, answered, slow: metrics.outcomes().slow(), heads: metrics.heads() }
    }
}
