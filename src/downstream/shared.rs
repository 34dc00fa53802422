//! What the connections of a worker share, and what each of them takes up.

use std::{rc::Rc, sync::Arc};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::{
    Handler,
    crowd::{Crowd, Standing},
    roster::Roster,
};
use crate::{metrics::Counted, net::Buffers};

/// What an open connection takes up.
pub(super) struct Guest {
    /// One of the worker's places.
    pub(super) _seat: OwnedSemaphorePermit,
    /// One of those of its address.
    pub(super) standing: Option<Standing>,
    /// One of the open connections that are counted.
    pub(super) _open: Counted,
}

/// What all connections of a worker share.
pub(super) struct House<H: Handler> {
    pub(super) handler: Rc<H>,
    pub(super) roster: Rc<Roster<H::Memory>>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) tasks: TaskTracker,
    pub(super) limits: Limits,
    pub(super) crowd: Arc<Crowd>,
}

/// What one connection may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Requests, after which it is asked to end.
    pub requests: usize,
    /// Streams of HTTP/2 at once.
    pub streams: u32,
    /// Streams that the client resets beyond those that were answered, before it is taken for an
    /// attack.
    pub resets: usize,
}
