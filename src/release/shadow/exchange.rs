//! Sends the copies of a request to both versions, and compares the responses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join3;

use super::{
    answer::{BODY_MAX, Normalization},
    compare::{Obstacle, Outcome, Replies, Reply},
    copied::CopiedRequest,
};
use crate::{
    model::Health,
    release::{
        candidate::Candidate,
        requests::{address_of, send_within},
    },
    upstream::{EndpointState, Pool},
};

/// Sends copies of requests.
pub(in crate::release) struct Exchange<'a> {
    pub(in crate::release) candidate: &'a Candidate,
    pub(in crate::release) rules: Arc<Normalization>,
    /// The time for each response.
    pub(in crate::release) timeout: Duration,
    /// How much later the candidate may respond.
    pub(in crate::release) latency: Option<Duration>,
    /// Copied requests so far: the endpoints take turns.
    pub(in crate::release) sent: AtomicUsize,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Sends a copied request once to the candidate and twice to the active color, at the same time, and compares the
    /// responses. Takes at most `timeout` and the time of the comparison. Cancel-safe: dropping the future closes the
    /// connections.
    pub(in crate::release) async fn run(&self, head: Box<[u8]>) -> Outcome {
        let turn = self.sent.fetch_add(1, Relaxed);
        let (new, old) = (usable(&self.candidate.pool), usable(&self.candidate.active));
        let (Some(copied), false, false) =
            (CopiedRequest::parse(&head), new.is_empty(), old.is_empty())
        else {
            return Outcome::NotCompared(Obstacle::Local);
        };
        let at = |all: &[Arc<EndpointState>], turn: usize| Arc::clone(&all[turn % all.len()]);
        // Two endpoints, if there are two: what differs between them differs within the version.
        let (new, one, two) = (at(&new, turn), at(&old, turn), at(&old, turn.wrapping_add(1)));
        let (candidate, one, two) =
            join3(self.send(&copied, &new), self.send(&copied, &one), self.send(&copied, &two))
                .await;
        let replies = Replies { copied, candidate, active: [one, two] };
        let (rules, latency) = (Arc::clone(&self.rules), self.latency);
        // Bodies are large: not on the control thread.
        let compared = self.candidate.evaluator.run(move || replies.compare(&rules, latency));
        compared.await.unwrap_or(Outcome::NotCompared(Obstacle::Local))
    }

    async fn send(&self, copied: &CopiedRequest, endpoint: &EndpointState) -> Reply {
        let sent = send_within(endpoint, copied.to_send(), BODY_MAX, self.timeout);
        Reply { address: address_of(endpoint), result: sent.await }
    }
}

/// The endpoints of a pool that are not down, as requests of clients go to them; all if there is none.
fn usable(pool: &Pool) -> Vec<Arc<EndpointState>> {
    let all = pool.endpoints();
    let up: Vec<_> = all.iter().filter(|it| it.health() != Health::Down).cloned().collect();
    if up.is_empty() { all } else { up }
}
