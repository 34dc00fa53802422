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
    net::detect_dead_peer,
    tls::{self, FileError, ServerSettings},
};

/// The settings of one listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// On a preview listener: the color that serves every request.
    pub preview: Option<Color>,
    /// The versions of HTTP that it accepts.
    pub http_versions: HttpVersions,
    /// Peers that must send a PROXY protocol header.
    pub proxies: Vec<IpNet>,
    /// TLS settings, if the listener uses TLS.
    pub tls: Option<ServerSettings>,
    /// The value of `Strict-Transport-Security` in all responses (RFC 6797).
    pub hsts: Option<String>,
    /// The port of the `https` URL that every request is redirected to.
    pub https_redirect_port: Option<u16>,
    /// Whether Flipgate itself responds to `OPTIONS *`, and accepts it without `Host` in HTTP/1.0.
    pub health_checks: bool,
}

/// The versions of HTTP that a listener accepts. At least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HttpVersions {
    /// HTTP/1.0 and HTTP/1.1.
    pub http1: bool,
    /// HTTP/2.
    pub http2: bool,
}

/// A listener with everything that its connections share.
#[derive(Debug)]
pub struct ListenerContext {
    /// The listener's settings, with the port that the kernel assigned.
    pub listener: Listener,
    /// The certificates, if the listener uses TLS.
    pub tls: Option<tls::ListenerTls>,
    proxies: Networks,
}

/// A listener with a bound socket for each worker.
#[derive(Debug)]
pub struct BoundListener {
    /// What its connections share.
    pub listener_context: Arc<ListenerContext>,
    pub(super) sockets: Vec<TcpListener>,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its address cannot be bound.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Address {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// A file of its TLS settings is unusable.
    #[error("cannot listen on {address}: {source}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// The file, and what is wrong with it.
        source: FileError,
    },
}

/// Completed connections that the kernel queues until a worker accepts them.
const BACKLOG: i32 = 4096;

/// How long to wait for another process that opens sockets on the same port.
const PORT_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `workers` sockets on the listener's address. The kernel spreads new connections over them, so workers share
/// nothing. The kernel closes a connection if its client acknowledges nothing for `stall`.
///
/// # Errors
///
/// [`BindError`]; then no socket is left open.
pub fn bind(
    listener: &Listener,
    workers: usize,
    stall: Duration,
) -> Result<BoundListener, BindError> {
    let failed = |source| BindError::Address { address: listener.address, source };
    let mut port_lock = None;
    if listener.address.port() != 0 {
        // Sockets with SO_REUSEPORT would also share the port with another Flipgate process, and split its clients. A
        // socket without it fails if another process listens there; the lock keeps other processes from binding
        // meanwhile.
        port_lock = Some(lock_port(listener.address.port()).map_err(failed)?);
        open(listener.address, false).map_err(failed)?;
    }
    let mut address = listener.address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, true).and_then(|socket| {
            detect_dead_peer(&SockRef::from(&socket), stall)?;
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from(socket))
        });
        let socket = socket.map_err(failed)?;
        // The first socket turns port 0 into a real port; the others use the same.
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
    /// A listener without TLS that accepts every version of HTTP and has no other settings.
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
    /// A listener without sockets.
    pub(crate) fn unbound(listener: Listener) -> Arc<Self> {
        Arc::new(Self { listener, tls: None, proxies: Networks::default() })
    }

    /// Whether connections of this peer begin with a PROXY protocol header. Listed peers must send one; the others
    /// cannot.
    pub(super) fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        !self.listener.proxies.is_empty() && self.proxies.contains(peer.to_canonical())
    }
}

/// Waits until no other Flipgate process opens sockets on a port, and locks the port until the returned value is
/// dropped. The lock is an abstract socket name, so it has the same scope as the port: one network namespace.
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
        // The owner of the lock never accepts; the connection ends when the owner does.
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

    /// Without the lock, 3 of 34 pairs of processes that were started at the same time both bound the port and split
    /// the clients.
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
