//! The load of public clients. The check of the drill finds afterwards whether the colors of their responses agree with
//! the flips.

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

/// The flips and their times.
#[derive(Debug, Default)]
pub(super) struct FlipLog(Vec<RegisterWrite>);

/// The responses to public clients.
#[derive(Debug, Default)]
pub(super) struct Observations {
    pub(super) blue: AtomicU64,
    pub(super) green: AtomicU64,
    /// Requests without a response, or with a wrong one.
    pub(super) failed: AtomicU64,
    responses: Mutex<Vec<RegisterRead>>,
}

/// Clients that send requests until they are stopped.
#[derive(Debug)]
pub(super) struct DemoLoad {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

// === impl FlipLog ===

impl FlipLog {
    /// Records a flip that has just been acknowledged.
    pub(super) fn acknowledged(&mut self, to: Color, called: u64) {
        let (flip, acknowledged) = (self.0.len(), now_ns());
        let changes = vec![(0, to)];
        self.0.push(RegisterWrite { flip, changes, called, acknowledged, is_reset: false });
    }
}

// === impl Observations ===

impl Observations {
    /// The number of responses, or pairs of them, that contradict these flips. The first active color is blue.
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

    /// Stops the clients, and waits for their last responses.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

/// Sends a request on a kept connection or on a new one, and returns the connection. A failed request is counted, and
/// its connection is closed.
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
        // If the accept queue is full, another connection at once would not help.
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
