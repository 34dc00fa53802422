//! `warm_up`: every endpoint of the candidate has served requests, so that its caches are filled.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    model::{WarmUpGate, WarmUpTarget},
    release::{
        candidate::Candidate,
        duration_text::written,
        gate::{Findings, Gate, GateName},
        requests::{GateRequest, address_of, for_each},
    },
    upstream::EndpointState,
};

/// Responses that the 95th percentile is of: the slowest one of them may be slower.
const WINDOW: usize = 20;

/// The pause after a failed request.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes of a body that are read.
const BODY_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct WarmUp(pub(super) WarmUpGate);

impl Gate for WarmUp {
    fn name(&self) -> GateName {
        GateName::WarmUp
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(&self.0, candidate).boxed()
    }
}

async fn check(gate: &WarmUpGate, candidate: &Candidate) -> Findings {
    let endpoints = candidate.pool.endpoints();
    let warm_up = async |endpoint: Arc<EndpointState>| {
        let warm = warm_up(gate, candidate, &endpoint).await;
        let address = address_of(&endpoint);
        match warm {
            Ok(how) => Findings::passed(format!("{address}: {how}")),
            Err(why) => Findings::refused(format!("{address}: {why}")),
        }
    };
    let mut all = Findings::default();
    for_each(&endpoints, warm_up).await.into_iter().for_each(|it| all.add(it));
    all
}

/// Sends requests one after the other until the endpoint is warm.
async fn warm_up(
    gate: &WarmUpGate,
    candidate: &Candidate,
    endpoint: &EndpointState,
) -> Result<String, String> {
    let WarmUpGate { paths, until, within } = gate;
    let began = Instant::now();
    let mut progress = Progress::default();
    for path in paths.iter().cycle() {
        if let Some(how) = progress.is_warm(*until) {
            return Ok(how);
        }
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        let sent = GateRequest::get(path).send(candidate, endpoint, BODY_MAX, left).await;
        let failure = match sent {
            Ok(response) if response.status < 500 => {
                progress.record(response.took);
                continue;
            }
            Ok(response) => format!("status {}", response.status),
            Err(why) => why,
        };
        progress.failed(path, &failure);
        tokio::time::sleep(PAUSE.min(left)).await;
    }
    Err(format!("not warm within {}: {}", written(*within), progress.describe(*until)))
}

/// The responses of one endpoint.
#[derive(Debug, Default)]
struct Progress {
    answered: usize,
    /// The times of the last responses.
    window: VecDeque<Duration>,
    failures: usize,
    last_failure: Option<String>,
}

impl Progress {
    fn record(&mut self, took: Duration) {
        self.answered += 1;
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(took);
    }

    fn failed(&mut self, path: &str, why: &str) {
        self.failures += 1;
        self.last_failure = Some(format!("{path}: {why}"));
    }

    /// How the target is met; `None` if it is not.
    fn is_warm(&self, until: WarmUpTarget) -> Option<String> {
        let is_warm = match until {
            WarmUpTarget::Requests(count) => self.answered >= count,
            WarmUpTarget::P95(bound) => self.p95().is_some_and(|it| it <= bound),
        };
        is_warm.then(|| self.describe(until))
    }

    /// The 95th percentile of a full window.
    fn p95(&self) -> Option<Duration> {
        let mut times: Vec<_> = self.window.iter().copied().collect();
        if times.len() < WINDOW {
            return None;
        }
        times.sort_unstable();
        times.get(WINDOW * 95 / 100 - 1).copied()
    }

    fn describe(&self, until: WarmUpTarget) -> String {
        let Self { answered, failures, last_failure, .. } = self;
        let mut text = match (until, self.p95()) {
            (WarmUpTarget::Requests(count), _) => {
                format!("{answered} of {count} requests answered")
            }
            (WarmUpTarget::P95(bound), Some(p95)) => format!(
                "{answered} requests answered, p95 of the last {WINDOW} is {:.1} ms of {:.1} ms",
                p95.as_secs_f64() * 1000.0,
                bound.as_secs_f64() * 1000.0
            ),
            (WarmUpTarget::P95(_), None) => {
                format!("{answered} requests answered, {WINDOW} needed for a p95")
            }
        };
        if let Some(last) = last_failure {
            text += &format!("; {failures} failed, the last one: {last}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p95_is_of_the_last_responses_and_allows_one_that_is_slower() {
        let until = WarmUpTarget::P95(Duration::from_millis(10));
        let mut progress = Progress::default();
        let ms = Duration::from_millis;
        (0..WINDOW).for_each(|_| progress.record(ms(100)));
        assert_eq!(progress.is_warm(until), None, "cold");
        (0..WINDOW - 2).for_each(|_| progress.record(ms(1)));
        assert_eq!(progress.is_warm(until), None, "two are slower");
        progress.record(ms(1));
        assert!(progress.is_warm(until).is_some(), "one is slower");
        let mut short = Progress::default();
        (0..WINDOW - 1).for_each(|_| short.record(ms(1)));
        assert_eq!(short.is_warm(until), None, "too few");
    }

    #[test]
    fn only_answered_requests_count() {
        let mut progress = Progress::default();
        (0..5).for_each(|_| progress.failed("/", "status 503"));
        assert_eq!(progress.is_warm(WarmUpTarget::Requests(1)), None);
        progress.record(Duration::ZERO);
        let how = progress.is_warm(WarmUpTarget::Requests(1)).expect("warm");
        assert_eq!(how, "1 of 1 requests answered; 5 failed, the last one: /: status 503");
    }
}
