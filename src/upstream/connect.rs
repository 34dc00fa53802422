//! Opening a connection to an endpoint.

use std::{io, net::SocketAddr, time::Duration};

use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use super::member::Member;
use crate::{
    model::{Endpoint, Health, Place, Protocol, ProxyProtocol},
    net::Transport,
    tls,
};

/// An endpoint that no connection could be opened to. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {endpoint}: {source}")]
pub struct ConnectError {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The kind of failure.
    pub reason: ConnectReason,
    /// What the system said.
    pub source: io::Error,
}

/// Why no connection could be opened, as far as it makes a difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectReason {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The name could not be resolved.
    Dns,
    /// No way there.
    Unreachable,
    /// Its certificate is not for it, or of nobody who is trusted.
    Certificate,
    /// TLS could not be agreed on.
    Tls,
    /// It does not speak the version of HTTP that was asked for.
    Protocol,
    /// Anything else, such as no free file descriptor here.
    Other,
}

/// Whom a connection is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    /// The client.
    pub client: SocketAddr,
    /// Where it has come to.
    pub local: SocketAddr,
    /// Whether the request wants to become a tunnel.
    pub is_for_tunnel: bool,
}

/// A connection on which nothing was said yet but what opens it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) transport: Transport,
    pub(super) protocol: Protocol,
}

/// Why a connection could not be opened.
type Failed = (ConnectReason, io::Error);

// === impl ConnectError ===

impl ConnectError {
    pub(super) fn of(member: &Member, reason: ConnectReason, source: io::Error) -> Self {
        Self { endpoint: member.endpoint().clone(), reason, source }
    }
}

// === impl ConnectReason ===

impl ConnectReason {
    /// A word for metrics.
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
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            // A unix socket that nobody has made.
            io::ErrorKind::NotFound => Self::Refused,
            _ => Self::Other,
        }
    }

    fn of_handshake(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Certificate,
            _ => Self::Tls,
        }
    }

    /// Whether the failure says something of the endpoint, and not only of this machine.
    fn is_theirs(self) -> bool {
        !matches!(self, Self::Other)
    }
}

impl Member {
    /// Opens a connection as far as a request could be sent, ends it, and remembers how that went as the
    /// member's health. Nothing is left behind when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] after at most `patience`.
    pub async fn probe(&self, patience: Duration) -> Result<(), ConnectError> {
        let attempt = async {
            let transport = dial(&self.endpoint().place).await?;
            // Whoever waits for a client's address before anything else is told of none.
            if self.link().proxy_protocol.is_some() {
                return Ok(());
            }
            let mut opened = self.agree_on(transport, None).await?;
            // A farewell, so that nobody has to write of an end that he did not expect.
            let _ = opened.transport.shutdown().await;
            Ok(())
        };
        self.note(in_time(patience, attempt).await)
    }

    /// Opens a connection and agrees on a protocol; `only` leaves no choice. Nothing is left behind when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] after at most `patience`.
    pub(super) async fn connect(
        &self,
        patience: Duration,
        errand: Errand,
        only: Option<Protocol>,
    ) -> Result<Opened, ConnectError> {
        let attempt = async {
            let mut transport = dial(&self.endpoint().place).await?;
            if let Some(version) = self.link().proxy_protocol {
                announce(&mut transport, version, errand).await?;
            }
            self.agree_on(transport, only).await
        };
        self.note(in_time(patience, attempt).await)
    }

