//! Listening sockets: one for each worker, on the same address.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::model::Color;

/// What a listener is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The color that every request on it takes, if it is a preview listener.
    pub preview: Option<Color>,
}

/// A listener with a socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// What the listener is for, with the port that it really has.
    pub listener: Arc<Listener>,
    pub(super) sockets: Vec<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// Connections that the kernel keeps for us until a worker takes them.
const BACKLOG: i32 = 4096;

/// Opens `workers` sockets on the listener's address. The kernel spreads new connections over them,
/// so that workers share nothing.
///
/// # Errors
///
/// [`BindError`], and then no socket is left open.
pub fn bind(listener: &Listener, workers: usize) -> Result<Bound, BindError> {
    let failed = |source| BindError { address: listener.address, source };
    if listener.address.port() != 0 {
        // Sockets that share a port would also share it with those of another process of ours, and
        // split its clients. One that does not share finds out whether anybody is there.
        open(listener.address, false).map_err(failed)?;
    }
    let mut address = listener.address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open(address, true).and_then(|socket| {
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from(socket))
        });
        let socket = socket.map_err(failed)?;
        // Port 0 becomes a real one with the first socket; the others take the same.
        address = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    let listener = Arc::new(Listener { address, preview: listener.preview });
    Ok(Bound { listener, sockets })
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
