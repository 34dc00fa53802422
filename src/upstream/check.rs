//! Health checks: whether an endpoint accepts a connection and responds as expected.

use std::future::poll_fn;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;

use super::{
    connect::OpenedConnection, endpoint_health::HealthFailure, endpoint_state::EndpointState,
};
use crate::{
    model::{EndpointAddress, HealthCheck, Protocol},
    net::Transport,
};

/// Bytes of a response body that are searched.
const BODY_MAX: usize = 64 * 1024;

type CheckRequest = Request<Empty<Bytes>>;

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
        let host = match (&check.host, &self.configured().address) {
            (Some(host), _) => host.to_string(),
            (None, EndpointAddress::Address(address)) => address.to_string(),
            (None, EndpointAddress::Name { host, port }) => format!("{host}:{port}"),
            (None, EndpointAddress::Unix(_)) => "localhost".to_owned(),
        };
        let failed =
            |error: hyper::Error| HealthFailure::bad_response(format!("no response: {error}"));
        let scheme = if self.configured().is_tls { "https" } else { "http" };
        let transport = TokioIo::new(opened.transport);
        let request = Request::get(match opened.protocol {
            Protocol::Http1 => path.to_owned(),
            Protocol::H2 => format!("{scheme}://{host}{path}"),
        })
        .header(header::USER_AGENT, concat!("flipgate/", env!("CARGO_PKG_VERSION"), " health"));
        let invalid = |error: http::Error| {
            HealthFailure::bad_response(format!("invalid check request: {error}"))
        };
        match opened.protocol {
            Protocol::Http1 => {
                let request =
                    request.header(header::HOST, host).header(header::CONNECTION, "close");
                let request = request.body(Empty::new()).map_err(invalid)?;
                let (mut sender, connection) =
                    http1::handshake::<_, Empty<Bytes>>(transport).await.map_err(failed)?;
                let exchange = async { evaluate(sender.send_request(request).await, check).await };
                drive(connection, exchange).await
            }
            Protocol::H2 => {
                let request: CheckRequest = request.body(Empty::new()).map_err(invalid)?;
                let (mut sender, connection) =
                    http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), transport)
                        .await
                        .map_err(failed)?;
                let exchange = async { evaluate(sender.send_request(request).await, check).await };
                drive(connection, exchange).await
            }
        }
    }
}

/// The output of `exchange`, with `connection` polled beside it until then.
async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    let mut has_ended = false;
    poll_fn(|context| {
        if !has_ended {
            // An error of the connection reaches `exchange` too.
            has_ended = connection.as_mut().poll(context).is_ready();
        }
        exchange.as_mut().poll(context)
    })
    .await
}

async fn evaluate(
    response: hyper::Result<Response<Incoming>>,
    check: &HealthCheck,
) -> Result<(), HealthFailure> {
    let response =
        response.map_err(|error| HealthFailure::bad_response(format!("no response: {error}")))?;
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