    /// What follows when somebody is there: TLS, and the protocol.
    async fn agree_on(
        &self,
        transport: Transport,
        only: Option<Protocol>,
    ) -> Result<Opened, Failed> {
        let protocol = self.link().protocol.or(only);
        let Transport::Tcp(stream) = transport else {
            return Ok(Opened { transport, protocol: protocol.unwrap_or(Protocol::Http1) });
        };
        let Some(connector) = self.link().tls.as_ref().filter(|_| self.endpoint().is_tls) else {
            let protocol = protocol.unwrap_or(Protocol::Http1);
            return Ok(Opened { transport: Transport::Tcp(stream), protocol });
        };
        let unusable = |error: tls::FileError| (ConnectReason::Tls, io::Error::other(error));
        let host = match &self.endpoint().place {
            Place::Address(address) => address.ip().to_string(),
            Place::Name { host, .. } => host.to_string(),
            Place::Unix(_) => String::new(),
        };
        let name = connector.server_name(&host).ok_or_else(|| {
            (ConnectReason::Certificate, io::Error::other("no certificate can be for this host"))
        })?;
        let handshake = connector.connector(protocol).map_err(unusable)?.connect(name, stream);
        let stream = Box::pin(handshake).await;
        let stream = stream.map_err(|error| (ConnectReason::of_handshake(&error), error))?;
        let agreed = match (stream.get_ref().1.alpn_protocol(), protocol) {
            (Some(tls::ALPN_HTTP2), _) => Protocol::H2,
            (_, Some(Protocol::H2)) => {
                let what = io::Error::other("it does not offer HTTP/2 by ALPN");
                return Err((ConnectReason::Protocol, what));
            }
            _ => Protocol::Http1,
        };
        if only.is_none() {
            self.agree(agreed);
        }
        Ok(Opened { transport: Transport::Tls(Box::new(stream.into())), protocol: agreed })
    }

    fn note<T>(&self, attempt: Result<T, Failed>) -> Result<T, ConnectError> {
        match attempt {
            Ok(open) => {
                self.set_health(Health::Up);
                Ok(open)
            }
            Err((reason, source)) => {
                if reason.is_theirs() {
                    self.set_health(Health::Down);
                }
                Err(ConnectError::of(self, reason, source))
            }
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    attempt: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let timed_out = |_| Err((ConnectReason::Timeout, io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(patience, attempt).await.unwrap_or_else(timed_out)
}

async fn dial(place: &Place) -> Result<Transport, Failed> {
    let of = |error| (ConnectReason::of(&error), error);
    let stream = match place {
        Place::Unix(path) => {
            return UnixStream::connect(&**path).await.map(Transport::Unix).map_err(of);
        }
        Place::Address(address) => TcpStream::connect(address).await.map_err(of)?,
        Place::Name { host, port } => {
            let found = tokio::net::lookup_host((&**host, *port)).await;
            let found = found.map_err(|error| (ConnectReason::Dns, error))?;
            let mut last = (ConnectReason::Dns, io::Error::other("the name has no address"));
            let mut open = None;
            for address in found {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        open = Some(stream);
                        break;
                    }
                    Err(error) => last = of(error),
                }
            }
            open.ok_or(last)?
        }
    };
    // A request's last segment must not wait for the answer to its first.
    stream.set_nodelay(true).map_err(of)?;
    Ok(Transport::Tcp(stream))
}

/// Says whom the connection is for, in the PROXY protocol.
async fn announce(
    transport: &mut Transport,
    version: ProxyProtocol,
    errand: Errand,
) -> Result<(), Failed> {
    let (client, local) = of_one_family(errand.client, errand.local);
    let header = ProxyHeader::with_address(ProxiedAddress::stream(client, local));
    let mut bytes = Vec::new();
    let encoded = match version {
        ProxyProtocol::V1 => header.encode_v1(&mut bytes),
        ProxyProtocol::V2 => header.encode_v2(&mut bytes),
    };
    encoded.map_err(|error| (ConnectReason::Other, io::Error::other(error)))?;
    let written = transport.write_all(&bytes).await;
    written.map_err(|error| (ConnectReason::of(&error), error))
}

/// Both as they are if they are of one family, and else both as IPv6, which has a place for IPv4.
fn of_one_family(one: SocketAddr, two: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let (one, two) = (canonical(one), canonical(two));
    let wide = |it: SocketAddr| match it {
        SocketAddr::V4(it) => SocketAddr::new(it.ip().to_ipv6_mapped().into(), it.port()),
        it @ SocketAddr::V6(_) => it,
    };
    if one.is_ipv4() == two.is_ipv4() { (one, two) } else { (wide(one), wide(two)) }
}
