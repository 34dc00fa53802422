//! A client as a handler sees it: what its bytes come and go by, and what is known of it.

use std::{future::poll_fn, io, rc::Rc};

use super::{
    connection::ClientConnection,
    connection_table::{ConnectionRegistration, ConnectionTable, WarmPermit},
    timeout::Timeout,
};
use crate::net::HttpStream;

/// A client: a connection of HTTP/1 or a stream of HTTP/2, and what is known of it.
pub struct ClientStream<M> {
    /// What its bytes come and go by.
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

    /// What its bytes come and go by, and what is known of it.
    pub fn split(&mut self) -> (&mut HttpStream, &ClientConnection<M>) {
        (&mut self.stream, &self.connection)
    }

    /// Gives a whole answer of our own. What was written of it is not known when the future is dropped;
    /// the connection is of no use then.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
    pub async fn send_response(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut written = 0;
        poll_fn(|context| {
            let done = self.stream.poll_answer(context, head, body, &mut written);
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
