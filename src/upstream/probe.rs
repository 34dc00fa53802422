//! One request of Flipgate itself to an endpoint: a health check, or a request of a gate.
//!
//! It takes the same way as the requests of clients (address, PROXY protocol, TLS, protocol), on a connection of its own,
//! and no metric, limit or health record counts it.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    alerts::PoolAlert,
    connect::{ConnectError, OpenedConnection},
    connect_config::ConnectConfig,
    endpoint_state::EndpointState,
    pool_context::PoolContext,
};
use crate::model::{Color, Endpoint, EndpointAddress, Link, Protocol, WeightedEndpoint};

/// A request of Flipgate itself.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    /// The method.
    pub method: Method,
    /// The path with its query, such as `/healthz`.
    pub path: String,
    /// The `Host`; `None` for the address of the endpoint.
    pub host: Option<String>,
    /// More headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The response to a [`ProbeRequest`].
#[derive(Clone, Debug)]
pub struct ProbeResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or the beginning of it.
    pub body: Bytes,
    /// Whether the body is longer than the limit.
    pub is_cut: bool,
    /// The time from the request to the end of the response, without the time to connect.
    pub took: Duration,
}

/// Why a [`ProbeRequest`] has no response.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection could be opened.
    #[error("{}", .0.source)]
    Connect(#[from] ConnectError),
    /// The request cannot be sent like this.
    #[error("the request is not valid: {0}")]
    Invalid(#[from] http::Error),
    /// The connection failed before the response.
    #[error("no response: {0}")]
    NoResponse(#[source] hyper::Error),
    /// The connection failed within the response.
    #[error("the response ended early: {0}")]
    Incomplete(#[source] hyper::Error),
}

// === impl ProbeRequest ===

impl ProbeRequest {
    /// A GET request without headers.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            host: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// The request for an endpoint and a protocol.
    fn build(
        self,
        endpoint: &Endpoint,
        protocol: Protocol,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let Self { method, path, host, headers, body } = self;
        let host = host.unwrap_or_else(|| match &endpoint.address {
            EndpointAddress::Address(address) => address.to_string(),
            EndpointAddress::Name { host, port } => format!("{host}:{port}"),
            EndpointAddress::Unix(_) => "localhost".to_owned(),
        });
        let request = Request::builder().method(method);
        let mut request = match protocol {
            Protocol::Http1 => request
                .uri(path)
                .header(header::HOST, host)
                .header(header::CONNECTION, HeaderValue::from_static("close")),
            Protocol::H2 => {
                let scheme = if endpoint.is_tls { "https" } else { "http" };
                request.uri(format!("{scheme}://{host}{path}"))
            }
        }
        .body(Full::new(body))?;
        // Later lines replace the lines above.
        request.headers_mut().extend(headers);
        Ok(request)
    }
}

impl EndpointState {
    /// An endpoint outside of all pools, for calls of Flipgate itself. Reads the system's certificates if the endpoint
    /// uses TLS: call it off the control thread.
    #[must_use]
    pub fn standalone(endpoint: &Endpoint, context: &PoolContext) -> Self {
        let weighted = WeightedEndpoint::from(endpoint.clone());
        let link = Link::default();
        let config = ConnectConfig::new(&link, std::slice::from_ref(&weighted), context);
        let name = "standalone".parse().expect("a valid name");
        // Changes of its health interest no task.
        let alert = PoolAlert::new(&Arc::default(), name, Color::Blue);
        Self::new(&weighted, None, config.into(), Arc::default(), Arc::new(alert))
    }

    /// Sends a request on a new connection and reads the response, at most `body_max` bytes of its body. Must be called
    /// on a runtime. Has no timeout. Cancel-safe: dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] if there is no whole response.
    pub async fn probe(
        &self,
        request: ProbeRequest,
        body_max: usize,
    ) -> Result<ProbeResponse, ProbeError> {
        let opened = self.connect_for_check().await?;
        let began = Instant::now();
        let read = async |response: Response<Incoming>| {
            let (head, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            let mut is_cut = false;
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(ProbeError::Incomplete)?.into_data() else { continue };
                bytes.extend_from_slice(&data);
                if bytes.len() > body_max {
                    bytes.truncate(body_max);
                    is_cut = true;
                    break;
                }
            }
            let (status, headers) = (head.status.as_u16(), head.headers);
            let (body, took) = (bytes.into(), began.elapsed());
            Ok(ProbeResponse { status, headers, body, is_cut, took })
        };
        self.exchange(opened, request, read).await?
    }

    /// Sends a request on an open connection, and gives the response to `read`. Cancel-safe: dropping the future closes
    /// the connection.
    pub(super) async fn exchange<T>(
        &self,
        opened: OpenedConnection,
        request: ProbeRequest,
        read: impl AsyncFnOnce(Response<Incoming>) -> T,
    ) -> Result<T, ProbeError> {
        let request = request.build(self.configured(), opened.protocol)?;
        let transport = TokioIo::new(opened.transport);
        match opened.protocol {
            Protocol::Http1 => {
                let handshake = http1::handshake::<_, Full<Bytes>>(transport).await;
                let (mut sender, connection) = handshake.map_err(ProbeError::NoResponse)?;
                let exchange = async {
                    let response = sender.send_request(request).await;
                    Ok(read(response.map_err(ProbeError::NoResponse)?).await)
                };
                drive(connection, exchange).await
            }
            Protocol::H2 => {
                let executor = TokioExecutor::new();
                let handshake = http2::handshake::<_, _, Full<Bytes>>(executor, transport).await;
                let (mut sender, connection) = handshake.map_err(ProbeError::NoResponse)?;
                let exchange = async {
                    let response = sender.send_request(request).await;
                    Ok(read(response.map_err(ProbeError::NoResponse)?).await)
                };
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
