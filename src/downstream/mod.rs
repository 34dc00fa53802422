//! Towards the client: listening sockets, worker threads, and one connection from its first byte to
//! its close.
//!
//! Does not know what a request is for. Whoever answers requests is a [`Handler`]; this room calls
//! it once for each, watches that neither side of a connection stands still for ever, and ends
//! connections gently when the process stops.

mod bind;
mod connection;
mod io;
mod roster;
mod worker;

use std::{error::Error, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};

pub use self::{
    bind::{BindError, Bound, Listener, bind},
    connection::Connection,
    roster::Patience,
    worker::{Settings, Stop, Worker},
};

/// Answers the requests of one worker's connections.
pub trait Handler: Sized + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static;
    /// What an answer holds on to until its last byte was written to the client's socket.
    type Hold: 'static;
    /// What is worth remembering from one request of a connection to the next.
    type Memory: Default + 'static;

    /// Answers one request. The future is dropped when the client goes away.
    fn handle(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection<Self>>,
    ) -> impl Future<Output = Response<Self::Body>>;

    /// Called about twice a second.
    fn tick(&self);
}
