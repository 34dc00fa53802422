//! `shadow`: copies of live requests get the same responses from both versions.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    model::ShadowGate,
    release::{
        candidate::Candidate,
        duration_text::written,
        gate::{Findings, Gate, GateName},
        shadow::{Exchange, Normalization, Tally, Verdict},
    },
    upstream::{OpenTap, TapSettings},
};

/// Copied requests at the same time: each has three responses of at most 1 MiB in memory.
const CONCURRENT: usize = 8;

/// The time between two copied requests, so that fast applications leave the control thread time for other work.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Shadow(pub(super) ShadowGate);

/// Why the copying has ended.
enum End {
    /// Its time is over.
    Time,
    /// The candidate certainly differs too often.
    Certain,
    /// The pools were changed, or Flipgate stops.
    Superseded,
}

impl Gate for Shadow {
    fn name(&self) -> GateName {
        GateName::Shadow
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(&self.0, candidate).boxed()
    }
}

/// Cancel-safe: dropping the future closes the tap and all connections.
async fn check(gate: &ShadowGate, candidate: &Candidate) -> Findings {
    let ShadowGate { share, credentials, exclude, .. } = gate;
    let rules = match Normalization::new(gate) {
        Ok(rules) => Arc::new(rules),
        Err(why) => return Findings::refused(format!("gate.shadow.ignore_text: {why}")),
    };
    let settings =
        TapSettings { share: *share, credentials: *credentials, exclude: exclude.clone() };
    let Some(mut tap) = candidate.active.tap().open(settings) else {
        let service = &candidate.service;
        return Findings::refused(format!(
            "another call runs the gates of {service} and copies its requests; try again when it has ended"
        ));
    };
    let (timeout, latency) = (gate.timeout, gate.latency);
    let exchange = Exchange { candidate, rules, timeout, latency, sent: AtomicUsize::new(0) };
    let mut tally = Tally::default();
    match compare(gate, &exchange, &mut tap, &mut tally).await {
        End::Superseded => Findings::refused(format!(
            "the pools or the active color of {} have changed meanwhile; try again",
            candidate.service
        )),
        End::Time | End::Certain => judge(gate, &tally, tally.evidence(&tap)),
    }
}

/// Sends and compares copies until there is a reason to end. Those on their way at the end of the time are waited for: a
/// candidate that hangs must not seem better than one that fails.
async fn compare(
    gate: &ShadowGate,
    exchange: &Exchange<'_>,
    tap: &mut OpenTap,
    tally: &mut Tally,
) -> End {
    let ShadowGate { time, requests, different, .. } = gate;
    let is_certain =
        |it: &Tally| Verdict::is_certain(*different, *requests, it.different, it.compared);
    let mut running = FuturesUnordered::new();
    let end = Instant::now() + *time;
    let mut next_at = Instant::now();
    let mut superseded = std::pin::pin!(exchange.candidate.superseded());
    let mut is_over = false;
    loop {
        tokio::select! {
            biased;
            () = &mut superseded => return End::Superseded,
            Some(outcome) = running.next() => {
                tally.add(outcome);
                if is_certain(tally) {
                    return End::Certain;
                }
            }
            () = sleep_until(end), if !is_over => {
                tap.close();
                is_over = true;
            }
            head = async {
                sleep_until(next_at).await;
                tap.next().await
            }, if !is_over && running.len() < CONCURRENT => {
                next_at = Instant::now() + PAUSE;
                running.push(exchange.run(head));
            }
        }
        if is_over && running.is_empty() {
            return End::Time;
        }
    }
}

/// The findings for what was compared.
fn judge(gate: &ShadowGate, tally: &Tally, evidence: Vec<String>) -> Findings {
    let ShadowGate { time, requests, different: limit, .. } = gate;
    let Tally { compared, different, differences, .. } = tally;
    let summary = format!("{different} of {compared} compared requests differ");
    let mut findings = Findings::default();
    match Verdict::of(*limit, *requests, *different, *compared) {
        Verdict::Passed => {
            findings.evidence.push(format!("{summary}, at most {limit} % may"));
            findings.evidence.extend(differences.iter().cloned());
        }
        Verdict::Different => {
            findings.reasons.push(format!("{summary}, at most {limit} % may"));
            findings.reasons.extend(differences.iter().cloned());
        }
        Verdict::Inconclusive(needed) => {
            let needed = match needed {
                Some(needed) => format!(
                    "{needed} compared requests are needed; set a longer `for`, or a larger `share` or `different`"
                ),
                None => "no number of requests would be enough at this share".to_owned(),
            };
            findings.reasons.push(format!(
                "inconclusive: {summary} after {}, at most {limit} % may; {needed}; {}",
                written(*time),
                evidence.join("; ")
            ));
            findings.reasons.extend(differences.iter().cloned());
        }
    }
    findings.evidence.extend(evidence);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(different: u64, compared: u64) -> Findings {
        let mut tally = Tally::default();
        (tally.compared, tally.different) = (compared, different);
        tally.differences.extend((different > 0).then(|| "GET /: it differs".to_owned()));
        judge(&ShadowGate::default(), &tally, vec!["requests copied: 7".to_owned()])
    }

    #[test]
    fn each_verdict_has_its_numbers_and_the_first_differences() {
        let passed = findings(0, 1000);
        assert_eq!(passed.reasons, [""; 0]);
        assert_eq!(
            passed.evidence,
            ["0 of 1000 compared requests differ, at most 1 % may", "requests copied: 7"]
        );
        assert_eq!(
            findings(100, 1000).reasons,
            ["100 of 1000 compared requests differ, at most 1 % may", "GET /: it differs"]
        );
        assert_eq!(
            findings(0, 10).reasons,
            [
                "inconclusive: 0 of 10 compared requests differ after 1 min, at most 1 % may; 362 compared requests are needed; set a longer `for`, or a larger `share` or `different`; requests copied: 7"
            ]
        );
        let at_the_limit = findings(10, 1000).reasons;
        assert!(
            at_the_limit[0].contains("no number of requests would be enough"),
            "{at_the_limit:?}"
        );
    }
}
