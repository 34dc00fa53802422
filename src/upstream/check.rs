//! A look at an endpoint: whether it can be spoken with, and whether it says what it should.

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

/// Bytes of an answer that are looked at.
const BODY_MAX: usize = 64 * 1024;

type CheckRequest = Request<Empty<Bytes>>;

impl EndpointState {
    /// Opens a connection, asks what is to be asked, and closes it again. Must be called on a runtime.
    /// Nothing is left behind when the future is dropped.
    ///
    /// Returns what is wrong, after at most `check.timeout`; `None` if that could not be found out, for
    /// want of something here.
    pub async fn check(&self, check: &HealthCheck) -> Option<Result<(), HealthFailure>> {
        let mut is_open = false;
        let attempt = async {
            let mut opened = match self.connect_for_check().await {
                Ok(opened) => opened,
                Err(error) => return error.failure().map(Err),
            };
            is_open = true;
            let Some(path) = &check.path else {
                // Over TLS the end is announced, so that the peer does not log an unexpected one. In the clear
                // closing the socket says the same.
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
            Some(Err(match is_open {
                // Whoever does not answer one question may still answer others.
                true => HealthFailure::bad_response(timed_out("no answer")),
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
        let host = match (&check.host, &self.configured().place) {
            (Some(host), _) => host.to_string(),
            (None, EndpointAddress::Address(address)) => address.to_string(),
            (None, EndpointAddress::Name { host, port }) => format!("{host}:{port}"),
            (None, EndpointAddress::Unix(_)) => "localhost".to_owned(),
        };
        let failed =
            |error: hyper::Error| HealthFailure::bad_response(format!("no answer: {error}"));
        let scheme = if self.configured().is_tls { "https" } else { "http" };
        let transport = TokioIo::new(opened.transport);
        let request = Request::get(match opened.protocol {
            Protocol::Http1 => path.to_owned(),
            Protocol::H2 => format!("{scheme}://{host}{path}"),
        })
        .header(header::USER_AGENT, concat!("flipgate/", env!("CARGO_PKG_VERSION"), " health"));
        let invalid =
            |error: http::Error| HealthFailure::bad_response(format!("cannot be asked: {error}"));
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

/// What `exchange` comes to, with `connection` driven beside it for as long as that takes.
async fn drive<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    let mut has_ended = false;
    poll_fn(|context| {
        if !has_ended {
            // How it ends is told to whoever asks.
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
        response.map_err(|error| HealthFailure::bad_response(format!("no answer: {error}")))?;
    let status = response.status().as_u16();
    if !check.statuses.contains(status) {
        let what = format!("answered {status}, and {} is expected", check.statuses);
        return Err(HealthFailure::bad_response(what));
    }
    let Some(expected) = &check.body else { return Ok(()) };
    let (mut body, mut seen) = (response.into_body(), Vec::new());
    // As soon as it is there: what follows may be long, or long in coming.
    while seen.len() < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        let aborted = |error| HealthFailure::bad_response(format!("its answer broke off: {error}"));
        if let Ok(data) = frame.map_err(aborted)?.into_data() {
            seen.extend_from_slice(&data);
        }
        let end = seen.len().min(BODY_MAX);
        if memchr::memmem::find(&seen[..end], expected.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(HealthFailure::bad_response(format!("its answer does not contain {expected:?}")))
}
