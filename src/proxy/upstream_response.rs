//! A response of an endpoint that is not relayed yet.

use std::sync::Arc;

use crate::upstream::{EndpointState, UpstreamConnection};

/// The connection and endpoint of a response.
pub(super) struct UpstreamResponse {
    pub(super) upstream: UpstreamConnection,
    pub(super) endpoint: Arc<EndpointState>,
}
