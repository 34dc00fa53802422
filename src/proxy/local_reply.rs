//! A response that Flipgate makes itself.

use super::{
    error::{ErrorReply, ProxyError},
    headers::{FlipgateHeaders, hsts},
    peer_cache::PeerCache,
    request_traits::RequestTraits,
    upload::Upload,
};
use crate::downstream::{AfterExchange, ClientStream};

/// The bytes of a local reply.
pub(super) struct LocalReply {
    /// Interim responses that are not written yet, the head, and the body.
    bytes: Vec<u8>,
    /// The length of the body.
    body: usize,
    /// Whether the client connection stays open.
    keeps_alive: bool,
}

/// What a local reply depends on besides the request.
pub(super) struct ReplyContext<'a> {
    /// Interim responses that are not written yet.
    pub(super) interim: Vec<u8>,
    pub(super) headers: FlipgateHeaders,
    /// The `Location` of a redirect.
    pub(super) location: Option<&'a [u8]>,
}

// === impl LocalReply ===

impl LocalReply {
    /// Makes the reply. The connection stays open if the end of the request is known to be there.
    pub(super) fn new(
        error: ProxyError,
        traits: &RequestTraits,
        upload: &mut Upload,
        context: ReplyContext<'_>,
        client: &mut ClientStream<PeerCache>,
    ) -> Self {
        let (socket, connection) = client.split();
        connection.disarm_all();
        let keeps_alive = traits.keeps_alive
            && !error.ends_connection()
            && !connection.is_closing()
            && upload.ends_before_next_request(socket);
        let ReplyContext { interim: mut bytes, headers, location } = context;
        let reply = ErrorReply {
            version: traits.version,
            is_for_head: traits.is_for_head,
            keeps_alive,
            headers,
            hsts: hsts(connection.peer()),
            is_grpc: traits.is_grpc,
            location,
            date: connection.date(),
        };
        let body = error.put(&mut bytes, &reply);
        Self { bytes, body, keeps_alive }
    }

    /// Sends the reply, and says what happens to the connection. If the future is dropped, it is not known how much the
    /// client has, and the connection is not usable.
    pub(super) async fn send<T>(&self, client: &mut ClientStream<PeerCache>) -> AfterExchange<T> {
        let Self { bytes, body, keeps_alive: goes_on } = self;
        let (head, body) = bytes.split_at(bytes.len() - body);
        match client.send_response(head, body).await {
            Ok(()) if *goes_on => AfterExchange::KeepAlive,
            Ok(()) => AfterExchange::Close,
            Err(_) => AfterExchange::Cut,
        }
    }
}
