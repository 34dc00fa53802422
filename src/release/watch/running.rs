//! One watch in progress: reads what happened since the last tick, and has it judged.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    baseline::totals,
    progress::WatchProgress,
    verdict::{
        FAILED, FireReason, InconclusiveReason, JudgeSettings, LatencySettings, Outcome, Tick,
        WatchJudge,
    },
};
use crate::{
    control::Control,
    model::{Color, Generation, Health, ServiceName, WatchAction, WatchSettings, client_key},
    store::WatchState,
    switch::SideId,
    upstream::Pool,
};

/// The time between two ticks.
pub(in crate::release) const TICK: Duration = Duration::from_millis(250);

/// Stands for the clients that are not known. They count as one client.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Without a limit of the latency, and as long as that does not count, a request without a response is a failure after so
/// long.
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
    /// Slower responses are slow.
    bound: Option<Duration>,
    /// Since when that counts.
    bound_from: Instant,
    since: Instant,
    /// What was counted up to the last tick.
    seen: Counters,
}

/// The counters of a pool.
#[derive(Clone, Copy, Debug)]
struct Counters {
    answered: u64,
    heads: u64,
}

// === impl RunningWatch ===

impl RunningWatch {
    /// Begins a watch, or goes on with one after a restart. `left` is the time until its end. With `waits`, it goes on until
    /// it has a verdict.
    pub(in crate::release) fn begin(
        service: &ServiceName,
        state: &WatchState,
        settings: &WatchSettings,
        pool: &Arc<Pool>,
        left: Duration,
        waits: bool,
    ) -> Self {
        let bound = settings.latency.map(|it| it.bound);
        pool.metrics().outcomes().watch(true, bound);
        Self {
            service: service.clone(),
            color: pool.color(),
            state: state.clone(),
            action: settings.action,
            has_fired: false,
            judge: WatchJudge::new(&judge_settings(settings, left, waits), state.before),
            pool: Arc::clone(pool),
            bound,
            bound_from: Instant::now() + settings.latency_after,
            since: Instant::now(),
            seen: Counters::of(pool),
        }
    }

    /// The generation of the promotion.
    pub(in crate::release) fn generation(&self) -> Generation {
        self.state.generation
    }

    /// Has the requests that cannot be connected to the color served by this pool, until the watch ends.
    pub(in crate::release) fn rescue_by(&self, pool: Arc<Pool>) {
        self.pool.rescuer().set(Some(pool));
    }

    /// Judges what happened since the last tick.
    pub(in crate::release) fn tick(&mut self, control: &Control, now: Instant) -> Outcome {
        let outcomes = self.pool.metrics().outcomes();
        let mut failures = known(outcomes.take_failures());
        let slow = known(outcomes.take_slow());
        let side = control.switch().read(|table| {
            let service = table.service(&self.service)?;
            let terms = service.terms().as_deref();
            let gets_requests =
                service.active() == self.color || terms.is_some_and(|it| it.admits(self.color));
            gets_requests.then(|| service.side(self.color).id())
        });
        let before = std::mem::replace(&mut self.seen, Counters::of(&self.pool));
        let Counters { answered, heads } = self.seen;
        let mut answers = answered.saturating_sub(before.answered);
        if let Some(side) = side {
            let overdue = self.overdue(control, side, now);
            answers += overdue.len() as u64;
            failures.extend(overdue.into_iter().map(|it| (it.map_or(UNKNOWN, client_key), 1)));
        }
        let heads = heads.saturating_sub(before.heads);
        self.judge.tick(&Tick { answers, failures: &failures, heads, slow: &slow })
    }

    /// The clients of requests that have been waiting for a response for too long.
    fn overdue(&self, control: &Control, side: SideId, now: Instant) -> Vec<Option<IpAddr>> {
        // A cold application may take longer than the bound.
        let bound = self.bound.filter(|_| now >= self.bound_from);
        let Some(before) = now.checked_sub(bound.unwrap_or(HANGING_AFTER)) else {
            return Vec::new();
        };
        // Earlier requests may have a response that was not noted.
        control.ledger().take_overdue(side, self.since, before)
    }

    pub(in crate::release) fn progress(&self) -> WatchProgress {
        let counts = self.judge.failures();
        WatchProgress {
            failures: counts.failures,
            requests: counts.answers,
            share: counts.share(),
            rescue: self.pool.rescuer().is_set(),
        }
    }

    /// What was counted, for people.
    pub(in crate::release) fn summary(&self) -> String {
        self.judge.failures().describe(FAILED)
    }

    /// Ends the watch, because its time is over.
    pub(in crate::release) fn end(&mut self) -> Outcome {
        self.judge.end()
    }

    /// Since when requests count that get no response.
    pub(in crate::release) fn since(&self) -> Instant {
        self.since
    }

    /// Goes on with the requests of an earlier watch of the pool, which has ended just now.
    pub(in crate::release) fn count_since(&mut self, since: Instant) {
        self.since = since;
    }

    /// Judges what happens from now on, if the watch has passed. The verdict stays with the caller.
    pub(in crate::release) fn judge_again(&mut self) {
        self.judge.restart_if_passed();
    }

    /// Whether the share of failures or of slow answers is above its limit now, which may be chance.
    pub(in crate::release) fn is_doubtful(&self) -> bool {
        let reason = self.judge.inconclusive();
        matches!(reason, Some(InconclusiveReason::Failures(_) | InconclusiveReason::Slow(_)))
    }

    /// Whether the counters of this pool are the ones that are judged.
    pub(in crate::release) fn is_of(&self, pool: &Pool) -> bool {
        Arc::ptr_eq(self.pool.metrics(), pool.metrics())
    }

    /// Whether the color has an endpoint that is up.
    pub(in crate::release) fn has_endpoint_up(&self) -> bool {
        self.pool.endpoints().iter().any(|it| it.health() == Health::Up)
    }

    /// Why there is no proof yet that the color is good.
    pub(in crate::release) fn missing(&self) -> Option<String> {
        self.judge.inconclusive().map(|it| it.to_string())
    }

    /// Why the color is bad, for people.
    pub(in crate::release) fn describe(&self, reason: FireReason) -> String {
        match (reason, self.bound) {
            (FireReason::Slow(_), Some(bound)) => {
                format!("{reason}; slow is more than {} ms", bound.as_millis())
            }
            _ => reason.to_string(),
        }
    }
}

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.pool.rescuer().set(None);
        self.pool.metrics().outcomes().watch(false, None);
    }
}

// === impl Counters ===

impl Counters {
    fn of(pool: &Pool) -> Self {
        let metrics = pool.metrics();
        let (_, answered) = totals(pool);
        Self { answered, heads: metrics.heads() }
    }
}

/// How the answers of a watch of this time are judged.
fn judge_settings(settings: &WatchSettings, time: Duration, waits: bool) -> JudgeSettings {
    let WatchSettings { errors, latency, latency_after, requests, clients, .. } = settings;
    let latency = latency.map(|it| LatencySettings {
        share: it.slow_share(),
        after: ticks_of(*latency_after),
        clients: *clients,
    });
    JudgeSettings {
        limit_percent: f64::from(*errors),
        ticks: ticks_of(time),
        requests_min: *requests,
        clients: *clients,
        latency,
        waits,
    }
}

fn ticks_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

fn known(counts: Vec<(Option<IpAddr>, u64)>) -> Vec<(IpAddr, u64)> {
    counts.into_iter().map(|(client, count)| (client.unwrap_or(UNKNOWN), count)).collect()
}
