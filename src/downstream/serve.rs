//! One connection from its accept to the protocol that it speaks.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::net::TcpStream;
use tracing::debug;

use super::{
    Handler, RejectReason,
    bind::ListenerContext,
    client::ClientStream,
    connection::ClientConnection,
    crowd::ClientLoad,
    greeting::{AcceptedConnection, HandshakeError, greet},
    http1, http2,
    peer::{Peer, PeerIdentity},
    shared::{ConnectionGuard, MonitoredContext, WorkerContext},
    wait::Timeout,
};
use crate::net::{HttpStream, Socket, Transport};

/// What one connection more than an address may have is told, where it can be told without a handshake.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Proxy-Status: flipgate; error=http_request_denied\r\n\
    Cache-Control: no-store\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\
    Content-Length: 70\r\n\r\n\
    429 Too Many Requests: your address has as many connections as it may\n";

/// Starts a task that serves one connection to its end, and returns at once. One more than its address
/// may have is closed.
pub(super) fn serve<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    entrance: Arc<ListenerContext>,
    mut guest: ConnectionGuard,
    house: &Rc<WorkerContext<H>>,
) {
    let is_proxied = entrance.expects_proxy_header(address.ip());
    // Whom a proxy's connection counts for is known when it has said so.
    if !is_proxied && !stand(&mut guest, address, house) {
        if entrance.tls.is_none() {
            // As far as it is taken at once: who has too much is not waited for.
            let _ = stream.try_write(TOO_MANY);
        }
        return;
    }
    let is_plain = entrance.tls.is_none() && !is_proxied;
    let peer =
        Rc::new(Peer::counted(PeerIdentity::Known(address), entrance, None, load_of(&guest)));
    let connection = connect(&peer, house);
    let task = match is_plain {
        true => {
            let socket = Socket::new(Transport::Tcp(stream), &house.buffers);
            let client = ClientStream::new(HttpStream::Socket(socket), &connection, &house.roster);
            house.tasks.spawn_local(http1::live(client, guest, MonitoredContext::new(house)))
        }
        false => house.tasks.spawn_local(be_greeted(
            stream,
            peer,
            connection.clone(),
            guest,
            MonitoredContext::new(house),
        )),
    };
    connection.run_by(task.abort_handle());
}

/// Counts a connection among those of its address, unless that has as many as it may and none of them has
/// been idle for a while.
fn stand<H: Handler>(
    guest: &mut ConnectionGuard,
    address: SocketAddr,
    house: &WorkerContext<H>,
) -> bool {
    guest.standing = house.crowd.join(address.ip()).or_else(|| {
        // Of another worker's connections nothing is known here.
        house.roster.evict_of(address.ip(), house.crowd.keeps_recent()).then(|| {
            house.metrics.evicted("connections_per_client");
            house.crowd.join_instead(address.ip())
        })?
    });
    if guest.standing.is_none() {
        debug!(peer = %address.ip(), "one connection more than an address may have");
        house.handler.turned_away(RejectReason::Crowd);
    }
    guest.standing.is_some()
}

/// What counts the requests of the connection's client.
fn load_of(guest: &ConnectionGuard) -> Arc<ClientLoad> {
    guest.standing.as_ref().map_or_else(ClientLoad::unknown, |it| Arc::clone(it.load()))
}

fn connect<H: Handler>(
    peer: &Rc<Peer<H::ConnectionCache>>,
    house: &WorkerContext<H>,
) -> Rc<ClientConnection<H::ConnectionCache>> {
    Rc::new(ClientConnection::new(Rc::clone(peer), Rc::clone(house.roster.clock())))
}

/// Serves a connection that begins with something else than a request, in a task of its own: what is
/// needed for the greeting is given back when it is over.
async fn be_greeted<H: Handler>(
    stream: TcpStream,
    peer: Rc<Peer<H::ConnectionCache>>,
    connection: Rc<ClientConnection<H::ConnectionCache>>,
    mut guest: ConnectionGuard,
    house: MonitoredContext<H>,
) {
    let place = house.roster.enter(&connection);
    connection.begin(Timeout::Greeting);
    let greeting = Box::pin(greet(stream, peer.socket_address(), peer.entrance()));
    let greeted = connection.hurry(Timeout::Greeting, greeting).await;
    let AcceptedConnection { transport, whose, security, is_http2 } = match greeted {
        Ok(greeted) => greeted,
        Err(error) => {
            debug!(peer = %peer.address(), %error, "a connection that did not come to a request");
            house.handler.turned_away(match error {
                HandshakeError::ProxyHeader(_) => RejectReason::ProxyHeader(peer.address()),
                HandshakeError::Handshake(_) => RejectReason::Handshake,
            });
            return;
        }
    };
    let (PeerIdentity::Known(address) | PeerIdentity::Untold(address)) = whose;
    if guest.standing.is_none() && !stand(&mut guest, address, &house) {
        return;
    }
    let load = load_of(&guest);
    let peer = Rc::new(Peer::counted(whose, Arc::clone(peer.entrance()), security, load));
    let greeted = connect(&peer, &house);
    if connection.is_closing() {
        greeted.close();
    }
    let socket = Socket::new(transport, &house.buffers);
    let client = ClientStream::new(HttpStream::Socket(socket), &greeted, &house.roster);
    drop(place);
    let task = match is_http2 {
        true => house.tasks.spawn_local(http2::live(client, guest, house.for_another())),
        false => house.tasks.spawn_local(http1::live(client, guest, house.for_another())),
    };
    greeted.run_by(task.abort_handle());
}
