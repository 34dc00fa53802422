//! Opening a connection to an endpoint.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use super::{endpoint_health::HealthFailure, endpoint_state::EndpointState};
use crate::{
    model::{Endpoint, EndpointAddress, Protocol, ProxyProtocol},
    net::Transport,
    tls,
};

/// Why no connection to an endpoint could be opened. No byte of a request was sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {endpoint}: {source}")]
pub struct ConnectError {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The kind of failure.
    pub reason: ConnectReason,
    /// The system's error.
    pub source: io::Error,
}

/// Why no connection could be opened: the label of `flipgate_upstream_connect_errors_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectReason {
    /// Connection refused.
    Refused,
    /// The connection or a handshake timed out.
    Timeout,
    /// The name could not be resolved.
    Dns,
    /// No route to the endpoint.
    Unreachable,
    /// The certificate is not trusted or not valid for the endpoint.
    Certificate,
    /// The TLS handshake failed.
    Tls,
    /// The endpoint does not support the requested version of HTTP.
    Protocol,
    /// The endpoint is at its connection limit.
    Limit,
    /// This machine has no free file descriptor or port.
    Descriptors,
    /// The address is one of Flipgate's own, which the public must not reach through a service.
    Own,
    /// Any other error.
    Other,
}

/// The request that a connection is opened for.
#[derive(Clone, Copy, Debug)]
pub struct ConnectContext {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// Whether the request asks for a tunnel.
    pub is_for_tunnel: bool,
    /// The client's requests in flight; 0 if unknown.
    pub client_requests: usize,
    /// The connect timeout, if it differs from the default.
    pub timeout: Option<Duration>,
}

/// A new connection with its handshakes done.
#[derive(Debug)]
pub(super) struct OpenedConnection {
    pub(super) transport: Transport,
    pub(super) protocol: Protocol,
}

/// Why a connection could not be opened, without the endpoint.
pub(super) type ConnectFailure = (ConnectReason, io::Error);

// === impl ConnectError ===

impl ConnectError {
    pub(super) fn of(endpoint: &EndpointState, reason: ConnectReason, source: io::Error) -> Self {
        Self { endpoint: endpoint.configured().clone(), reason, source }
    }

    /// What the error means for the endpoint's health, if anything.
    pub(super) fn failure(&self) -> Option<HealthFailure> {
        let what = self.source.to_string();
        match self.reason {
            ConnectReason::Timeout | ConnectReason::Unreachable => {
                Some(HealthFailure::unresponsive(what))
            }
            reason if reason.is_endpoint_failure() => Some(HealthFailure::refused(what)),
            _ => None,
        }
    }
}

// === impl ConnectReason ===

impl ConnectReason {
    /// The label value for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::Descriptors => "descriptors",
            Self::Own => "own_address",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            // A unix socket that does not exist.
            io::ErrorKind::NotFound => Self::Refused,
            // No free local port.
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => Self::Descriptors,
            _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => Self::Descriptors,
                _ => Self::Other,
            },
        }
    }

    fn of_handshake(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Certificate,
            _ => Self::Tls,
        }
    }

    /// Whether the failure is the endpoint's, and not this machine's.
    fn is_endpoint_failure(self) -> bool {
        !matches!(self, Self::Limit | Self::Descriptors)
    }
}

impl EndpointState {
    /// Opens a connection and negotiates the protocol; `only` fixes it. Cancel-safe: dropping the future closes the
    /// connection.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] after at most `timeout`.
    pub(super) async fn connect(
        &self,
        timeout: Duration,
        connect_context: ConnectContext,
        only: Option<Protocol>,
    ) -> Result<OpenedConnection, ConnectError> {
        let attempt = async {
            let mut transport = self.dial().await?;
            if let Some(version) = self.connect_config().proxy_protocol {
                send_proxy_header(&mut transport, version, Some(connect_context)).await?;
            }
            self.negotiate(transport, only).await
        };
        let opened = with_timeout(timeout, attempt).await;
        opened.map_err(|(reason, source)| ConnectError::of(self, reason, source))
    }

    /// Opens a connection for a health check. Cancel-safe: dropping the future closes the connection.
    pub(super) async fn connect_for_check(&self) -> Result<OpenedConnection, ConnectError> {
        let attempt = async {
            let mut transport = self.dial().await?;
            if let Some(version) = self.connect_config().proxy_protocol {
                send_proxy_header(&mut transport, version, None).await?;
            }
            self.negotiate(transport, None).await
        };
        attempt.await.map_err(|(reason, source)| ConnectError::of(self, reason, source))
    }

