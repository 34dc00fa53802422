//! What the connections of a worker share, and what each of them takes up.

use std::{ops::Deref, rc::Rc, sync::Arc};

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

/// What an open connection takes up.
pub(super) struct ConnectionGuard {
    /// One of the places of all workers.
    pub(super) _capacity_permit: OwnedSemaphorePermit,
    /// One of those of its address.
    pub(super) client_permit: Option<ClientPermit>,
    /// One of the open connections that are counted.
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

/// What all connections of a worker share, as the task of one connection or stream holds it. A task that
/// panics is counted when this is dropped; its message is in the log by the panic hook.
// Not `Clone`: each task has exactly one, so that it is counted once.
pub(super) struct MonitoredContext<H: Handler>(Rc<WorkerContext<H>>);

/// What one connection may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// Requests, after which it is asked to end.
    pub requests: usize,
    /// Streams of HTTP/2 at once.
    pub streams: u32,
    /// Streams that the client resets beyond those that were answered, before it is taken for an
    /// attack.
    pub resets: usize,
    /// How much of a request's head is read.
    pub head: HeadLimits,
}

/// A client that has more than this share of all connections loses idle ones before others do: an eighth,
/// but some in any case.
const FAIR_SHARE_DIVISOR: usize = 8;
const FAIR_SHARE_MIN: usize = 16;

// === impl WorkerContext ===

impl<H: Handler> WorkerContext<H> {
    /// Closes idle connections for those that wait for a place, on any worker.
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
    /// For a new task.
    pub(super) fn new(worker: &Rc<WorkerContext<H>>) -> Self {
        Self(Rc::clone(worker))
    }

    /// For a new task that this one starts.
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
        // The unwinding of a panic drops what the task owns.
        if std::thread::panicking() {
            self.metrics.task_died("connection");
        }
    }
}
