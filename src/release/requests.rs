//! The requests of gates: with the headers that an application gets with the requests of clients.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{candidate::Candidate, duration_text::written};
use crate::{
    model::EndpointAddress,
    upstream::{ConnectReason, EndpointState, ProbeError, ProbeRequest, ProbeResponse},
};

/// Endpoints that get requests of one gate at the same time.
const CONCURRENT: usize = 16;

/// The product name of these requests.
const USER_AGENT: &str = concat!("flipgate/", env!("CARGO_PKG_VERSION"), " gate");

/// A request of a gate, before it is made for an endpoint.
#[derive(Clone, Debug)]
pub(super) struct GateRequest {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No connection could be opened.
    #[error("cannot connect: {0}")]
    Connect(#[source] ProbeError),
    /// The exchange failed.
    #[error("{0}")]
    Other(#[source] ProbeError),
    /// It took longer than this.
    #[error("no response within {}", written(*.0))]
    Timeout(Duration),
}

// === impl GateRequest ===

impl GateRequest {
    /// A GET request.
    pub(super) fn get(path: &str) -> Self {
        let (method, path) = (Method::GET, path.to_owned());
        Self { method, path, headers: Vec::new(), body: Bytes::new() }
    }

    /// The request for one endpoint. Its headers replace those of Flipgate.
    fn build(self, candidate: &Candidate, endpoint: &EndpointState) -> ProbeRequest {
        let Self { method, path, headers: own, body } = self;
        let is_host = |it: &&(HeaderName, HeaderValue)| it.0 == header::HOST;
        let host = own.iter().find(is_host).and_then(|it| it.1.to_str().ok());
        let host = host.map(str::to_owned).or_else(|| candidate.host.clone());
        let shown = host.clone().unwrap_or_else(|| match &endpoint.configured().address {
            EndpointAddress::Address(address) => address.to_string(),
            EndpointAddress::Name { host, port } => format!("{host}:{port}"),
            EndpointAddress::Unix(_) => "localhost".to_owned(),
        });
        let mut headers = HeaderMap::new();
        let client = Ipv4Addr::LOCALHOST;
        for (name, value) in [
            ("user-agent", USER_AGENT.to_owned()),
            ("x-forwarded-for", client.to_string()),
            ("x-forwarded-host", shown.clone()),
            ("x-forwarded-proto", "http".to_owned()),
            ("x-real-ip", client.to_string()),
            ("forwarded", format!("for={client};host=\"{shown}\";proto=http")),
            ("x-request-id", format!("{:032x}", fastrand::u128(1..))),
        ] {
            // A host that was configured may have any letters.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        for (name, value) in own {
            headers.insert(name, value);
        }
        headers.remove(header::HOST);
        ProbeRequest { method, path, host, headers, body }
    }

    /// Sends the request, and reads at most `body_max` bytes of the body. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Why there is no response within `timeout`.
    pub(super) async fn send(
        self,
        candidate: &Candidate,
        endpoint: &EndpointState,
        body_max: usize,
        timeout: Duration,
    ) -> Result<ProbeResponse, String> {
        let request = self.build(candidate, endpoint);
        let sent = send_within(endpoint, request, body_max, timeout).await;
        sent.map_err(|error| error.to_string())
    }
}

// === impl SendError ===

impl SendError {
    /// Whether the error says nothing about the endpoint: this machine lacks something, or the request is not valid.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Connect(ProbeError::Connect(error)) => {
                matches!(error.reason, ConnectReason::Descriptors | ConnectReason::Own)
            }
            Self::Other(ProbeError::Invalid(_)) => true,
            Self::Connect(_) | Self::Other(_) | Self::Timeout(_) => false,
        }
    }
}

/// Sends a request, and reads at most `body_max` bytes of the body. Cancel-safe: dropping the future closes the
/// connection.
///
/// # Errors
///
/// [`SendError`] if there is no whole response within `timeout`.
pub(super) async fn send_within(
    endpoint: &EndpointState,
    request: ProbeRequest,
    body_max: usize,
    timeout: Duration,
) -> Result<ProbeResponse, SendError> {
    match tokio::time::timeout(timeout, endpoint.probe(request, body_max)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error @ ProbeError::Connect(_))) => Err(SendError::Connect(error)),
        Ok(Err(error)) => Err(SendError::Other(error)),
        Err(_elapsed) => Err(SendError::Timeout(timeout)),
    }
}

/// Runs `work` for each endpoint, some at the same time, and returns the results in the order of the endpoints.
pub(super) async fn for_each<T, F: Future<Output = T>>(
    endpoints: &[Arc<EndpointState>],
    work: impl Fn(Arc<EndpointState>) -> F,
) -> Vec<T> {
    let work = endpoints.iter().map(|it| work(Arc::clone(it)));
    // Not a task each: they end when the future of the call is dropped.
    stream::iter(work.collect::<Vec<_>>()).buffered(CONCURRENT).collect().await
}

/// The address of an endpoint in a message: as configured, with the address that the name was resolved to.
pub(super) fn address_of(endpoint: &EndpointState) -> String {
    match endpoint.resolved() {
        Some(address) => format!("{} ({address})", endpoint.configured()),
        None => endpoint.configured().to_string(),
    }
}