    /// Does the TLS handshake and negotiates the protocol.
    async fn negotiate(
        &self,
        transport: Transport,
        only: Option<Protocol>,
    ) -> Result<OpenedConnection, ConnectFailure> {
        let protocol = self.connect_config().protocol.or(only);
        let Transport::Tcp(stream) = transport else {
            return Ok(OpenedConnection {
                transport,
                protocol: protocol.unwrap_or(Protocol::Http1),
            });
        };
        let Some(connector) =
            self.connect_config().tls.as_ref().filter(|_| self.configured().is_tls)
        else {
            let protocol = protocol.unwrap_or(Protocol::Http1);
            return Ok(OpenedConnection { transport: Transport::Tcp(stream), protocol });
        };
        let unusable = |error: tls::FileError| (ConnectReason::Tls, io::Error::other(error));
        let host = match &self.configured().address {
            EndpointAddress::Address(address) => address.ip().to_string(),
            EndpointAddress::Name { host, .. } => host.to_string(),
            EndpointAddress::Unix(_) => String::new(),
        };
        let name = connector.server_name(&host).ok_or_else(|| {
            (
                ConnectReason::Certificate,
                io::Error::other("the host is not a valid name for a certificate"),
            )
        })?;
        let handshake = connector.connector(protocol).map_err(unusable)?.connect(name, stream);
        let stream = Box::pin(handshake).await;
        let stream = stream.map_err(|error| (ConnectReason::of_handshake(&error), error))?;
        let negotiated = match (stream.get_ref().1.alpn_protocol(), protocol) {
            (Some(tls::ALPN_HTTP2), _) => Protocol::H2,
            (_, Some(Protocol::H2)) => {
                let what = io::Error::other("the endpoint does not offer HTTP/2 by ALPN");
                return Err((ConnectReason::Protocol, what));
            }
            _ => Protocol::Http1,
        };
        if only.is_none() {
            self.set_negotiated(negotiated);
        }
        Ok(OpenedConnection {
            transport: Transport::Tls(Box::new(stream.into())),
            protocol: negotiated,
        })
    }

    async fn dial(&self) -> Result<Transport, ConnectFailure> {
        let of = |error| (ConnectReason::of(&error), error);
        let stream = match (&self.configured().address, self.address()) {
            (EndpointAddress::Unix(path), _) => {
                self.connect_config().refuse_own_socket(Path::new(&**path))?;
                return UnixStream::connect(&**path).await.map(Transport::Unix).map_err(of);
            }
            (EndpointAddress::Name { host, port }, None) => self.dial_name(host, *port).await?,
            (EndpointAddress::Address(address), None) => self.dial_address(*address).await?,
            (_, Some(address)) => self.dial_address(address).await?,
        };
        // Without TCP_NODELAY the last segment of a request waits for the acknowledgement of the first.
        stream.set_nodelay(true).map_err(of)?;
        Ok(Transport::Tcp(stream))
    }

    async fn dial_address(&self, address: SocketAddr) -> Result<TcpStream, ConnectFailure> {
        self.connect_config().refuse_own(address)?;
        let opened = TcpStream::connect(address).await;
        opened.map_err(|error| (ConnectReason::of(&error), error))
    }

    /// Connects to the first address of a name that accepts.
    async fn dial_name(&self, host: &str, port: u16) -> Result<TcpStream, ConnectFailure> {
        let found = self.connect_config().resolver.look_up(host).await;
        let found = found.map_err(|error| (ConnectReason::Dns, io::Error::other(error)))?;
        let mut last = (ConnectReason::Dns, io::Error::other("the name has no address"));
        for address in found.addresses {
            match self.dial_address(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(failed) => last = failed,
            }
        }
        Err(last)
    }
}

async fn with_timeout<T>(
    timeout: Duration,
    attempt: impl Future<Output = Result<T, ConnectFailure>>,
) -> Result<T, ConnectFailure> {
    let timed_out = |_| Err((ConnectReason::Timeout, io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(timed_out)
}

/// Sends the PROXY protocol header; without a context it is a `LOCAL` one, for Flipgate's own connections.
async fn send_proxy_header(
    transport: &mut Transport,
    version: ProxyProtocol,
    connect_context: Option<ConnectContext>,
) -> Result<(), ConnectFailure> {
    let header = match connect_context {
        Some(ConnectContext { client, local, .. }) => {
            let (client, local) = same_family(client, local);
            ProxyHeader::with_address(ProxiedAddress::stream(client, local))
        }
        None => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::new();
    let encoded = match version {
        ProxyProtocol::V1 => header.encode_v1(&mut bytes),
        ProxyProtocol::V2 => header.encode_v2(&mut bytes),
    };
    encoded.map_err(|error| (ConnectReason::Other, io::Error::other(error)))?;
    let written = transport.write_all(&bytes).await;
    written.map_err(|error| (ConnectReason::of(&error), error))
}

/// Both addresses unchanged if they have the same family, else both as IPv6, with IPv4 mapped.
fn same_family(one: SocketAddr, two: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let (one, two) = (canonical(one), canonical(two));
    let wide = |it: SocketAddr| match it {
        SocketAddr::V4(it) => SocketAddr::new(it.ip().to_ipv6_mapped().into(), it.port()),
        it @ SocketAddr::V6(_) => it,
    };
    if one.is_ipv4() == two.is_ipv4() { (one, two) } else { (wide(one), wide(two)) }
}
