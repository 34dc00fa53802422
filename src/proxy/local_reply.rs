//! An answer of Flipgate's own, in place of an upstream's.

use super::{
    error::{ErrorReply, ProxyError},
    headers::{FlipgateHeaders, hsts},
    peer_cache::PeerCache,
    request_traits::RequestTraits,
    upload::Upload,
};
use crate::downstream::{AfterExchange, ClientStream};

/// An answer of Flipgate's own, as it is written.
pub(super) struct LocalReply {
    /// Interim answers that were not written yet, the head and the body.
    bytes: Vec<u8>,
    /// How many bytes are the body.
    body: usize,
    /// Whether the client may send another request behind it.
    goes_on: bool,
}

/// What an answer of Flipgate's own depends on besides the request.
pub(super) struct ReplyContext<'a> {
    /// Interim answers that are not written yet.
    pub(super) interim: Vec<u8>,
    pub(super) marks: FlipgateHeaders,
    /// Where the client is sent instead.
    pub(super) location: Option<&'a [u8]>,
}

// === impl LocalReply ===

impl LocalReply {
    /// Writes the answer down. The connection goes on if the request's end is known to be there.
    pub(super) fn new(
        error: ProxyError,
        ask: &RequestTraits,
        upload: &mut Upload,
        circumstances: ReplyContext<'_>,
        client: &mut ClientStream<PeerCache>,
    ) -> Self {
        let (socket, connection) = client.split();
        connection.disarm_all();
        let goes_on = ask.keeps_alive
            && !error.ends_connection()
            && !connection.is_closing()
            && upload.reaches_next(socket);
        let ReplyContext { interim: mut bytes, marks, location } = circumstances;
        let told = ErrorReply {
            version: ask.version,
            is_for_head: ask.is_for_head,
            goes_on,
            marks,
            hsts: hsts(connection.peer()),
            is_grpc: ask.is_grpc,
            location,
            date: connection.date(),
        };
        let body = error.put(&mut bytes, &told);
        Self { bytes, body, goes_on }
    }

    /// Sends the answer, and returns what becomes of the connection. If the future is dropped, it is not
    /// known how much the client has, and the connection is of no use.
    pub(super) async fn send<T>(&self, client: &mut ClientStream<PeerCache>) -> AfterExchange<T> {
        let Self { bytes, body, goes_on } = self;
        let (head, body) = bytes.split_at(bytes.len() - body);
        match client.send_response(head, body).await {
            Ok(()) if *goes_on => AfterExchange::KeepAlive,
            Ok(()) => AfterExchange::Close,
            Err(_) => AfterExchange::Cut,
        }
    }
}
