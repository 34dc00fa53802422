//! What the connections of a worker share, and what each connection holds until it ends.

use std::{ops::Deref, rc::Rc, sync::Arc, time::Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::{
    Handler,
    capacity::ConnectionCapacity,
    connection_table::ConnectionTable,
    per_client::{ClientPermit, PerClientLimit},
};
use crate::{
    http1::HeadLimits,
    metrics::{GaugeGuard, Metrics},
    net::BufferPool,
};

/// What an open connection holds until it ends.
pub(super) struct ConnectionGuard {
    /// Its permit of the limit for all workers.
    pub(super) _capacity_permit: OwnedSemaphorePermit,
    /// Its permit of the limit per client address.
    pub(super) client_permit: Option<ClientPermit>,
    /// Counts it in `flipgate_downstream_connections`.
    pub(super) _open: GaugeGuard,
}

/// What all connections of a worker share.
pub(super) struct WorkerContext<H: Handler> {
    pub(super) handler: Rc<H>,
    pub(super) connection_table: Rc<ConnectionTable<H::ConnectionCache>>,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) tasks: TaskTracker,
    pub(super) limits: ConnectionLimits,
    pub(super) capacity: Arc<ConnectionCapacity>,
    pub(super) per_client: Arc<PerClientLimit>,
    pub(super) metrics: Metrics,
}

/// The [`WorkerContext`] as the task of one connection or stream holds it. Dropping it during a panic counts the task
/// as dead; the panic hook logs the message.
// Not `Clone`: each task has exactly one, so it is counted once.
pub(super) struct MonitoredContext<H: Handler>(Rc<WorkerContext<H>>);

/// The limits of one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// Requests, after which the connection closes.
    pub requests: usize,
    /// Concurrent HTTP/2 streams.
    pub streams: u32,
    /// How many more streams the client may reset than it gets responses, before the connection is closed as an attack.
    pub resets: usize,
    /// Limits for the head of a request.
    pub head: HeadLimits,
}

/// A client with more than this share of all connections loses idle ones first: an eighth, but at least a few.
const FAIR_SHARE_DIVISOR: usize = 8;
const FAIR_SHARE_MIN: usize = 16;

// === impl WorkerContext ===

impl<H: Handler> WorkerContext<H> {
    /// Handles expired timeouts, and whatever the handler does twice a second.
    pub(super) fn step(&self) {
        self.connection_table.check_timeouts(Instant::now());
        if self.handler.tick() {
            self.connection_table.wake_all();
        }
    }

    /// Closes idle connections for new ones that wait on any worker.
    pub(super) fn close_idle_connections(&self, worker: usize) {
        let share = (self.capacity.max() / FAIR_SHARE_DIVISOR).max(FAIR_SHARE_MIN);
        self.capacity.serve_close_requests(|| {
            let is_closed = self.connection_table.evict(&self.per_client, share);
            if is_closed {
                self.metrics.evicted("connections");
            }
            is_closed
        });
        self.capacity.set_longest_idle_since(worker, self.connection_table.longest_idle_since());
    }
}

// === impl MonitoredContext ===

impl<H: Handler> MonitoredContext<H> {
    /// The context of a new task.
    pub(super) fn new(worker: &Rc<WorkerContext<H>>) -> Self {
        Self(Rc::clone(worker))
    }

    /// The context of a task that this task starts.
    pub(super) fn for_child_task(&self) -> Self {
        Self::new(&self.0)
    }
}

impl<H: Handler> Deref for MonitoredContext<H> {
    type Target = WorkerContext<H>;

    fn deref(&self) -> &WorkerContext<H> {
        &self.0
    }
}

impl<H: Handler> Drop for MonitoredContext<H> {
    fn drop(&mut self) {
        // Unwinding drops what the task owns.
        if std::thread::panicking() {
            self.metrics.task_died("connection");
        }
    }
}
