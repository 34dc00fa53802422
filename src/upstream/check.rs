//! Health checks: whether an endpoint accepts a connection and responds as expected.

use http::{HeaderValue, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use super::{
    connect::OpenedConnection, endpoint_health::HealthFailure, endpoint_state::EndpointState,
    probe::ProbeRequest,
};
use crate::{model::HealthCheck, net::Transport};

/// Bytes of a response body that are searched.
const BODY_MAX: usize = 64 * 1024;

impl EndpointState {
    /// Runs one health check on a new connection. Must be called on a runtime. Cancel-safe: dropping the future closes
    /// the connection.
    ///
    /// Returns the failure, after at most `check.timeout`; `None` if the check could not run for lack of local
    /// resources.
    pub async fn check(&self, check: &HealthCheck) -> Option<Result<(), HealthFailure>> {
        let mut is_connected = false;
        let attempt = async {
            let mut opened = match self.connect_for_check().await {
                Ok(opened) => opened,
                Err(error) => return error.failure().map(Err),
            };
            is_connected = true;
            let Some(path) = &check.path else {
                // `close_notify` tells a TLS peer that the end is intended. Without TLS, closing the socket is enough.
                if !matches!(opened.transport, Transport::Tcp(_)) {
                    let _ = opened.transport.shutdown().await;
                }
                return Some(Ok(()));
            };
            Some(self.send_check(opened, path, check).await)
        };
        let result = tokio::time::timeout(check.timeout, attempt).await;
        let timed_out = |what| format!("{what} within {} ms", check.timeout.as_millis());
        result.unwrap_or_else(|_| {
            Some(Err(match is_connected {
                // An endpoint that misses one response may still serve others.
                true => HealthFailure::bad_response(timed_out("no response")),
                false => HealthFailure::unresponsive(timed_out("no connection")),
            }))
        })
    }

    async fn send_check(
        &self,
        opened: OpenedConnection,
        path: &str,
        check: &HealthCheck,
    ) -> Result<(), HealthFailure> {
        let mut request = ProbeRequest::get(path);
        request.host = check.host.as_deref().map(str::to_owned);
        let agent = concat!("flipgate/", env!("CARGO_PKG_VERSION"), " health");
        request.headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let exchange = self.exchange(opened, request, async |it| evaluate(it, check).await);
        exchange.await.map_err(|error| HealthFailure::bad_response(error.to_string()))?
    }
}

async fn evaluate(response: Response<Incoming>, check: &HealthCheck) -> Result<(), HealthFailure> {
    let status = response.status().as_u16();
    if !check.statuses.contains(status) {
        let what = format!("status {status}, expected {}", check.statuses);
        return Err(HealthFailure::bad_response(what));
    }
    let Some(expected) = &check.body else { return Ok(()) };
    let (mut body, mut seen) = (response.into_body(), Vec::new());
    // Searched as it arrives: the rest may be long or slow.
    while seen.len() < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        let aborted =
            |error| HealthFailure::bad_response(format!("the response ended early: {error}"));
        if let Ok(data) = frame.map_err(aborted)?.into_data() {
            seen.extend_from_slice(&data);
        }
        let end = seen.len().min(BODY_MAX);
        if memchr::memmem::find(&seen[..end], expected.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(HealthFailure::bad_response(format!("the response does not contain {expected:?}")))
}
