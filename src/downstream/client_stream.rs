//! A client as a handler sees it: the stream of one request, and its connection.

use std::{future::poll_fn, io, rc::Rc};

use super::{
    connection::ClientConnection,
    connection_table::{ConnectionRegistration, ConnectionTable, WarmPermit},
    timeout::Timeout,
};
use crate::net::HttpStream;

/// A client: a connection of HTTP/1 or a stream of HTTP/2, with its state.
pub struct ClientStream<M> {
    /// The bytes from and to the client.
    pub stream: HttpStream,
    pub(super) connection: Rc<ClientConnection<M>>,
    registration: ConnectionRegistration<M>,
}

// === impl ClientStream ===

impl<M> ClientStream<M> {
    pub(super) fn new(
        stream: HttpStream,
        connection: &Rc<ClientConnection<M>>,
        connection_table: &Rc<ConnectionTable<M>>,
    ) -> Self {
        let registration = connection_table.register(connection);
        Self { stream, connection: Rc::clone(connection), registration }
    }

    /// The stream and the connection, to be borrowed at the same time.
    pub fn split(&mut self) -> (&mut HttpStream, &ClientConnection<M>) {
        (&mut self.stream, &self.connection)
    }

    /// Sends a complete response that Flipgate itself makes. After the future is dropped, an unknown part has been
    /// sent, and the connection must be closed.
    ///
    /// # Errors
    ///
    /// The error of the connection.
    pub async fn send_response(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|context| {
            let done = self.stream.poll_send_response(context, head, body, &mut written);
            self.connection.track(Timeout::Write, done.is_pending(), false);
            done
        })
        .await
    }

    pub(super) fn into_parts(
        self,
    ) -> (HttpStream, Rc<ClientConnection<M>>, ConnectionRegistration<M>) {
        (self.stream, self.connection, self.registration)
    }

    pub(super) fn try_keep_warm(&self) -> Option<WarmPermit> {
        self.registration.try_keep_warm()
    }
}
