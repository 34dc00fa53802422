//! One connection, from accept to its protocol.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::net::TcpStream;
use tracing::debug;

use super::{
    Handler, RejectReason,
    bind::ListenerContext,
    client_stream::ClientStream,
    connection::ClientConnection,
    context::{ConnectionGuard, MonitoredContext, WorkerContext},
    handshake::{AcceptedConnection, HandshakeError, accept_handshake},
    http1, http2,
    peer::{Peer, PeerIdentity},
    per_client::ClientLoad,
    timeout::Timeout,
};
use crate::{
    net::{HttpStream, Socket, Transport},
    tls::client_certificate_problem,
};

/// The response to a connection over the limit of its address, if it can be sent without a handshake.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Proxy-Status: flipgate; error=http_request_denied\r\n\
    Cache-Control: no-store\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\
    Content-Length: 70\r\n\r\n\
    429 Too Many Requests: your address has as many connections as it may\n";

/// Starts a task that serves one connection to its end, and returns at once. If the address is at its limit, the
/// connection is closed instead.
pub(super) fn serve<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    listener_context: Arc<ListenerContext>,
    mut guard: ConnectionGuard,
    worker: &Rc<WorkerContext<H>>,
) {
    let is_proxied = listener_context.expects_proxy_header(address.ip());
    // For a proxied connection, the client is not known before its PROXY protocol header.
    if !is_proxied && !acquire_client_permit(&mut guard, address, worker) {
        if listener_context.tls.is_none() {
            // Sent only as far as the socket buffer takes it: a client over its limit gets no time.
            let _ = stream.try_write(TOO_MANY);
        }
        return;
    }
    let is_plain = listener_context.tls.is_none() && !is_proxied;
    let peer = Rc::new(Peer::with_load(
        PeerIdentity::Known(address),
        listener_context,
        None,
        load_of(&guard),
    ));
    let connection = new_connection(&peer, worker);
    let task = match is_plain {
        true => {
            let socket = Socket::new(Transport::Tcp(stream), &worker.buffers);
            let client = ClientStream::new(
                HttpStream::Socket(socket),
                &connection,
                &worker.connection_table,
            );
            worker.tasks.spawn_local(http1::serve(client, guard, MonitoredContext::new(worker)))
        }
        false => worker.tasks.spawn_local(handshake_and_serve(
            stream,
            peer,
            connection.clone(),
            guard,
            MonitoredContext::new(worker),
        )),
    };
    connection.set_task(task.abort_handle());
}

/// Counts a connection for its address. At the limit, an idle connection of the address is closed for it; if there is
/// none, returns false.
fn acquire_client_permit<H: Handler>(
    guard: &mut ConnectionGuard,
    address: SocketAddr,
    worker: &WorkerContext<H>,
) -> bool {
    guard.client_permit = worker.per_client.acquire(address.ip()).or_else(|| {
        // A worker can only close its own connections.
        worker
            .connection_table
            .evict_idle_of(address.ip(), worker.per_client.keeps_recently_used())
            .then(|| {
                worker.metrics.evicted("connections_per_client");
                worker.per_client.acquire_replacing(address.ip())
            })?
    });
    if guard.client_permit.is_none() {
        debug!(peer = %address.ip(), "the address has too many connections");
        worker.handler.count_rejected(RejectReason::TooManyConnections);
    }
    guard.client_permit.is_some()
}

/// Counts the requests of the connection's client.
fn load_of(guard: &ConnectionGuard) -> Arc<ClientLoad> {
    guard.client_permit.as_ref().map_or_else(ClientLoad::unknown, |it| Arc::clone(it.load()))
}

fn new_connection<H: Handler>(
    peer: &Rc<Peer<H::ConnectionCache>>,
    worker: &WorkerContext<H>,
) -> Rc<ClientConnection<H::ConnectionCache>> {
    Rc::new(ClientConnection::new(Rc::clone(peer), Rc::clone(worker.connection_table.clock())))
}

/// Does the handshakes of a connection, and serves it in a second task, so that the memory of the handshakes is freed.
async fn handshake_and_serve<H: Handler>(
    stream: TcpStream,
    peer: Rc<Peer<H::ConnectionCache>>,
    connection: Rc<ClientConnection<H::ConnectionCache>>,
    mut guard: ConnectionGuard,
    worker: MonitoredContext<H>,
) {
    let registration = worker.connection_table.register(&connection);
    connection.arm(Timeout::Handshake);
    let handshake =
        Box::pin(accept_handshake(stream, peer.socket_address(), peer.listener_context()));
    let accepted = connection.run_with_closing_timeout(Timeout::Handshake, handshake).await;
    let AcceptedConnection { transport, identity, tls, is_http2 } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            debug!(peer = %peer.address(), %error, "handshake failed");
            worker.handler.count_rejected(match error {
                HandshakeError::ProxyHeader(_) => RejectReason::ProxyHeader(peer.address()),
                HandshakeError::Handshake(error) => match client_certificate_problem(&error) {
                    Some(problem) => RejectReason::ClientCertificate(peer.address(), problem),
                    None => RejectReason::Handshake,
                },
            });
            return;
        }
    };
    let (PeerIdentity::Known(address) | PeerIdentity::UnknownBehindProxy(address)) = identity;
    if guard.client_permit.is_none() && !acquire_client_permit(&mut guard, address, &worker) {
        return;
    }
    let load = load_of(&guard);
    let peer = Rc::new(Peer::with_load(identity, Arc::clone(peer.listener_context()), tls, load));
    let accepted = new_connection(&peer, &worker);
    if connection.is_closing() {
        accepted.close();
    }
    let socket = Socket::new(transport, &worker.buffers);
    let client = ClientStream::new(HttpStream::Socket(socket), &accepted, &worker.connection_table);
    drop(registration);
    let task = match is_http2 {
        true => worker.tasks.spawn_local(http2::serve(client, guard, worker.for_child_task())),
        false => worker.tasks.spawn_local(http1::serve(client, guard, worker.for_child_task())),
    };
    accepted.set_task(task.abort_handle());
}
