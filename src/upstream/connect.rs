//! Opening a connection to an endpoint.

use std::{io, time::Duration};

use tokio::net::TcpStream;

use super::member::Member;
use crate::model::{Endpoint, Health};

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
    /// Anything else, such as no free file descriptor here.
    Other,
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
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// Whether the failure says something of the endpoint, and not only of this machine.
    fn is_theirs(self) -> bool {
        !matches!(self, Self::Other)
    }
}

impl Member {
    /// Opens a connection, and remembers how that went as the member's health. Nothing is left
    /// behind when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] after at most `patience`.
    pub async fn connect(&self, patience: Duration) -> Result<TcpStream, ConnectError> {
        let attempt = tokio::time::timeout(patience, dial(self.endpoint())).await;
        let timed_out = |_| Err((ConnectReason::Timeout, io::ErrorKind::TimedOut.into()));
        match attempt.unwrap_or_else(timed_out) {
            Ok(stream) => {
                self.set_health(Health::Up);
                Ok(stream)
            }
            Err((reason, source)) => {
                if reason.is_theirs() {
                    self.set_health(Health::Down);
                }
                Err(ConnectError { endpoint: self.endpoint().clone(), reason, source })
            }
        }
    }
}

async fn dial(endpoint: &Endpoint) -> Result<TcpStream, (ConnectReason, io::Error)> {
    let of = |error| (ConnectReason::of(&error), error);
    let stream = match endpoint {
        Endpoint::Address(address) => TcpStream::connect(address).await.map_err(of)?,
        Endpoint::Name { host, port } => {
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
    Ok(stream)
}
