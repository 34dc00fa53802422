//! The public: clients that ask one page after the other, and check each answer against the flips.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::Client;

/// When which color was made active: what answers are checked against.
#[derive(Debug)]
pub(super) struct Flips(Mutex<Vec<Flip>>);

#[derive(Clone, Copy, Debug)]
struct Flip {
    to: &'static str,
    called: Instant,
    /// None while the call is under way.
    acknowledged: Option<Instant>,
}

/// What the public has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) blue: AtomicU64,
    pub(super) green: AtomicU64,
    /// No answer, or not the one that was asked for.
    pub(super) failed: AtomicU64,
    /// Answered by a color that could not be active at any moment of the request.
    pub(super) wrong: AtomicU64,
}

/// Clients that go on asking until they are told to stop.
#[derive(Debug)]
pub(super) struct Load {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

// === impl Flips ===

impl Flips {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(vec![Flip { to: "blue", called: now, acknowledged: Some(now) }]))
    }

    pub(super) fn called(&self, to: &'static str) {
        let flip = Flip { to, called: Instant::now(), acknowledged: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(flip);
    }

    pub(super) fn acknowledged(&self) {
        let mut flips = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flip) = flips.last_mut() {
            flip.acknowledged = Some(Instant::now());
        }
    }

    /// Whether `color` was active at some moment from `began` to `ended`: it was made active before
    /// the request ended, and the flip after it had not been acknowledged when the request began.
    fn allow(&self, color: &str, began: Instant, ended: Instant) -> bool {
        let flips = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flips.iter().enumerate().any(|(place, flip)| {
            let is_over = |next: &Flip| next.acknowledged.is_some_and(|it| it <= began);
            flip.to == color && flip.called <= ended && !flips.get(place + 1).is_some_and(is_over)
        })
    }
}

// === impl Load ===

impl Load {
    /// Starts `clients` clients from the address `from`.
    pub(super) fn start(
        clients: usize,
        from: IpAddr,
        to: SocketAddr,
        flips: &Arc<Flips>,
        seen: &Arc<Seen>,
    ) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for _ in 0..clients {
            let (flips, seen, stop) = (Arc::clone(flips), Arc::clone(seen), stop.clone());
            tasks.spawn(async move {
                let mut client = None;
                while !stop.is_cancelled() {
                    client = ask(client, from, to, &flips, &seen).await;
                }
            });
        }
        Self { tasks, stop }
    }

    /// Lets every client finish what it asked.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

/// Asks once, on the connection that there is or on a new one. A request that fails costs its
/// connection and is counted.
async fn ask(
    client: Option<Client>,
    from: IpAddr,
    to: SocketAddr,
    flips: &Flips,
    seen: &Seen,
) -> Option<Client> {
    let connected = match client {
        Some(client) => Ok(client),
        None => Client::connect(from, to).await,
    };
    let Ok(mut client) = connected else {
        seen.failed.fetch_add(1, Relaxed);
        // A full queue of connections needs a moment, not another connection.
        tokio::task::yield_now().await;
        return None;
    };
    let began = Instant::now();
    let answer = client.get("/whoami", &[]).await;
    let ended = Instant::now();
    let color = match &answer {
        Ok(answer) if answer.status == 200 => answer.headers.get("x-sample-color"),
        _ => None,
    };
    let Some(color) = color.and_then(|it| it.to_str().ok()) else {
        seen.failed.fetch_add(1, Relaxed);
        return None;
    };
    let count = if color == "blue" { &seen.blue } else { &seen.green };
    count.fetch_add(1, Relaxed);
    if !flips.allow(color, began, ended) {
        seen.wrong.fetch_add(1, Relaxed);
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The check must be able to fail, or a clean report says nothing.
    #[test]
    fn an_answer_by_a_color_that_was_not_active_is_found() {
        let flips = Flips::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        flips.0.lock().expect("no panic").push(Flip {
            to: "green",
            called: at(10),
            acknowledged: Some(at(20)),
        });
        assert!(flips.allow("blue", at(0), at(5)) && !flips.allow("green", at(0), at(5)));
        assert!(flips.allow("blue", at(12), at(30)) && flips.allow("green", at(12), at(30)));
        assert!(flips.allow("blue", at(5), at(15)) && flips.allow("green", at(5), at(15)));
        assert!(!flips.allow("blue", at(21), at(25)) && flips.allow("green", at(21), at(25)));
        assert!(!flips.allow("red", at(21), at(25)));
    }
}
