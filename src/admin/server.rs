//! The listening socket of the API and its connections.

use std::{
    fs, io,
    net::TcpListener as StdTcpListener,
    os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{
    Api,
    auth::AdminPeer,
    connections::{AdminConnectionGuard, AdminConnections},
    router::router,
    settings::{AdminAddress, AdminSettings},
    strict_stream::StrictStream,
    write_timeout::WriteTimeoutStream,
};
use crate::metrics::Metrics;

/// A socket for the API.
#[derive(Debug)]
pub struct AdminListener {
    /// Its address, with the actual port.
    pub address: AdminAddress,
    socket: AdminSocket,
}

#[derive(Debug)]
enum AdminSocket {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// The API cannot listen on an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "the admin API cannot listen on {address}: {source}; is another flipgate running? Choose another `admin.listen`"
)]
pub struct ListenError {
    /// The address.
    pub address: AdminAddress,
    /// The system's error.
    pub source: io::Error,
}

/// The running API.
#[derive(Debug)]
pub struct AdminServer {
    tasks: TaskTracker,
    stop: CancellationToken,
    acceptor: AdminAcceptor,
    /// Removed when the server ends.
    socket_file: Option<std::path::PathBuf>,
}

/// The most connections: people, pipelines and their event streams. At most half of them may wait for events or drains.
const CONNECTIONS_MAX: usize = 512;

/// The pause before the next try to close a connection for a new one, if all have calls in progress.
const AGAIN: Duration = Duration::from_millis(20);

/// How long a caller may read nothing of its response.
const STALL_PATIENCE: Duration = Duration::from_secs(30);

/// The timeout of a head, and of an idle connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

// === impl AdminListener ===

impl AdminListener {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if the address is in use or not available.
    pub fn new(address: &AdminAddress) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address: address.clone(), source };
        match address {
            AdminAddress::Tcp(wanted) => {
                let socket = StdTcpListener::bind(wanted).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                let address = AdminAddress::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Self { address, socket: AdminSocket::Tcp(socket) })
            }
            AdminAddress::Unix(path) => {
                let socket = bind_unix(path).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                Ok(Self { address: address.clone(), socket: AdminSocket::Unix(socket) })
            }
        }
    }
}

/// Replaces the socket file of a killed process. A socket that another process listens on is an error. Only the owner
/// may open the new one.
fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there"));
        }
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let socket = StdUnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(socket)
}

// === impl AdminServer ===

impl AdminServer {
    /// The API on a socket, for [`AdminServer::acceptor`] to serve.
    ///
    /// # Errors
    ///
    /// If the socket cannot be driven by the current runtime.
    pub fn new(bound: AdminListener, config: AdminSettings, api: Api) -> io::Result<Self> {
        let AdminListener { address, socket } = bound;
        let metrics = api.metrics.clone();
        let router = router(api, Arc::new(config));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let socket = match socket {
            AdminSocket::Tcp(socket) => AsyncListener::Tcp(TcpListener::from_std(socket)?),
            AdminSocket::Unix(socket) => AsyncListener::Unix(UnixListener::from_std(socket)?),
        };
        let acceptor = AdminAcceptor {
            router,
            metrics,
            tasks: tasks.clone(),
            stop: stop.clone(),
            callers: AdminConnections::new(CONNECTIONS_MAX),
            socket: Arc::new(socket),
        };
        let socket_file = match address {
            AdminAddress::Tcp(_) => None,
            AdminAddress::Unix(path) => Some(path),
        };
        Ok(Self { tasks, stop, acceptor, socket_file })
    }

    /// What takes calls, for its owner to run.
    #[must_use]
    pub fn acceptor(&self) -> AdminAcceptor {
        self.acceptor.clone()
    }

    /// Takes no more calls, lets those under way finish within `timeout`, and ends.
    pub async fn stop(self, timeout: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(timeout, self.tasks.wait()).await;
        if let Some(path) = &self.socket_file {
            let _ = fs::remove_file(path);
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
enum AsyncListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
enum AdminStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncListener {
    /// The next connection. None is lost when the future is dropped.
    async fn next(&self) -> io::Result<(AdminStream, AdminPeer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((AdminStream::Tcp(stream), AdminPeer::Tcp(peer)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred().ok().map(|it| it.uid());
                Ok((AdminStream::Unix(stream), AdminPeer::Unix { uid }))
            }
        }
    }
}

/// Takes the API's connections, each into a task of its own. Cheap to clone; clones share the socket, so
/// that one that dies can be followed by another.
#[derive(Clone, Debug)]
pub struct AdminAcceptor {
    router: Router,
    metrics: Metrics,
    tasks: TaskTracker,
    stop: CancellationToken,
    callers: Arc<AdminConnections>,
    socket: Arc<AsyncListener>,
}

impl AdminAcceptor {
    /// Takes connections until the server is stopped. Dropping the future loses none.
    pub async fn run(self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = self.socket.next() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = self.place().await else { return };
                    let router = self.router.clone();
                    let stop = self.stop.clone();
                    let guard = self.metrics.guard_task("admin connection");
                    self.tasks.spawn(async move {
                        match stream {
                            AdminStream::Tcp(stream) => {
                                serve(stream, peer, &place, router, stop).await;
                            }
                            AdminStream::Unix(stream) => {
                                serve(stream, peer, &place, router, stop).await;
                            }
                        }
                        drop((place, guard));
                    });
                }
                Err(error) => {
                    warn!(%error, "the admin API cannot accept; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl AdminAcceptor {
    /// A place for a connection, as soon as one can be closed for it. `None` if the server is stopped first.
    async fn place(&self) -> Option<AdminConnectionGuard> {
        loop {
            if let Some(place) = self.callers.open() {
                return Some(place);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

async fn serve<S>(
    stream: S,
    peer: AdminPeer,
    place: &AdminConnectionGuard,
    router: Router,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let caller = Arc::clone(&place.caller);
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(&caller));
        request.map(axum::body::Body::new)
    });
    let stream = StrictStream::new(
        WriteTimeoutStream::new(stream, STALL_PATIENCE),
        Arc::clone(&place.caller),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        // More than the strict reader takes.
        .max_headers(128)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = place.caller.closed() => {
            debug!("an idle admin connection was closed for a new one");
            return;
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use prometheus::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_costs_its_connection_and_is_counted() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("a bound socket");
        let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
        let panics = || async { panic!("planted") as &'static str };
        let router =
            Router::new().route("/", get(|| async { "fine" })).route("/panic", get(panics));
        let acceptor = AdminAcceptor {
            router,
            metrics: metrics.clone(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            callers: AdminConnections::new(2),
            socket: Arc::new(AsyncListener::Tcp(socket)),
        };
        let (tasks, callers) = (acceptor.tasks.clone(), Arc::clone(&acceptor.callers));
        let running = tokio::spawn(acceptor.run());
        for (path, expected) in [("/panic", ""), ("/", "fine"), ("/panic", ""), ("/", "fine")] {
            let mut client = TcpStream::connect(address).await.expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("UTF-8");
            assert!(answer.ends_with(expected) && answer.is_empty() == expected.is_empty());
        }
        running.abort();
        assert!(running.await.is_err());
        tasks.close();
        tasks.wait().await;
        let text = metrics.show(crate::model::Generation(1), true, &[]);
        assert!(text.contains("task_panics_total{task=\"admin connection\"} 2"), "{text}");
        assert_eq!(callers.count(), 0, "every place is given back");
    }
}
