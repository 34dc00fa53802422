//! Connections to the tested proxy: TCP or TLS, HTTP/1.1 or HTTP/2, kept or new.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

use super::{protocol::Protocol, record::Outcome, tls::Tls};

/// A request body.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How clients connect to a service.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// The address to connect to.
    pub(super) address: SocketAddr,
    /// The host and port of the requests.
    pub(super) authority: String,
    /// The prefix of every path.
    pub(super) prefix: String,
    /// The name in the certificate of the proxy, and the settings of TLS.
    pub(super) tls: Option<(ServerName<'static>, Tls)>,
    pub(super) protocol: Protocol,
    /// The source address.
    pub(super) from: Option<IpAddr>,
    /// Whether each request opens a new connection.
    pub(super) is_fresh: bool,
}

/// The idle connections of one thread to one service.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    http1: RefCell<Vec<http1::SendRequest<Body>>>,
    http2: RefCell<Vec<http2::SendRequest<Body>>>,
}

/// The connection of a response, to be put back when the response has been read.
#[derive(Debug)]
pub(super) enum ResponseConnection {
    Http1(http1::SendRequest<Body>),
    /// An HTTP/2 connection, which other requests use at the same time.
    Shared,
}

/// HTTP/2 connections of each thread to each service.
const SESSIONS: usize = 4;

// === impl Connector ===

impl Connector {
    /// The head of a request in the form of the protocol.
    pub(super) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let Self { authority, prefix, protocol, tls, .. } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        match protocol {
            Protocol::Http1 => Request::builder()
                .method(method)
                .uri(format!("{prefix}{path}"))
                .header(http::header::HOST, authority),
            Protocol::H2 => Request::builder()
                .method(method)
                .version(Version::HTTP_2)
                .uri(format!("{scheme}://{authority}{prefix}{path}")),
        }
    }

    /// Sends a request on an idle connection, or else on a new one, and returns the head of its response. A request that
    /// was certainly not sent is retried on another connection.
    pub(super) async fn send(
        &self,
        idle: &IdleConnections,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, ResponseConnection), Outcome> {
        match self.protocol {
            Protocol::Http1 => self.send_http1(idle, request).await,
            Protocol::H2 => self.send_http2(idle, request).await,
        }
    }

    async fn send_http1(
        &self,
        idle: &IdleConnections,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, ResponseConnection), Outcome> {
        loop {
            let (mut sender, is_new) = match self.take_idle(idle).await {
                Some(sender) => (sender, false),
                None => (self.open().await?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, ResponseConnection::Http1(sender))),
                Err(mut error) => match error.take_message() {
                    Some(message) if !is_new => request = message,
                    _ => return Err(Outcome::NoResponse),
                },
            }
        }
    }

    async fn send_http2(
        &self,
        idle: &IdleConnections,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, ResponseConnection), Outcome> {
        loop {
            let (mut sender, is_new) = match self.shared_session(idle) {
                Some(sender) => (sender, false),
                None => {
                    let io =
                        self.connect(Protocol::H2).await.map_err(|error| outcome_of(&error))?;
                    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
                        .await
                        .map_err(|_| Outcome::NotConnected)?;
                    // Ends when the last sender is dropped.
                    tokio::task::spawn_local(driver);
                    if !self.is_fresh {
                        idle.http2.borrow_mut().push(sender.clone());
                    }
                    (sender, true)
                }
            };
            if sender.ready().await.is_err() {
                if is_new {
                    return Err(Outcome::NotConnected);
                }
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, ResponseConnection::Shared)),
                Err(mut error) => match error.take_message() {
                    Some(message) if !is_new => request = message,
                    _ => return Err(Outcome::NoResponse),
                },
            }
        }
    }

    /// A new HTTP/1.1 connection, which can be upgraded.
    pub(super) async fn open(&self) -> Result<http1::SendRequest<Body>, Outcome> {
        let io = self.connect(Protocol::Http1).await.map_err(|error| outcome_of(&error))?;
        let (sender, driver) =
            http1::handshake(TokioIo::new(io)).await.map_err(|_| Outcome::NotConnected)?;
        // Ends when the sender is dropped or the proxy closes the connection.
        tokio::task::spawn_local(driver.with_upgrades());
        Ok(sender)
    }

    async fn take_idle(&self, idle: &IdleConnections) -> Option<http1::SendRequest<Body>> {
        loop {
            let mut sender = idle.http1.borrow_mut().pop()?;
            // Fails if the proxy has closed the connection.
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    /// One of the open sessions, if there are enough of them.
    fn shared_session(&self, idle: &IdleConnections) -> Option<http2::SendRequest<Body>> {
        let mut sessions = idle.http2.borrow_mut();
        sessions.retain(|it| !it.is_closed());
        if self.is_fresh || sessions.len() < SESSIONS {
            return None;
        }
        Some(sessions[fastrand::usize(..sessions.len())].clone())
    }

    /// Why no connection can be opened. `None` if one can.
    pub(super) async fn connect_error(&self) -> Option<String> {
        self.connect(self.protocol).await.err().map(|error| error.to_string())
    }

    async fn connect(&self, protocol: Protocol) -> io::Result<Box<dyn Stream>> {
        let stream = self.connect_tcp().await?;
        let Some((name, tls)) = &self.tls else { return Ok(Box::new(stream)) };
        Ok(Box::new(tls.connector(protocol).connect(name.clone(), stream).await?))
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The outcome of a failed connection. That the machine has no ports or files left is a limit of the drill.
fn outcome_of(error: &io::Error) -> Outcome {
    use rustix::io::Errno;
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::NOBUFS];
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) if own.contains(&errno) => Outcome::NotSent,
        _ => Outcome::NotConnected,
    }
}

impl IdleConnections {
    /// Puts back the connection of a response that was read to its end.
    pub(super) fn put_back(&self, connection: ResponseConnection, connector: &Connector) {
        if let ResponseConnection::Http1(sender) = connection
            && !connector.is_fresh
        {
            self.http1.borrow_mut().push(sender);
        }
    }
}

/// A byte stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
