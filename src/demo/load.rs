//! The public: clients that ask one page after the other. What they were told is judged afterwards, with
//! the flips, by the check that a drill uses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use flipgate_drill::{
    Color,
    register::{RegisterRead, RegisterWrite, conflicts},
    sample::{self, now_ns},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::DemoClient;

/// When which color was made active.
#[derive(Debug, Default)]
pub(super) struct FlipLog(Vec<RegisterWrite>);

/// What the public has seen.
#[derive(Debug, Default)]
pub(super) struct Observations {
    pub(super) blue: AtomicU64,
    pub(super) green: AtomicU64,
    /// No answer, or not the one that was asked for.
    pub(super) failed: AtomicU64,
    responses: Mutex<Vec<RegisterRead>>,
}

/// Clients that go on asking until they are told to stop.
#[derive(Debug)]
pub(super) struct DemoLoad {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

// === impl FlipLog ===

impl FlipLog {
    /// Notes a flip that was called, and whose acknowledgement has just come.
    pub(super) fn acknowledged(&mut self, to: Color, called: u64) {
        let (flip, acknowledged) = (self.0.len(), now_ns());
        let changes = vec![(0, to)];
        self.0.push(RegisterWrite { flip, changes, called, acknowledged, is_reset: false });
    }
}

// === impl Observations ===

impl Observations {
    /// How many answers, or pairs of them, no order of these flips explains; blue was active at first.
    pub(super) fn conflict_count(&self, flips: &FlipLog) -> u64 {
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        conflicts(&[Color::Blue], &flips.0, &responses).len() as u64
    }

    fn note(&self, color: Color, began: u64) {
        let count = if color == Color::Blue { &self.blue } else { &self.green };
        count.fetch_add(1, Relaxed);
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        let request = responses.len();
        responses.push(RegisterRead { request, service: 0, color, began, ended: now_ns() });
    }
}

// === impl DemoLoad ===

impl DemoLoad {
    /// Starts `clients` clients from the address `from`.
    pub(super) fn start(
        clients: usize,
        from: IpAddr,
        to: SocketAddr,
        observations: &Arc<Observations>,
    ) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for _ in 0..clients {
            let (observations, stop) = (Arc::clone(observations), stop.clone());
            tasks.spawn(async move {
                let mut client = None;
                while !stop.is_cancelled() {
                    client = send_request(client, from, to, &observations).await;
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
async fn send_request(
    client: Option<DemoClient>,
    from: IpAddr,
    to: SocketAddr,
    observations: &Observations,
) -> Option<DemoClient> {
    let connected = match client {
        Some(client) => Ok(client),
        None => DemoClient::connect(from, to).await,
    };
    let Ok(mut client) = connected else {
        observations.failed.fetch_add(1, Relaxed);
        // A full queue of connections needs a moment, not another connection.
        tokio::task::yield_now().await;
        return None;
    };
    let began = now_ns();
    let response = client.get("/whoami", &[]).await;
    let color = match &response {
        Ok(response) if response.status == 200 => response.headers.get(sample::COLOR),
        _ => None,
    };
    let color = color.and_then(|it| it.to_str().ok()).and_then(|it| it.parse().ok());
    let Some(color) = color else {
        observations.failed.fetch_add(1, Relaxed);
        return None;
    };
    observations.note(color, began);
    Some(client)
}
