//! Listening sockets: one for each worker, on the same address.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{self as unix, UnixListener, UnixStream},
    },
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    model::{Color, Networks},
    net::notice_loss,
    tls::{self, FileError, ServerSettings},
};

/// What a listener is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The color that every request on it takes, if it is a preview listener.
    pub preview: Option<Color>,
    /// What is spoken there.
    pub http_versions: HttpVersions,
    /// Peers whose connections begin with the PROXY protocol.
    pub proxies: Vec<IpNet>,
    /// TLS, if it is spoken there.
    pub tls: Option<ServerSettings>,
    /// `StrictStream-Transport-TlsDetails` of all answers: RFC 6797.
    pub hsts: Option<String>,
    /// The port that everybody is sent to, by `https`.
    pub https_redirect_port: Option<u16>,
    /// Whether `OPTIONS *` is answered here instead of being passed on, and needs no `Host` in HTTP/1.0.
    pub health_checks: bool,
}

/// The versions of HTTP that a listener speaks. At least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HttpVersions {
    /// HTTP/1.0 and HTTP/1.1.
    pub http1: bool,
    /// HTTP/2.
    pub http2: bool,
}

/// A listener with all that its connections need of it.
#[derive(Debug)]
pub struct ListenerContext {
    /// What the listener is for, with the port that it really has.
    pub listener: Listener,
    /// Its certificates.
    pub tls: Option<tls::ListenerTls>,
    proxies: Networks,
}

/// A listener with a socket for each worker.
#[derive(Debug)]
pub struct BoundListener {
    /// What its connections need.
    pub listener_context: Arc<ListenerContext>,
    pub(super) sockets: Vec<TcpListener>,
}

/// A listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its address.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file of its TLS.
    #[error("cannot listen on {address}: {source}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// The file, and what is wrong with it.
        source: FileError,
    },
}

/// Connections that the kernel keeps for us until a worker takes them.
const BACKLOG: i32 = 4096;

/// How long another process may take to open its sockets on a port.
const PORT_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `workers` sockets on the listener's address. The kernel spreads new connections over them,
/// so that workers share nothing. A client's connection that nothing is heard of for `stall` is ended by the
/// kernel.
///
/// # Errors
///
/// [`BindError`], and then no socket is left open.
pub fn bind(
    listener: &Listener,
    workers: usize,
    stall: Duration,
) -> Result<BoundListener, BindError> {
    let failed = |source| BindError::Address { address: listener.address, source };
    let mut port_lock = None;
    if listener.address.port() != 0 {
        // Sockets that share a port would also share it with those of another process of ours, and
        // split its clients. One that does not share finds out whether another process is there, as long
        // as none can open its own meanwhile.
        port_lock = Some(lock_port(listener.address.port()).map_err(failed)?);
        open(listener.address, false).map_err(failed)?;
    }
    let mut address = listener.address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, true).and_then(|socket| {
            notice_loss(&SockRef::from(&socket), stall)?;
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from(socket))
        });
        let socket = socket.map_err(failed)?;
        // Port 0 becomes a real one with the first socket; the others take the same.
        address = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    drop(port_lock);
    let tls = listener.tls.clone().map(tls::ListenerTls::load).transpose();
    let tls = tls.map_err(|source| BindError::Tls { address, source })?;
    let proxies = listener.proxies.iter().copied().collect();
    let listener = Listener { address, ..listener.clone() };
    Ok(BoundListener {
        listener_context: Arc::new(ListenerContext { listener, tls, proxies }),
        sockets,
    })
}

// === impl Listener ===

impl Listener {
    /// A listener in the clear that speaks everything and does nothing else.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            preview: None,
            http_versions: HttpVersions { http1: true, http2: true },
            proxies: Vec::new(),
            tls: None,
            hsts: None,
            https_redirect_port: None,
            health_checks: false,
        }
    }
}

// === impl ListenerContext ===

impl ListenerContext {
    /// A listener that nobody listens on.
    pub(crate) fn unbound(listener: Listener) -> Arc<Self> {
        Arc::new(Self { listener, tls: None, proxies: Networks::default() })
    }

    /// Whether this peer's connections begin with the PROXY protocol. One that is not listed cannot
    /// say whom it is for; one that is has to.
    pub(super) fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        !self.listener.proxies.is_empty() && self.proxies.contains(peer.to_canonical())
    }
}

/// Waits until no other process of ours opens sockets on a port, and keeps others from it until what this
/// returns is dropped. Its name is seen where the port is: in one network namespace.
fn lock_port(port: u16) -> io::Result<UnixListener> {
    let name = unix::SocketAddr::from_abstract_name(format!("flipgate-opens-port-{port}"))?;
    let end = std::time::Instant::now() + PORT_LOCK_TIMEOUT;
    loop {
        let taken = match UnixListener::bind_addr(&name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            bound => return bound,
        };
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(taken);
        }
        // Whoever has it never answers; that it has ended ends the connection.
        if let Ok(mut stream) = UnixStream::connect_addr(&name) {
            stream.set_read_timeout(Some(left))?;
            let _ = stream.read(&mut [0]);
        }
    }
}

fn open(address: SocketAddr, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it (see `ss -ltnp`) or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address (see `ip addr`)",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Of 34 pairs of processes that were started at the same time, 3 lived side by side and shared their
    /// clients.
    #[test]
    fn one_of_several_concurrent_binds_of_an_address_succeeds() {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("a bound socket");
        drop(free);
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        for _ in 0..100 {
            let addresses = [address, address, everywhere, address];
            let begin = Barrier::new(addresses.len());
            let opened: Vec<_> = std::thread::scope(|scope| {
                let open = |it| {
                    let begin = &begin;
                    scope.spawn(move || {
                        begin.wait();
                        bind(&Listener::plain(it), 2, PORT_LOCK_TIMEOUT)
                    })
                };
                let all: Vec<_> = addresses.into_iter().map(open).collect();
                all.into_iter().map(|it| it.join().expect("no panic")).collect()
            });
            let refused = opened.iter().filter_map(|it| it.as_ref().err());
            assert!(refused.map(ToString::to_string).all(|it| it.contains("another program")));
            assert_eq!(opened.iter().filter(|it| it.is_ok()).count(), 1);
        }
    }
}
