//! A response that Flipgate makes itself.

use bytes::Bytes;

use super::{
    error::{ErrorReply, ProxyError},
    error_page::ChosenPage,
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
    /// The body, if it is not the end of `bytes`. Shared: a thousand clients may wait for the same page.
    page: Option<Bytes>,
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
    /// The page of the service for this error.
    pub(super) page: Option<ChosenPage>,
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
        let keeps_alive = may_keep_alive(traits, upload, client) && !error.ends_connection();
        let connection = client.split().1;
        let ReplyContext { interim: mut bytes, headers, location, page } = context;
        let reply = ErrorReply {
            version: traits.version,
            is_for_head: traits.is_for_head,
            keeps_alive,
            headers,
            hsts: hsts(connection.peer()),
            is_grpc: traits.is_grpc,
            location,
            page: page.as_ref().map(|it| (it.content_type, it.content.len())),
            date: connection.date(),
        };
        let body = error.put(&mut bytes, &reply);
        let page = page.map(|it| it.content).filter(|_| !traits.is_for_head);
        Self { bytes, body, page, keeps_alive }
    }

    /// A reply that is no error: a head and its content.
    pub(super) fn of(head: Vec<u8>, content: Bytes, keeps_alive: bool) -> Self {
        Self { bytes: head, body: 0, page: Some(content), keeps_alive }
    }

    /// Sends the reply, and says what happens to the connection. If the future is dropped, it is not known how much the
    /// client has, and the connection is not usable.
    pub(super) async fn send<T>(&self, client: &mut ClientStream<PeerCache>) -> AfterExchange<T> {
        let Self { bytes, body, page, keeps_alive: goes_on } = self;
        let (head, body) = match page {
            Some(page) => (&bytes[..], &page[..]),
            None => bytes.split_at(bytes.len() - body),
        };
        match client.send_response(head, body).await {
            Ok(()) if *goes_on => AfterExchange::KeepAlive,
            Ok(()) => AfterExchange::Close,
            Err(_) => AfterExchange::Cut,
        }
    }
}

/// Stops all timeouts of the exchange. Returns whether the connection can stay open: the end of the request is known to
/// be there.
pub(super) fn may_keep_alive(
    traits: &RequestTraits,
    upload: &mut Upload,
    client: &mut ClientStream<PeerCache>,
) -> bool {
    let (socket, connection) = client.split();
    connection.disarm_all();
    traits.keeps_alive && !connection.is_closing() && upload.ends_before_next_request(socket)
}
